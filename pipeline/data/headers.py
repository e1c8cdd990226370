"""What an image file says of itself before anything is decoded: format, size, samples.

Pillow cuts some files of 16 bits to 8 without a word, so whether a file may be decoded is decided
here. Knows bytes only; decodes no pixels.
"""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pipeline.errors import ItemError

_BIG_ENDIAN_BIGTIFF = b"MM\0+"
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", _BIG_ENDIAN_BIGTIFF)
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)

# TIFF tags
_BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA, _SAMPLE_FORMAT = 258, 262, 277, 338, 339
_PHOTOMETRIC_NAMES = {
    4: "mask",
    5: "CMYK",
    8: "Lab",
    9: "Lab",
    10: "Lab",
    32803: "raw sensor",
    34892: "linear raw",
}
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 6: 3}  # of the photometric interpretations that can be kept
_UINT = 1
_ALPHA = (1, 2)  # associated, unassociated


def format_of(data: bytes) -> str | None:
    """png, jpeg, tiff, webp or bmp, by the first bytes; None for anything else."""
    if data.startswith(b"\x89PNG"):
        return "png"
    if data.startswith(b"\xff\xd8"):
        return "jpeg"
    if data.startswith(_TIFF_MAGIC):
        return "tiff"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "bmp"
    return None


def bits_per_sample(data: bytes, format: str, page: int) -> int:
    """Bits of each sample in the file, 8 where a palette or the format itself says so.

    Raises `ItemError` unsupported-mode for what 8-bit gray or RGB with or without alpha cannot
    hold: more bits, floats, signed numbers, CMYK, Lab, extra channels.
    """
    if format == "png":
        return _png_bits(data)
    if format == "jpeg":
        return _jpeg_bits(data)
    if format == "tiff":
        return _tiff_bits(data, page)
    return 8


def webp_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of the canvas; Pillow would only tell after allocating it."""
    chunk = data[12:16]
    if chunk == b"VP8X" and len(data) >= 30:
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if chunk == b"VP8L" and len(data) >= 25:
        packed = int.from_bytes(data[21:25], "little")
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 " and len(data) >= 30:
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def png_damage(data: bytes) -> str | None:
    """What is wrong with the chunks of a PNG, or None; Pillow skips the checksums of pixel data."""
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        name, end = data[position + 4 : position + 8], position + 8 + length
        if end + 4 > len(data):
            break
        critical = not name[:1].islower()
        if critical and zlib.crc32(memoryview(data)[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            return f"the checksum of a {name.decode('latin-1')} chunk is wrong"
        if name == b"IEND":
            return None
        position = end + 4
    return "the file is cut short"


def _png_bits(data: bytes) -> int:
    if len(data) < 26:
        return 8
    bits, colour = data[24], data[25]
    _refuse_deep("PNG", bits)
    return 8 if colour == 3 else bits


def _jpeg_bits(data: bytes) -> int:
    for marker, body in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(body) >= 6:
            _refuse_deep("JPEG", body[0])
            if body[5] not in (1, 3):
                kind = "CMYK or YCCK" if body[5] == 4 else "neither gray nor colour"
                raise ItemError("unsupported-mode", f"the JPEG has {body[5]} components ({kind}), not 1 or 3")
            return body[0]
    return 8


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """(marker, body) of the segments before the first scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xDA:
            return
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD9:  # fill bytes and markers without a body
            position += 1 if marker == 0xFF else 2
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, memoryview(data)[position + 4 : end]
        position = end


def _tiff_bits(data: bytes, page: int) -> int:
    if data.startswith(_BIG_ENDIAN_BIGTIFF):
        raise ItemError("unsupported-mode", "a big-endian BigTIFF cannot be read; rewrite it little-endian")
    tags = _tiff_tags(data, page)
    if tags is None:
        return 8
    photometric, bits = tags.get(_PHOTOMETRIC, 0), tags.get(_BITS, (1,))
    formats, extra = tags.get(_SAMPLE_FORMAT, (_UINT,)), tags.get(_EXTRA, ())
    _refuse_deep("TIFF", max(bits))
    if any(sample_format != _UINT for sample_format in formats):
        raise ItemError("unsupported-mode", "the TIFF has samples that are not unsigned integers")
    if photometric not in _COLOURS:
        name = _PHOTOMETRIC_NAMES.get(photometric, f"photometric {photometric}")
        raise ItemError("unsupported-mode", f"the TIFF is {name}, not gray, RGB or palette")
    beyond = tags.get(_SAMPLES, len(bits)) - _COLOURS[photometric]
    if beyond > 1 or (beyond == 1 and extra and extra[0] not in _ALPHA):
        raise ItemError("unsupported-mode", f"the TIFF has {beyond} more channels than colours, and not only alpha")
    return 8 if photometric == 3 else int(max(bits))


def _tiff_tags(data: bytes, page: int) -> dict[int, Any] | None:
    """The tags of a page, or None where there is no such page."""
    directory = ImageFileDirectory_v2(data[: 16 if data[2:3] == b"+" else 8])
    stream, seen = BytesIO(data), set[int]()
    for _ in range(page + 1):
        if not 0 < directory.next < len(data) or directory.next in seen:
            return None
        seen.add(directory.next)
        stream.seek(directory.next)
        directory.load(stream)
    return dict(directory)


def _refuse_deep(format: str, bits: int) -> None:
    if bits > 8:
        raise ItemError("unsupported-mode", f"the {format} has {bits} bits a sample; only 8 can be kept so far")
