"""What an image file says of itself before anything is decoded: format, size, samples.

Pillow cuts some files of 16 bits to 8 without a word, so which decoder may touch a file is decided
here. Knows bytes only; decodes no pixels.
"""

from collections.abc import Iterator

from pipeline.data import boxes, png_chunks
from pipeline.data.tiff_layout import tiff_layout
from pipeline.errors import ItemError

FORMATS = ("png", "jpeg", "tiff", "webp", "bmp", "jp2", "avif")

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)
_AVIF_BRANDS = (b"avif", b"avis")


def format_of(data: bytes) -> str | None:
    """One of `FORMATS`, by the first bytes; None for anything else."""
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
    if data.startswith((boxes.JP2_SIGNATURE, boxes.J2K_START)):
        return "jp2"
    if data[4:8] == b"ftyp" and any(brand in data[8 : int.from_bytes(data[:4], "big")] for brand in _AVIF_BRANDS):
        return "avif"
    return None


def bits_per_sample(data: bytes, format: str, page: int) -> int:
    """Bits of each sample in the file, 8 where a palette or the format itself says so.

    Raises `ItemError` unsupported-mode for what gray or RGB with or without alpha cannot hold:
    signed numbers, floats of other sizes than 32 bits, extra channels.
    """
    if format == "png":
        return png_chunks.bits(data)
    if format == "jpeg":
        return jpeg_frame(data)[1]
    if format == "tiff":
        layout = tiff_layout(data, page)
        return 8 if layout is None else layout.bits
    if format == "jp2":
        return max(boxes.j2k_facts(data).bits)
    return boxes.avif_bits(data) if format == "avif" else 8


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


def jpeg_frame(data: bytes) -> tuple[int, int, int]:
    """(position of the precision byte, bits a sample, components) of a JPEG; 8 bits where it has no frame."""
    for marker, start, body in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(body) >= 6:
            if body[5] not in (1, 3, 4):
                raise ItemError("unsupported-mode", f"the JPEG has {body[5]} components, not 1, 3 or 4")
            return start, body[0], body[5]
    return 0, 8, 3


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, memoryview]]:
    """(marker, position of the body, body) of the segments before the first scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xDA:
            return
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD9:  # fill bytes and markers without a body
            position += 1 if marker == 0xFF else 2
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, position + 4, memoryview(data)[position + 4 : end]
        position = end
