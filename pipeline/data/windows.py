"""Images of any size on local scratch: read region by region, and written row of tiles by row of tiles.

A TIFF is read tile by tile or strip by strip; what has no such parts is decoded once and kept on
disk. Memory is bounded by `_CACHE_BYTES`, one tile or strip, and the rows that wait for a tile row.
Regions are upright, and gray or RGB, as `pipeline.data.images.decode` gives them for whole images.

Knows local files only: no storage.
"""

import shutil
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import tifffile

from pipeline.data import headers, images
from pipeline.data.colour import Stored
from pipeline.data.images import metadata_of
from pipeline.data.pages import refuse_large, tiff_page
from pipeline.data.pillow import own_rules
from pipeline.data.tiff import TILE, TiffWriter
from pipeline.data.tiff_layout import Layout, interpret, layout_in
from pipeline.data.turns import stored_region, turned
from pipeline.errors import ItemError
from pipeline.physics.resample import fill_transparent, upscale_bicubic
from pipeline.records import Picture, white

Samples = npt.NDArray[Any]

DECODED_PIXELS = 2**28  # of an image that has to be decoded whole
_CACHE_BYTES = 2**28  # of decoded tiles or strips, which neighbouring windows share
_LARGEST_SEGMENT = 2**27  # bytes of a decoded strip; a TIFF of larger ones is decoded whole
_JPEG = 7
_CONTEXT = 3  # LR pixels around a region that bicubic interpolation looks at


class WindowSource(ABC):
    """An upright image read in regions. shape: (h, w) gray or (h, w, 3); dtype: of its samples.

    picture: metadata and facts, without pixels. alpha: whether it has some.
    """

    def __init__(self, picture: Picture, height: int, width: int, orientation: int) -> None:
        self.picture, self._orientation = picture, orientation
        self._stored_shape = (width, height) if orientation > 4 else (height, width)
        first = self._stored(0, 1, 0, 1)
        self.dtype: np.dtype[Any] = first.colours.dtype
        self.shape: tuple[int, ...] = (height, width) if first.colours.shape[2] == 1 else (height, width, 3)
        self.has_alpha = first.alpha is not None
        self.converted = first.converted
        self.icc = first.icc or picture.icc

    def read(self, y0: int, y1: int, x0: int, x1: int) -> Samples:
        """Pixels [y0, y1) × [x0, x1): (rows, columns[, 3]); hidden ones have the colours around them."""
        colours, alpha = self._upright(y0, y1, x0, x1)
        if alpha is not None:
            colours = fill_transparent(colours, alpha)
        return colours if len(self.shape) == 3 else colours[:, :, 0]

    def enlarged_alpha(self, y: int, x: int, height: int, width: int, scale: int, phase: str) -> Samples | None:
        """Alpha of a region of the result, (height, width), resampled on the grid of `phase`."""
        if not self.has_alpha:
            return None
        y0, x0 = max(0, y // scale - _CONTEXT), max(0, x // scale - _CONTEXT)
        y1, x1 = (-(-end // scale) + _CONTEXT for end in (y + height, x + width))
        _, alpha = self._upright(y0, min(y1, self.shape[0]), x0, min(x1, self.shape[1]))
        assert alpha is not None
        larger = np.clip(upscale_bicubic(alpha, scale, phase), 0, white(self.dtype))
        larger = larger if self.dtype.kind == "f" else np.rint(larger)
        top, left = y - y0 * scale, x - x0 * scale
        return larger[top : top + height, left : left + width].astype(self.dtype)

    def _upright(self, y0: int, y1: int, x0: int, x1: int) -> tuple[Samples, Samples | None]:
        stored = self._stored(*stored_region((y0, y1, x0, x1), self._orientation, *self._stored_shape))
        alpha = None if stored.alpha is None else turned(stored.alpha, self._orientation)
        return turned(stored.colours, self._orientation), alpha

    @abstractmethod
    def _stored(self, y0: int, y1: int, x0: int, x1: int) -> Stored:
        """Pixels [y0, y1) × [x0, x1) as the file has them, before its orientation is applied."""


class PartSource(WindowSource):
    """A region of another source as if it were the image: `height` × `width` pixels from (y, x) on."""

    def __init__(self, whole: WindowSource, y: int, x: int, height: int, width: int) -> None:
        self._whole, self._y, self._x = whole, y, x
        super().__init__(whole.picture, height, width, 1)
        self.converted, self.icc = whole.converted, whole.icc

    def _stored(self, y0: int, y1: int, x0: int, x1: int) -> Stored:
        return Stored(*self._whole._upright(y0 + self._y, y1 + self._y, x0 + self._x, x1 + self._x))


class _ArraySource(WindowSource):
    """A decoded image, on disk."""

    def __init__(self, picture: Picture, folder: Path) -> None:
        self._colours = _on_disk(picture.pixels_hwc, folder / "colours")
        self._alpha = None if picture.alpha_hw is None else _on_disk(picture.alpha_hw, folder / "alpha")
        self._converted = picture.converted
        height, width, channels = picture.pixels_hwc.shape
        bare = replace(picture, pixels_hwc=np.empty((0, 0, channels), self._colours.dtype), alpha_hw=None)
        super().__init__(bare, height, width, 1)

    def _stored(self, y0: int, y1: int, x0: int, x1: int) -> Stored:
        alpha = None if self._alpha is None else np.asarray(self._alpha[y0:y1, x0:x1])
        return Stored(np.asarray(self._colours[y0:y1, x0:x1]), alpha, converted=self._converted)


class _TiffSource(WindowSource):
    """A page of a TIFF file, by its tiles or strips."""

    def __init__(self, page: tifffile.TiffPage, layout: Layout, picture: Picture, height: int, width: int) -> None:
        self._page, self._layout = page, layout
        self._rows, self._columns = _segment_shape(page)
        self._across, self._down = -(-page.imagewidth // self._columns), -(-page.imagelength // self._rows)
        self._separate = page.planarconfig == 2 and page.samplesperpixel > 1
        self._cache: OrderedDict[int, Samples] = OrderedDict()
        self._cached_bytes = 0
        super().__init__(picture, height, width, layout.orientation)

    def _stored(self, y0: int, y1: int, x0: int, x1: int) -> Stored:
        planes = self._page.samplesperpixel if self._separate else 1
        raw = np.zeros((y1 - y0, x1 - x0, self._page.samplesperpixel), self._page.dtype)
        for row in range(y0 // self._rows, -(-y1 // self._rows)):
            for column in range(x0 // self._columns, -(-x1 // self._columns)):
                top, left = row * self._rows, column * self._columns
                for plane in range(planes):
                    segment = self._segment((plane * self._down + row) * self._across + column)
                    above, before = max(y0, top), max(x0, left)
                    part = segment[above - top : y1 - top, before - left : x1 - left]
                    place = raw[above - y0 :, before - x0 :][: part.shape[0], : part.shape[1]]
                    place[:, :, plane : plane + part.shape[2]] = part
        return interpret(raw, self._layout)

    def _segment(self, index: int) -> Samples:
        """(rows, columns, c) of one tile or strip, from the cache where it is in there."""
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        segment = self._decoded(index)
        self._cache[index] = segment
        self._cached_bytes += segment.nbytes
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return segment

    def _decoded(self, index: int) -> Samples:
        page, file = self._page, self._page.parent.filehandle
        file.seek(page.dataoffsets[index])
        data = file.read(page.databytecounts[index])
        if len(data) != page.databytecounts[index]:
            raise ItemError("corrupt-image", "the tiff is damaged: the file is cut short")
        try:
            decoded = page.decode(data, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)[0]
        except Exception as error:  # the codecs have no common base
            raise ItemError("corrupt-image", f"the tiff is damaged: {error}") from None
        if decoded is None:
            raise ItemError("corrupt-image", f"the tiff is damaged: tile or strip {index} is empty")
        return decoded.reshape(decoded.shape[-3:])


@contextmanager
def open_windows(path: Path, folder: Path, *, page: int = 0, max_pixels: int) -> Iterator[WindowSource]:
    """The image in a local file. folder: where it may leave decoded pixels.

    max_pixels: of a TIFF that is read in parts; else the smaller of this and `DECODED_PIXELS`.
    Raises `ItemError` as `images.decode` does.
    """
    with path.open("rb") as file:
        is_tiff = headers.format_of(file.read(32)) == "tiff"
        layout = _layout(file, path.stat().st_size, page) if is_tiff else None
        if layout is not None:
            with tifffile.TiffFile(path) as tiff:
                found = tiff.pages[page]
                assert isinstance(found, tifffile.TiffPage)
                if _in_parts(found, layout):
                    refuse_large(layout.width, layout.height, max_pixels)
                    yield _tiff_source(file, path.stat().st_size, page, found, layout)
                    return
    yield _decoded(path, folder, page, min(max_pixels, DECODED_PIXELS))


def middle(source: WindowSource, most_pixels: int) -> PartSource:
    """Its middle, as square as it can be; at least a pixel."""
    height = min(source.shape[0], max(1, isqrt(most_pixels)))
    width = min(source.shape[1], max(1, most_pixels // height))
    return PartSource(source, (source.shape[0] - height) // 2, (source.shape[1] - width) // 2, height, width)


def _decoded(path: Path, folder: Path, page: int, max_pixels: int) -> WindowSource:
    """The image decoded once; its pixels are in memory only as long as this takes."""
    return _ArraySource(images.decode(path.read_bytes(), page=page, max_pixels=max_pixels), folder)


def _layout(file: BinaryIO, length: int, page: int) -> Layout | None:
    file.seek(0)
    with own_rules():
        try:
            return layout_in(file, length, page)
        except ItemError:
            raise
        except Exception as error:
            raise ItemError("corrupt-image", f"the tiff is damaged: {error}") from None


def _tiff_source(file: BinaryIO, length: int, page: int, found: tifffile.TiffPage, layout: Layout) -> WindowSource:
    with own_rules():
        facts = tiff_page(file, length, page, layout, lambda: Stored(np.empty(0)))
        height, width = (layout.width, layout.height) if layout.orientation > 4 else (layout.height, layout.width)
        known = metadata_of(facts, layout.icc, width, height)
    nothing = np.empty((0, 0, 1), np.uint8)
    picture = Picture(nothing, mode=layout.mode, format="tiff", bits=layout.bits, **known)
    return _TiffSource(found, layout, picture, height, width)


def _segment_shape(page: tifffile.TiffPage) -> tuple[int, int]:
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


def _in_parts(page: tifffile.TiffPage, layout: Layout) -> bool:
    """Whether tiles or strips are small enough, and tifffile gives their colours as they are."""
    rows, columns = _segment_shape(page)
    size = rows * columns * page.samplesperpixel * max(1, layout.bits // 8)
    known = page.photometric != 6 or page.compression == _JPEG  # plain YCbCr is libtiff's to convert
    return size <= _LARGEST_SEGMENT and known and layout.bits >= 8


def _on_disk(samples: Samples, path: Path) -> Samples:
    free = shutil.disk_usage(path.parent).free
    if samples.nbytes > free:  # a write through the map would end the process
        where = f"{samples.nbytes / 1e9:.1f} GB, {path.parent} has {free / 1e9:.1f} GB free"
        raise ItemError("out-of-scratch", f"the decoded image needs {where}; set `restore.scratch` to a larger disk")
    kept = np.memmap(path, samples.dtype, "w+", shape=samples.shape)
    kept[...] = samples
    kept.flush()
    return kept


class TiledRows:
    """Pieces of an image in reading order -> the tiles of a `TiffWriter`, as soon as a row of them is full."""

    def __init__(self, writer: TiffWriter, height: int, width: int) -> None:
        self._writer, self._height, self._width = writer, height, width
        self._top = 0  # row of the image that the first pending one is
        self._pending: Samples | None = None

    def add(self, y: int, x: int, piece: Samples) -> None:
        """(rows, columns, c) at (y, x): from left to right, then the next rows below."""
        rows, columns, channels = piece.shape
        if self._pending is None:
            self._pending = np.empty((0, self._width, channels), piece.dtype)
        if (missing := y + rows - self._top - len(self._pending)) > 0:
            below = np.empty((missing, self._width, channels), piece.dtype)
            self._pending = np.concatenate([self._pending, below])
        self._pending[y - self._top : y - self._top + rows, x : x + columns] = piece
        if x + columns == self._width:
            self._write_full_rows(self._pending, y + rows)

    def _write_full_rows(self, pending: Samples, done: int) -> None:
        height, width = self._writer.tile_height, self._writer.tile_width
        while done - self._top >= height or self._top < done == self._height:
            band, pending = pending[:height], pending[height:]
            for left in range(0, self._width, width):
                self._writer.append(band[:, left : left + width])
            self._top += len(band)
        self._pending = pending.copy()


def scratch_bytes(source: WindowSource, scale: int) -> int:
    """Room that the result may take, were it not compressed at all."""
    height, width = source.shape[:2]
    channels = (source.shape[2] if len(source.shape) == 3 else 1) + source.has_alpha
    padded = (-(-height * scale // TILE) * TILE) * (-(-width * scale // TILE) * TILE)
    return int(padded * channels * source.dtype.itemsize * 1.01) + 2**20
