"""EXIF blocks: made to tell the truth about an image that was turned upright and resized.

A block is patched in place, byte by byte, so that everything else in it (maker notes with
absolute offsets, unknown tags) survives. Knows no pixels.
"""

import struct
from fractions import Fraction
from typing import Any

from PIL import Image

PREFIX = b"Exif\0\0"  # of the block in a JPEG segment; carried blocks go without
_ORIENTATION, _WIDTH, _HEIGHT = 0x0112, 0x0100, 0x0101
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _INCH = 0x011A, 0x011B, 0x0128, 2
_EXIF_IFD, _GPS_IFD, _PIXEL_X, _PIXEL_Y = 0x8769, 0x8825, 0xA002, 0xA003
_FOCAL_PLANE = (0xA20E, 0xA20F)  # pixels per unit on the sensor
_THUMBNAIL, _THUMBNAIL_BYTES = 0x0201, 0x0202
_SHORT, _LONG, _RATIONAL = 3, 4, 5

# Tags about the picture, not about how a TIFF stores it: title, camera, software, dates, rights, ...
_TITLES = range(0x9C9B, 0x9CA0)  # XPTitle to XPSubject
DESCRIPTIVE = (0x010D, 0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x8298, *_TITLES)


def upright(
    block: bytes, width: int, height: int, *, dpi: tuple[float, float] | None = None, scale: int = 1
) -> bytes | None:
    """`block` saying orientation 1 and, where it gives a size or resolution, this one; None if it is no EXIF.

    dpi: the true resolution, put where there is one. scale: by how much the image was enlarged, for
    what counts pixels on the sensor. The embedded thumbnail is unlinked and overwritten with zeros:
    it shows the image as it was.
    """
    block = block.removeprefix(PREFIX).removeprefix(PREFIX)  # some writers put it twice
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return None
    patched = bytearray(block)
    try:
        (first,) = struct.unpack_from(order + "I", block, 4)
        found = _patch(patched, order, first, {_ORIENTATION: 1, _WIDTH: width, _HEIGHT: height})
        _drop_thumbnail(patched, order, first)
        if dpi is not None:
            _patch(patched, order, first, {_RESOLUTION_UNIT: _INCH})
            _patch_ratios(patched, order, first, dict(zip((_X_RESOLUTION, _Y_RESOLUTION), dpi, strict=True)), 0.0)
        if _EXIF_IFD in found:
            _patch(patched, order, found[_EXIF_IFD], {_PIXEL_X: width, _PIXEL_Y: height})
            _patch_ratios(patched, order, found[_EXIF_IFD], dict.fromkeys(_FOCAL_PLANE, 0.0), float(scale))
    except struct.error:  # an offset leads out of the block
        return None
    return bytes(patched)


def block_of(tags: Image.Exif) -> bytes | None:
    """A block of the descriptive tags of a TIFF's own directory, or None if there are none."""
    kept = Image.Exif()
    for tag, value in _descriptive(tags).items():
        if isinstance(value, dict):
            kept.get_ifd(tag).update(value)
        else:
            kept[tag] = value
    return kept.tobytes().removeprefix(PREFIX) if _descriptive(tags) else None


def descriptive_tags(block: bytes) -> dict[int, Any]:
    """The tags of a block that may stand in a TIFF's own directory; sub-directories as dicts."""
    tags = Image.Exif()
    tags.load(block)
    return _descriptive(tags)


def _descriptive(tags: Image.Exif) -> dict[int, Any]:
    found = {tag: tags[tag] for tag in DESCRIPTIVE if tag in tags}
    groups = {group: tags.get_ifd(group) for group in (_EXIF_IFD, _GPS_IFD)}
    return found | {group: values for group, values in groups.items() if values}


def _patch(block: bytearray, order: str, directory: int, values: dict[int, int]) -> dict[int, int]:
    """Set `values` where the directory has these tags; the numbers that stood there, by tag."""
    found = {}
    (count,) = struct.unpack_from(order + "H", block, directory)
    for position in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(order + "HHI", block, position)
        if kind not in (_SHORT, _LONG) or length != 1:
            continue
        (found[tag],) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), block, position + 8)
        if tag in values:
            struct.pack_into(order + "HHII", block, position, tag, _LONG, 1, values[tag])
            if kind == _SHORT and values[tag] < 0x10000:
                struct.pack_into(order + "HHIHH", block, position, tag, _SHORT, 1, values[tag], 0)
    return found


def _patch_ratios(block: bytearray, order: str, directory: int, values: dict[int, float], factor: float) -> None:
    """Set the ratios among `values` that the directory has to value + factor × what stood there."""
    (count,) = struct.unpack_from(order + "H", block, directory)
    for position in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, length, place = struct.unpack_from(order + "HHII", block, position)
        if tag in values and kind == _RATIONAL and length == 1:
            above, below = struct.unpack_from(order + "II", block, place)
            ratio = Fraction(values[tag] + factor * above / max(1, below)).limit_denominator(10_000)
            if ratio.numerator < 2**32:
                struct.pack_into(order + "II", block, place, ratio.numerator, ratio.denominator)


def _drop_thumbnail(block: bytearray, order: str, directory: int) -> None:
    (count,) = struct.unpack_from(order + "H", block, directory)
    link = directory + 2 + 12 * count
    (second,) = struct.unpack_from(order + "I", block, link)
    struct.pack_into(order + "I", block, link, 0)
    if second:
        found = _patch(block, order, second, {})
        start, length = found.get(_THUMBNAIL, 0), found.get(_THUMBNAIL_BYTES, 0)
        if 8 <= start < start + length <= len(block):
            block[start : start + length] = bytes(length)


def with_resolution(block: bytes | None, dpi: tuple[float, float] | None) -> bytes | None:
    """`block`, or a new one for formats that keep the resolution nowhere else."""
    if block or not dpi:
        return block
    tags = Image.Exif()
    tags[_X_RESOLUTION], tags[_Y_RESOLUTION], tags[_RESOLUTION_UNIT] = *dpi, _INCH
    return tags.tobytes().removeprefix(PREFIX)
