"""The boxes of JPEG 2000 and AVIF files, as far as decoding and metadata ask for them.

ISO/IEC 15444-1 annexes A and I, ISO/IEC 14496-12, AV1-ISOBMFF. Knows bytes only.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ItemError

JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
J2K_START = b"\xff\x4f\xff\x51"
_J2K_END = b"\xff\xd9"
_INSIDE = {b"jp2h", b"res ", b"meta", b"iprp", b"ipco"}  # boxes that hold boxes
_FULL = {b"meta"}  # with version and flags before them
_XMP_ID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF_ID = b"JpgTiffExif->JP2"
_CMYK = 12  # enumerated colour space of a colr box
_ALPHA_KINDS = {1: "unassociated", 2: "associated"}


@dataclass(frozen=True)
class J2kFacts:
    """bits, signed: of each component. cmyk, alpha, icc, exif, xmp, dpi: from the boxes around it."""

    width: int
    height: int
    bits: tuple[int, ...]
    signed: bool
    subsampled: bool
    whole: bool
    cmyk: bool = False
    alpha: str | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


def j2k_facts(data: bytes) -> J2kFacts:
    """What a JP2 file or a bare codestream says of itself. Raises `ItemError` corrupt-image."""
    found = {} if data.startswith(J2K_START) else _jp2_boxes(data)
    stream = data.find(J2K_START) if found else 0
    if stream < 0 or len(data) < stream + 42:
        raise ItemError("corrupt-image", "the jp2 is damaged: it has no codestream")
    right, bottom, left, top = struct.unpack_from(">IIII", data, stream + 8)
    (count,) = struct.unpack_from(">H", data, stream + 40)
    components = data[stream + 42 : stream + 42 + 3 * count]
    if len(components) < 3 * count or not count:
        raise ItemError("corrupt-image", "the jp2 is damaged: its components are missing")
    palette = found.pop("palette_bits", None)
    return J2kFacts(
        width=right - left,
        height=bottom - top,
        bits=palette or tuple((value & 0x7F) + 1 for value in components[::3]),
        signed=any(value & 0x80 for value in components[::3]),
        subsampled=any(value != 1 for place, value in enumerate(components) if place % 3),
        whole=data.rstrip(b"\0")[-2:] == _J2K_END if not found.pop("more", False) else True,
        **found,
    )


def avif_bits(data: bytes) -> int:
    """Bits of each sample of an AVIF's first image: 8, 10 or 12."""
    for name, start, _ in _walk(data, 0, len(data)):
        if name == b"av1C" and start + 3 <= len(data):
            high, twelve = data[start + 2] & 0x40, data[start + 2] & 0x20
            return (12 if twelve else 10) if high else 8
    return 8


def _jp2_boxes(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"cmyk": False}
    codestream_ends = None
    for name, start, end in _walk(data, 0, len(data)):
        body = data[start:end]
        if name == b"colr":
            found |= _colour_of(body)
        elif name == b"cdef":
            found["alpha"] = _alpha_of(body)
        elif name == b"pclr" and len(body) > 3:
            found["palette_bits"] = tuple((value & 0x7F) + 1 for value in body[3 : 3 + body[2]])
        elif name in (b"resc", b"resd") and len(body) >= 10:
            found.setdefault("dpi", _dpi_of(body))
        elif name == b"uuid" and body[:16] == _XMP_ID:
            found["xmp"] = body[16:]
        elif name == b"uuid" and body[:16] == _EXIF_ID:
            found["exif"] = body[16:]
        elif name == b"jp2c":
            codestream_ends = end
    if codestream_ends is not None and codestream_ends < len(data):
        found["more"] = data[codestream_ends - 2 : codestream_ends] == _J2K_END
    return found


def _colour_of(body: bytes) -> dict[str, Any]:
    if body[:1] == b"\1" and len(body) >= 7:
        return {"cmyk": struct.unpack_from(">I", body, 3)[0] == _CMYK}
    return {"icc": body[3:]} if body[:1] == b"\2" else {}


def _alpha_of(body: bytes) -> str | None:
    for place in range(2, len(body) - 5, 6):
        kind = struct.unpack_from(">H", body, place + 2)[0]
        if kind in _ALPHA_KINDS:
            return _ALPHA_KINDS[kind]
    return None


def _dpi_of(body: bytes) -> tuple[float, float]:
    vertical, v_unit, horizontal, h_unit = struct.unpack_from(">HHHH", body)
    v_power, h_power = struct.unpack_from(">bb", body, 8)
    return (
        0.0254 * horizontal / max(1, h_unit) * 10.0**h_power,
        0.0254 * vertical / max(1, v_unit) * 10.0**v_power,
    )


def _walk(data: bytes, position: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of each box's body, those inside others too."""
    while position + 8 <= stop:
        length, name = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if length == 1 and start + 8 <= stop:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = stop if length == 0 else position + length
        if end < start or end > stop:
            return
        yield name, start, end
        if name in _INSIDE:
            yield from _walk(data, start + 4 * (name in _FULL), end)
        position = end
