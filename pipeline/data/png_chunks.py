"""The chunks of a PNG file: checked, stripped of pixels, and put into encoded files.

The codecs decode and encode pixels; what else a PNG carries travels in chunks. Knows bytes only.
"""

import struct
import zlib
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_AFTER_HEADER = len(_SIGNATURE) + 25  # signature and IHDR
_CARRIED = (b"iCCP", b"eXIf", b"pHYs", b"iTXt", b"tEXt", b"zTXt")
_XMP_KEYWORD = b"XML:com.adobe.xmp"


def bits(data: bytes) -> int:
    """Bits of each sample: those of the colours where there is a palette."""
    return 8 if len(data) < 26 or data[25] == 3 else data[24]


def damage(data: bytes) -> str | None:
    """What is wrong with the chunks, or None; Pillow skips the checksums of pixel data."""
    for name, start, end in _spans(data):
        if end + 4 > len(data):
            break
        checksum = struct.unpack_from(">I", data, end)[0]
        critical = not name[:1].islower()
        if critical and zlib.crc32(memoryview(data)[start - 4 : end]) != checksum:
            return f"the checksum of a {name.decode('latin-1')} chunk is wrong"
        if name == b"IEND":
            return None
    return "the file is cut short"


def without_pixels(data: bytes) -> bytes:
    """A PNG of one pixel with the metadata of this one, wherever in the file that stands."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    carried = [(name, data[start:end]) for name, start, end in _spans(data) if name in _CARRIED]
    pixels = zlib.compress(b"\0\0")
    return _SIGNATURE + b"".join(
        _chunk(*part) for part in [(b"IHDR", header), *carried, (b"IDAT", pixels), (b"IEND", b"")]
    )


def with_metadata(
    png: bytes | bytearray,
    *,
    icc: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """`png` with these chunks after its header."""
    chunks = []
    if icc:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))
    if dpi:
        x, y = (min(2**31 - 1, round(value / 0.0254)) for value in dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", x, y, 1)))
    if exif:
        chunks.append((b"eXIf", exif))
    if xmp:
        text = xmp.decode("utf-8", "replace").rstrip("\0").encode()
        chunks.append((b"iTXt", _XMP_KEYWORD + b"\0" * 5 + text))
    added = b"".join(_chunk(*chunk) for chunk in chunks)
    return b"".join([png[:_AFTER_HEADER], added, memoryview(png)[_AFTER_HEADER:]])


def _spans(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of each chunk's body; the last end may lie beyond a cut file."""
    position = len(_SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        start, end = position + 8, position + 8 + length
        yield data[position + 4 : start], start, end
        position = end + 4


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
