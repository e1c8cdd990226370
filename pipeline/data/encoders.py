"""`Picture`s to files: PNG, TIFF, JPEG, WebP and AVIF, in the depth asked for, with their metadata.

    png    8 and 16 bits                lossless
    tiff   8 and 16 bits, float32       lossless, tiled, BigTIFF beyond 4 GB
    jpeg   8 bits, no alpha             4:4:4
    webp   8 bits; gray becomes RGB     quality 100 is lossless
    avif   8 bits                       4:4:4

What a format cannot hold is refused, never cut: `refuse_unwritable` says so before any restoring.
What the levels cost is in docs/formats.md. Knows bytes only.
"""

from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Literal

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.data import exif, png_chunks
from pipeline.data.colour import of_depth
from pipeline.data.tiff import COMPRESSIONS, tiff_bytes
from pipeline.errors import ItemError
from pipeline.records import Picture

Depth = Literal["keep", 8, 16]

EXTENSIONS = {"png": ".png", "tiff": ".tif", "jpeg": ".jpg", "webp": ".webp", "avif": ".avif"}

_DTYPES = {"png": "uint8 uint16", "tiff": "uint8 uint16 float32", "jpeg": "uint8", "webp": "uint8", "avif": "uint8"}
_LARGEST_SIDE = {"jpeg": 65_535, "webp": 16_383, "avif": 65_535, "png": 2**31 - 1}
_WITHOUT_ALPHA = ("jpeg",)
_RLE, _DEFAULT = 3, 0  # zlib strategies
_AVERAGE, _ADAPTIVE = 0x40, None  # PNG filters


@dataclass(frozen=True)
class Options:
    """How files are written; see the README's `encode.*` keys. depth: keep, or at most 8 or 16 bits."""

    depth: Depth = "keep"
    png_level: int = 1
    tiff_compression: str = "deflate"
    jpeg_quality: int = 95
    webp_quality: int = 90
    avif_quality: int = 90


def encode(picture: Picture, format: str, options: Options) -> bytes:
    """A file of `picture`. Raises `ItemError` unsupported-mode where the format cannot hold it."""
    height, width = picture.pixels_hwc.shape[:2]
    refuse_unwritable(picture, format, options.depth, width, height)
    dtype = _written_dtype(picture, options.depth)
    alpha = picture.alpha_hw
    picture = replace(
        picture,
        pixels_hwc=of_depth(picture.pixels_hwc, dtype),
        alpha_hw=None if alpha is None else of_depth(alpha, dtype),
        exif=exif.upright(picture.exif, width, height) if picture.exif else None,
    )
    if format == "png":
        return _png(picture, options.png_level)
    if format == "tiff":
        return _tiff(picture, options.tiff_compression)
    return _lossy(picture, format, options)


def refuse_unwritable(picture: Picture, format: str, depth: Depth, width: int, height: int) -> None:
    """Raise where a result like `picture`, of this size, cannot be a file of `format` without loss."""
    if format not in EXTENSIONS:
        raise ValueError(f"format must be one of {', '.join(EXTENSIONS)}, not {format!r}")
    dtype = _written_dtype(picture, depth)
    if dtype.name not in _DTYPES[format].split():
        kind = "floats" if dtype.kind == "f" else f"{8 * dtype.itemsize} bits a sample"
        mend = "set encode.format to tiff or png" if dtype == np.uint16 else "set encode.format to tiff"
        raise ItemError("unsupported-mode", f"{format} cannot hold {kind}; {mend}, or encode.depth to 8")
    if picture.alpha_hw is not None and format in _WITHOUT_ALPHA:
        raise ItemError("unsupported-mode", f"{format} cannot hold transparency; set encode.format to png or tiff")
    if max(width, height) > (most := _LARGEST_SIDE.get(format, 2**32 - 1)):
        raise ItemError("over-limit", f"{width} x {height} pixels: a {format} has at most {most} a side; use tiff")


def _written_dtype(picture: Picture, depth: Depth) -> np.dtype[Any]:
    dtype: np.dtype[Any] = picture.pixels_hwc.dtype
    if depth == "keep" or dtype.itemsize * 8 <= depth:
        return dtype
    return np.dtype(np.uint8 if depth == 8 else np.uint16)


def interleaved(picture: Picture) -> npt.NDArray[Any]:
    """(h, w, 1 to 4), alpha last."""
    parts: list[npt.NDArray[Any]] = [picture.pixels_hwc]
    if picture.alpha_hw is not None:
        parts.append(picture.alpha_hw[:, :, None])
    return np.ascontiguousarray(np.concatenate(parts, axis=2) if len(parts) > 1 else parts[0])


def _png(picture: Picture, level: int) -> bytes:
    """Level 1 uses run-length matching and one filter: faster than zlib's own 1, and smaller on photographs."""
    samples = interleaved(picture)
    fast = level == 1
    encoded = imagecodecs.png_encode(
        samples[:, :, 0] if samples.shape[2] == 1 else samples,
        level,
        strategy=_RLE if fast else _DEFAULT,
        filter=_AVERAGE if fast else _ADAPTIVE,
    )
    return png_chunks.with_metadata(encoded, icc=picture.icc, exif=picture.exif, xmp=picture.xmp, dpi=picture.dpi)


def _tiff(picture: Picture, compression: str) -> bytes:
    if compression not in COMPRESSIONS:
        raise ValueError(f"tiff_compression must be one of {', '.join(COMPRESSIONS)}, not {compression!r}")
    samples = interleaved(picture)
    carried: dict[str, Any] = {"icc": picture.icc, "xmp": picture.xmp, "dpi": picture.dpi}
    tags = exif.descriptive_tags(picture.exif) if picture.exif else {}
    return tiff_bytes(samples, compression=compression, tags=tags, **carried)


def _lossy(picture: Picture, format: str, options: Options) -> bytes:
    samples, file = interleaved(picture), BytesIO()
    quality = {"jpeg": options.jpeg_quality, "webp": options.webp_quality, "avif": options.avif_quality}[format]
    ways: dict[str, dict[str, Any]] = {
        "jpeg": {"subsampling": 0, "dpi": picture.dpi},
        "webp": {"lossless": quality == 100, "method": 2, "exact": True},
        "avif": {"subsampling": "4:4:4", "speed": 8},
    }
    block = exif.with_resolution(picture.exif, None if format == "jpeg" else picture.dpi)
    if block and format == "jpeg":
        block = exif.PREFIX + block
    known: dict[str, Any] = {"icc_profile": picture.icc, "exif": block, "xmp": picture.xmp, **ways[format]}
    image = Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)
    try:
        image.save(file, format.upper(), quality=quality, **{name: value for name, value in known.items() if value})
    except ValueError as error:
        raise ItemError("unsupported-mode", f"no {format} can be written: {error}; set encode.format to tiff") from None
    return file.getvalue()
