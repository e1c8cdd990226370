"""Image files to `Picture`s and back, losslessly or not at all.

In: PNG, JPEG, TIFF, WebP and BMP with up to 8 bits a sample; gray, RGB or palette, with or without
alpha. Anything wider is refused, never cut. Out: PNG and TIFF.
The picture is upright: the EXIF orientation is applied to pixels and alpha and then reads 1.

Knows bytes only: no storage, no network, no rows.
"""

import math
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile, PngInfo
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pipeline.data import exif, headers
from pipeline.data.pillow import own_rules
from pipeline.data.tiff import COMPRESSIONS, tiff_bytes
from pipeline.errors import ItemError
from pipeline.records import Picture

Samples = npt.NDArray[np.uint8]

EXTENSIONS = {"png": ".png", "tiff": ".tif"}

_OPENERS: dict[str, Callable[[BytesIO], ImageFile.ImageFile]] = {
    "png": PngImageFile,
    "jpeg": jpeg_factory,
    "tiff": TiffImageFile,
    "webp": WebPImageFile,
    "bmp": BmpImageFile,
}
_GRAY = ("1", "L", "LA", "La")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa")
_ORIENTATION = 0x0112
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>\s*))[2-8]""")
_X_RESOLUTION = 282

# What Pillow raises on damaged files, found by flipping and cutting bytes.
_DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
)

# Row 0 and column 0 of the stored image are, for each orientation, where EXIF says they are.
_TURNS: dict[int, Callable[[Samples], Samples]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


def decode(data: bytes, *, page: int = 0, max_pixels: int) -> Picture:
    """The image in `data`: pixels (h, w, 1) or (h, w, 3) and alpha (h, w) uint8, and its metadata.

    page: of a TIFF, or frame of an animation. max_pixels: checked before anything is decoded.
    Raises `ItemError`: input-empty, not-an-image, unsupported-mode, over-limit, bad-page,
    corrupt-image.
    """
    if not data:
        raise ItemError("input-empty", "the object has zero bytes")
    format = headers.format_of(data)
    if format is None:
        raise ItemError("not-an-image", f"not one of {', '.join(_OPENERS)}; it begins with {data[:8]!r}")
    with own_rules():
        try:
            return _decode(data, format, page, max_pixels)
        except _DAMAGE as error:
            raise _refusal(format, error) from None


def encode(picture: Picture, format: str, *, png_level: int = 1, tiff_compression: str = "deflate") -> bytes:
    """A file of `picture`: gray or RGB as it is, with alpha if it has some, and its metadata.

    format: a key of `EXTENSIONS`. png_level: 0 to 9; 1 uses zlib's run-length strategy, which on
    photographs is faster than levels 1 to 3 and smaller than level 3 (73 ms a megapixel; level 6
    takes 350 ms for 2% less). tiff_compression: deflate (40 ms), lzw (45 ms, 5% larger) or none.
    Raises `ItemError` unsupported-mode for samples that are not uint8.
    """
    if format not in EXTENSIONS:
        raise ValueError(f"format must be one of {', '.join(EXTENSIONS)}, not {format!r}")
    if picture.pixels_hwc.dtype != np.uint8:
        raise ItemError("unsupported-mode", f"samples of {picture.pixels_hwc.dtype} cannot be written so far")
    with own_rules():
        picture = _with_true_exif(picture)
        if format == "png":
            return _png(picture, png_level)
        return _tiff(picture, tiff_compression)


def _decode(data: bytes, format: str, page: int, max_pixels: int) -> Picture:
    if format == "webp" and (size := headers.webp_size(data)):
        _refuse_large(size, max_pixels)
    bits = headers.bits_per_sample(data, format, page)
    image = _OPENERS[format](BytesIO(data))
    if format != "tiff":  # frames share a canvas, and finding one may mean decoding those before
        _refuse_large(image.size, max_pixels)
    _turn_to_page(image, page)
    _refuse_large(image.size, max_pixels)
    if image.mode not in (*_GRAY, *_COLOUR):
        raise ItemError("unsupported-mode", f"the {format} is of mode {image.mode}, not gray, RGB or palette")
    if format == "png" and (damage := headers.png_damage(data)):
        raise ItemError("corrupt-image", f"the png is damaged: {damage}")
    return _picture(image, format, bits)


def _picture(image: ImageFile.ImageFile, format: str, bits: int) -> Picture:
    mode, orientation = image.mode, _orientation(image)
    image.load()
    pixels, alpha = _samples(image, bits)
    turn = _TURNS[1 if format == "tiff" else orientation]  # Pillow turns TIFFs while loading
    pixels = np.ascontiguousarray(turn(pixels))
    height, width = pixels.shape[:2]
    block = image.info.get("exif") or exif.block_of(image.getexif())
    return Picture(
        pixels,
        mode=mode,
        format=format,
        bits=bits,
        alpha_hw=None if alpha is None else np.ascontiguousarray(turn(alpha)),
        icc=image.info.get("icc_profile") or None,
        exif=exif.upright(block, width, height) if block else None,
        xmp=_upright_xmp(image.info.get("xmp")),
        dpi=_dpi(image, swapped=orientation > 4),
    )


def _refusal(format: str, error: Exception) -> ItemError:
    if isinstance(error, ItemError):
        return error
    text = str(error) or type(error).__name__
    if "nsupported" in text or "unknown pixel mode" in text or "not yet supported" in text:
        return ItemError("unsupported-mode", f"the {format} cannot be decoded without loss: {text}")
    if "not identified by this driver" in text:
        text = "its size is zero"
    return ItemError("corrupt-image", f"the {format} is damaged: {text}")


def _refuse_large(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        message = f"the image has {width} x {height} pixels; `limits.lr_pixels` allows {max_pixels}"
        raise ItemError("over-limit", message)


def _turn_to_page(image: ImageFile.ImageFile, page: int) -> None:
    count = getattr(image, "n_frames", 1) if page else 1
    if not 0 <= page < count:
        raise ItemError("bad-page", f"there is no page {page}; the file has {count}, counted from 0")
    image.seek(page)


def _orientation(image: ImageFile.ImageFile) -> int:
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and value in _TURNS else 1


def _samples(image: ImageFile.ImageFile, bits: int) -> tuple[Samples, Samples | None]:
    """Colour (h, w, 1 or 3) and alpha (h, w) as stored, before any turning."""
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int):
        image.info["transparency"] = key * 255 // (2**bits - 1)  # Pillow has widened the pixels, not the key
    transparent = key is not None or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    colours = "L" if image.mode in _GRAY else "RGB"
    wanted = colours + "A" if transparent else colours
    samples = np.asarray(image if image.mode == wanted else image.convert(wanted))
    samples = samples.reshape(image.height, image.width, -1)
    if not transparent:
        return samples, None
    return samples[:, :, :-1], samples[:, :, -1]


def _upright_xmp(xmp: object) -> bytes | None:
    """XMP may repeat the orientation, and readers without EXIF believe it."""
    if not isinstance(xmp, bytes) or not xmp:
        return None
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def _dpi(image: ImageFile.ImageFile, swapped: bool) -> tuple[float, float] | None:
    given = image.info.get("dpi")
    if given is None or (isinstance(image, TiffImageFile) and _X_RESOLUTION not in image.tag_v2):
        return None
    x, y = float(given[0]), float(given[1])
    if not all(math.isfinite(v) and v > 0 for v in (x, y)):
        return None
    return (y, x) if swapped else (x, y)


def _with_true_exif(picture: Picture) -> Picture:
    height, width = picture.pixels_hwc.shape[:2]
    return replace(picture, exif=exif.upright(picture.exif, width, height) if picture.exif else None)


def _interleaved(picture: Picture) -> Samples:
    """(h, w, 1 to 4) uint8, alpha last."""
    parts = [picture.pixels_hwc]
    if picture.alpha_hw is not None:
        parts.append(picture.alpha_hw[:, :, None])
    return np.ascontiguousarray(np.concatenate(parts, axis=2), np.uint8)


def _png(picture: Picture, level: int) -> bytes:
    samples, file, info = _interleaved(picture), BytesIO(), PngInfo()
    if picture.xmp:
        info.add_itxt("XML:com.adobe.xmp", picture.xmp.decode("utf-8", "replace").rstrip("\0"))
    options: dict[str, Any] = {"icc_profile": picture.icc, "exif": picture.exif, "dpi": picture.dpi}
    Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples).save(
        file,
        "PNG",
        compress_level=level,
        compress_type=zlib.Z_RLE if level == 1 else zlib.Z_DEFAULT_STRATEGY,
        pnginfo=info,
        **{name: value for name, value in options.items() if value},
    )
    return file.getvalue()


def _tiff(picture: Picture, compression: str) -> bytes:
    if compression not in COMPRESSIONS:
        raise ValueError(f"tiff_compression must be one of {', '.join(COMPRESSIONS)}, not {compression!r}")
    samples = _interleaved(picture)
    carried: dict[str, Any] = {"icc": picture.icc, "xmp": picture.xmp, "dpi": picture.dpi}
    tags = exif.descriptive_tags(picture.exif) if picture.exif else {}
    try:
        return tiff_bytes(samples, compression=compression, tags=tags, **carried)
    except (*_DAMAGE, AssertionError):  # values that EXIF in the wild holds and no TIFF can
        return tiff_bytes(samples, compression=compression, **carried)
