"""One image of a file before its pixels are decoded: size, samples, metadata, and how to load it.

Pillow reads headers, metadata and what has 8 bits; `pipeline.data.deep` the pixels of the rest.
Knows bytes only.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pipeline.data import boxes, colour, deep, exif, headers, png_chunks
from pipeline.data.colour import Stored
from pipeline.data.tiff_layout import Layout, directory_at, tiff_layout
from pipeline.errors import ItemError

_OPENERS: dict[str, Callable[[BytesIO], ImageFile.ImageFile]] = {
    "png": PngImageFile,
    "jpeg": jpeg_factory,
    "tiff": TiffImageFile,
    "webp": WebPImageFile,
    "bmp": BmpImageFile,
    "avif": AvifImageFile,
}
_GRAY = ("1", "L", "LA", "La")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa")
_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _XMP = 0x0112, 282, 283, 296, 700
_PER_INCH = {2: 1.0, 3: 2.54}  # resolution units: inches, centimetres


@dataclass(frozen=True)
class Page:
    """One image before its pixels are decoded.

    width, height: as stored. turn: the EXIF orientation that `load` leaves to be applied.
    """

    width: int
    height: int
    mode: str
    bits: int
    load: Callable[[], Stored]
    orientation: int = 1
    turn: int = 1
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


def opened(data: bytes, format: str, page: int, max_pixels: int | None) -> Page:
    """The page, its size within the limit and its samples of a kind that can be kept."""
    if format == "webp" and (size := headers.webp_size(data)):
        refuse_large(*size, max_pixels)
    if format == "jp2":
        return _jp2(data, page, max_pixels)
    if format == "tiff" and (layout := tiff_layout(data, page)) is not None and not layout.plain:
        refuse_large(layout.width, layout.height, max_pixels)
        return tiff_page(BytesIO(data), len(data), page, layout, lambda: deep.tiff(data, page, layout))
    bits = headers.bits_per_sample(data, format, page)
    if bits > 8:
        return _DEEP[format](data, page, max_pixels)
    return _plain(data, format, page, bits, max_pixels)


def _plain(data: bytes, format: str, page: int, bits: int, max_pixels: int | None) -> Page:
    """What Pillow decodes without loss."""
    image = _OPENERS[format](BytesIO(data))
    if format != "tiff":  # frames share a canvas, and finding one may mean decoding those before
        refuse_large(*image.size, max_pixels)
    _turn_to_page(image, page)
    refuse_large(*image.size, max_pixels)
    if image.mode not in (*_GRAY, *_COLOUR, "CMYK"):
        raise ItemError("unsupported-mode", f"the {format} is of mode {image.mode}, not gray, RGB, palette or CMYK")
    if format != "png":
        found = _page_of(image, bits, lambda: _samples(image, bits))
        return replace(found, turn=1) if format == "tiff" else found  # Pillow turns TIFFs while loading
    found = _page_of(_png_facts(data), bits, lambda: _samples(image, bits))
    return replace(found, width=image.width, height=image.height, mode=image.mode)


def _png_facts(data: bytes) -> PngImageFile:
    """The metadata of a sound PNG, which Pillow would decode all pixels for."""
    if damage := png_chunks.damage(data):
        raise ItemError("corrupt-image", f"the png is damaged: {damage}")
    return PngImageFile(BytesIO(png_chunks.without_pixels(data)))


def _deep_png(data: bytes, page: int, max_pixels: int | None) -> Page:
    width, height = struct.unpack_from(">II", data, 16)
    refuse_large(width, height, max_pixels)
    _refuse_page(page, 1)
    mode = {0: "L", 2: "RGB", 4: "LA", 6: "RGBA"}.get(data[25], "?")
    found = _page_of(_png_facts(data), png_chunks.bits(data), partial(deep.png, data))
    return replace(found, width=width, height=height, mode=mode)


def _deep_jpeg(data: bytes, page: int, max_pixels: int | None) -> Page:
    """Pillow is shown a JPEG of 8 bits and never asked for its pixels."""
    place, bits, components = headers.jpeg_frame(data)
    image = jpeg_factory(BytesIO(data[:place] + b"\x08" + data[place + 1 :]))
    refuse_large(*image.size, max_pixels)
    _refuse_page(page, 1)
    return _page_of(image, bits, partial(deep.jpeg, data, bits, components))


def _deep_avif(data: bytes, page: int, max_pixels: int | None) -> Page:
    image, bits = AvifImageFile(BytesIO(data)), boxes.avif_bits(data)
    refuse_large(*image.size, max_pixels)
    _refuse_page(page, getattr(image, "n_frames", 1))
    return _page_of(image, bits, partial(deep.avif, data, bits, page))


_DEEP: dict[str, Callable[[bytes, int, int | None], Page]] = {
    "png": _deep_png,
    "jpeg": _deep_jpeg,
    "avif": _deep_avif,
}


def _page_of(image: ImageFile.ImageFile, bits: int, load: Callable[[], Stored]) -> Page:
    tags = image.getexif()
    orientation = _orientation(tags.get(_ORIENTATION, 1))
    return Page(
        *image.size,
        image.mode,
        bits,
        load,
        orientation,
        turn=orientation,
        icc=image.info.get("icc_profile") or None,
        exif=image.info.get("exif") or exif.block_of(tags),
        xmp=image.info.get("xmp") or None,
        dpi=_dpi(image) or _dpi_of_tags(tags),
    )


def _jp2(data: bytes, page: int, max_pixels: int | None) -> Page:
    facts = boxes.j2k_facts(data)
    if facts.width < 1 or facts.height < 1:
        raise ItemError("corrupt-image", "the jp2 is damaged: its size is zero")
    _refuse_page(page, 1)
    refuse_large(facts.width, facts.height, max_pixels)
    colours = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}.get(len(facts.bits), "?")
    mode = "CMYK" if facts.cmyk else colours
    kept = {"icc": facts.icc, "exif": facts.exif, "xmp": facts.xmp, "dpi": facts.dpi}
    return Page(facts.width, facts.height, mode, max(facts.bits), lambda: deep.jp2(data, facts), **kept)  # type: ignore[arg-type]


def tiff_page(stream: BinaryIO, length: int, page: int, layout: Layout, load: Callable[[], Stored]) -> Page:
    """A page of an open TIFF with its metadata; `load` gives its samples."""
    stream.seek(0)
    found = directory_at(stream, length, page)
    assert found is not None
    tags = Image.Exif()
    stream.seek(0)
    tags.head = stream.read(16)
    tags.load_from_fp(stream, found[0])
    return Page(
        layout.width,
        layout.height,
        layout.mode,
        layout.bits,
        load,
        layout.orientation,
        turn=layout.orientation,
        icc=layout.icc,
        exif=exif.block_of(tags),
        xmp=_as_bytes(layout.tags.get(_XMP)),
        dpi=_dpi_of_tags(layout.tags),
    )


def refuse_large(width: int, height: int, max_pixels: int | None) -> None:
    """Raise `ItemError` over-limit beyond `max_pixels`."""
    if max_pixels is not None and width * height > max_pixels:
        message = f"the image has {width} x {height} pixels; `limits.lr_pixels` allows {max_pixels}"
        raise ItemError("over-limit", message)


def _turn_to_page(image: ImageFile.ImageFile, page: int) -> None:
    _refuse_page(page, getattr(image, "n_frames", 1) if page else 1)
    image.seek(page)


def _refuse_page(page: int, count: int) -> None:
    if not 0 <= page < count:
        raise ItemError("bad-page", f"there is no page {page}; the file has {count}, counted from 0")


def _orientation(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _samples(image: ImageFile.ImageFile, bits: int) -> Stored:
    """Colour (h, w, 1 or 3) and alpha (h, w) as stored, before any turning."""
    image.load()
    if image.mode == "CMYK":
        return colour.from_cmyk(Stored(np.asarray(image)), image.info.get("icc_profile"), "JPEG")
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int):
        image.info["transparency"] = key * 255 // (2**bits - 1)  # Pillow has widened the pixels, not the key
    transparent = key is not None or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    colours = "L" if image.mode in _GRAY else "RGB"
    wanted = colours + "A" if transparent else colours
    samples = np.asarray(image if image.mode == wanted else image.convert(wanted))
    samples = samples.reshape(image.height, image.width, -1)
    if not transparent:
        return Stored(samples)
    return Stored(samples[:, :, :-1], samples[:, :, -1])


def _as_bytes(value: object) -> bytes | None:
    if isinstance(value, tuple):
        return bytes(value)
    return value if isinstance(value, bytes) and value else None


def _dpi(image: ImageFile.ImageFile) -> tuple[float, float] | None:
    given = image.info.get("dpi")
    if given is None or (isinstance(image, TiffImageFile) and _X_RESOLUTION not in image.tag_v2):
        return None
    return float(given[0]), float(given[1])


def _dpi_of_tags(tags: Mapping[int, Any]) -> tuple[float, float] | None:
    x, y = tags.get(_X_RESOLUTION), tags.get(_Y_RESOLUTION)
    factor = _PER_INCH.get(tags.get(_RESOLUTION_UNIT, 2))
    return None if x is None or y is None or factor is None else (float(x) * factor, float(y) * factor)
