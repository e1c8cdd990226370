"""The metadata of an enlarged image: true again, and with a note of what made it.

The physical size stays, so the resolution grows with the scale. Pure: bytes and numbers.
"""

from dataclasses import replace

from pipeline.data import exif, xmp
from pipeline.records import Picture


def enlarged(picture: Picture, scale: int, note: dict[str, str] | None = None) -> Picture:
    """`picture`, restored at `scale`, with the metadata that belongs to its new size.

    note: facts about the making, written into the XMP packet; None writes none.
    """
    height, width = picture.pixels_hwc.shape[:2]
    x, y = picture.dpi or (None, None)
    dpi = None if x is None or y is None else (x * scale, y * scale)
    packet = xmp.resized(picture.xmp, width, height, dpi) if picture.xmp else None
    return replace(
        picture,
        dpi=dpi,
        exif=exif.upright(picture.exif, width, height, dpi=dpi, scale=scale) if picture.exif else None,
        xmp=xmp.with_note(packet, note) if note else packet,
    )
