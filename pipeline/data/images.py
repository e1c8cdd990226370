"""Image files to `Picture`s and back, losslessly or not at all; what could not stay as stored is said.

In: PNG, JPEG, TIFF and BigTIFF, WebP, BMP, JPEG 2000 and AVIF of up to 16 bits a sample or float32;
gray, RGB, palette, CMYK and Lab, with or without alpha. docs/formats.md says what becomes of each.
The picture is upright: the EXIF orientation is applied to pixels and alpha and then reads 1.
Out: PNG, TIFF, JPEG, WebP and AVIF.

Knows bytes only: no storage, no network, no rows.
"""

import math
from typing import Any

from pipeline.data import encoders, exif, headers, xmp
from pipeline.data.encoders import EXTENSIONS, Options
from pipeline.data.pages import Page, opened
from pipeline.data.pillow import DAMAGE, own_rules
from pipeline.data.turns import turned
from pipeline.errors import ItemError
from pipeline.records import Picture

__all__ = ["EXTENSIONS", "Options", "decode", "dimensions", "encode"]


def decode(data: bytes, *, page: int = 0, max_pixels: int) -> Picture:
    """The image in `data`: pixels (h, w, 1) or (h, w, 3), alpha (h, w) of one type, and its metadata.

    page: of a TIFF, or frame of an animation. max_pixels: checked before anything is decoded.
    Raises `ItemError`: input-empty, not-an-image, unsupported-mode, over-limit, bad-page,
    corrupt-image.
    """
    format = _format(data)
    with own_rules():
        try:
            return _picture(opened(data, format, page, max_pixels), format)
        except DAMAGE as error:
            raise _refusal(format, error) from None


def dimensions(data: bytes, *, page: int = 0) -> tuple[int, int]:
    """(width, height) of the upright image by its header alone. Raises `ItemError` as `decode` does."""
    format = _format(data)
    with own_rules():
        try:
            found = opened(data, format, page, None)
        except DAMAGE as error:
            raise _refusal(format, error) from None
    return (found.height, found.width) if found.orientation > 4 else (found.width, found.height)


def encode(picture: Picture, format: str, options: Options | None = None) -> bytes:
    """A file of `picture`: gray or RGB as it is, with alpha if it has some, and its metadata.

    format: a key of `EXTENSIONS`. Raises `ItemError` unsupported-mode for what it cannot hold.
    """
    with own_rules():
        return encoders.encode(picture, format, options or Options())


def _format(data: bytes) -> str:
    if not data:
        raise ItemError("input-empty", "the object has zero bytes")
    format = headers.format_of(data)
    if format is None:
        raise ItemError("not-an-image", f"not one of {', '.join(headers.FORMATS)}; it begins with {data[:8]!r}")
    return format


def _picture(page: Page, format: str) -> Picture:
    stored = page.load()
    pixels = turned(stored.colours, page.turn)
    height, width = pixels.shape[:2]
    if not pixels.size:
        raise ItemError("corrupt-image", f"the {format} is damaged: its size is zero")
    return Picture(
        pixels,
        mode=page.mode,
        format=format,
        bits=page.bits,
        alpha_hw=None if stored.alpha is None else turned(stored.alpha, page.turn),
        converted=stored.converted,
        **metadata_of(page, stored.icc or page.icc, width, height),
    )


def metadata_of(page: Page, icc: bytes | None, width: int, height: int) -> dict[str, Any]:
    """The metadata of the upright image, as `Picture` takes it."""
    dpi = page.dpi
    if dpi is not None:
        usable = all(math.isfinite(value) and value > 0 for value in dpi)
        dpi = (dpi[::-1] if page.orientation > 4 else dpi) if usable else None
    return {
        "icc": icc,
        "exif": exif.upright(page.exif, width, height) if page.exif else None,
        "xmp": xmp.upright(page.xmp) if page.xmp else None,
        "dpi": dpi,
    }


def _refusal(format: str, error: Exception) -> ItemError:
    if isinstance(error, ItemError):
        return error
    text = str(error) or type(error).__name__
    if "nsupported" in text or "unknown pixel mode" in text or "not yet supported" in text:
        return ItemError("unsupported-mode", f"the {format} cannot be decoded without loss: {text}")
    if "not identified by this driver" in text:
        text = "its size is zero"
    return ItemError("corrupt-image", f"the {format} is damaged: {text}")
