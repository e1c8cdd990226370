"""TIFF files, written: tiles in reading order, then one directory with all the metadata.

Tile by tile, so a file may be far larger than memory; BigTIFF beyond 4 GB. Pillow writes the
directory, since it knows the types of EXIF's tags. Knows no Picture: arrays, tags and bytes.
"""

import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

Samples = npt.NDArray[Any]

TILE = 512  # pixels; smaller images have one smaller tile
_CODES = {"deflate": 8, "zstd": 50000, "lzw": 5, "none": 1}
COMPRESSIONS = tuple(_CODES)
_ENCODERS: dict[str, Callable[[bytes], bytes | bytearray]] = {
    "deflate": lambda tile: imagecodecs.deflate_encode(tile, 1),  # libdeflate, in zlib's wrapping
    "zstd": lambda tile: imagecodecs.zstd_encode(tile, 1),
    "lzw": imagecodecs.lzw_encode,
    "none": lambda tile: tile,
}
_LARGEST_CLASSIC = 2**32 - 2**26  # offsets of a classic TIFF have 32 bits; leave room for the metadata

# tags
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR = 256, 257, 258, 259, 262, 277, 284
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _OFFSETS, _SIZES = 317, 322, 323, 324, 325
_EXTRA, _FORMAT, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _XMP, _ICC = 338, 339, 282, 283, 296, 700, 34675
_DIFFERENCES, _FLOAT_DIFFERENCES = 2, 3
_UINT, _FLOAT = 1, 3
_UNASSOCIATED = 2

# What Pillow raises for values that EXIF in the wild holds and no TIFF can.
_UNWRITABLE = (
    OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, RuntimeError,
    struct.error,
)  # fmt: skip


class TiffWriter:
    """One image into a file that is open for writing, tile by tile from the upper left, row by row.

    shape: (h, w, c) with c 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha. dtype: uint8, uint16
    or float32. compression: one of `COMPRESSIONS`. Then, once, `finish`.
    """

    def __init__(
        self,
        file: BinaryIO,
        shape: tuple[int, int, int],
        dtype: npt.DTypeLike,
        compression: str,
        big: bool | None = None,
    ) -> None:
        self._file, self._shape, self._dtype, self._compression = file, shape, np.dtype(dtype), compression
        height, width, channels = shape
        self.tile_height, self.tile_width = (min(TILE, -(-side // 16) * 16) for side in (height, width))
        bytes_at_most = height * width * channels * self._dtype.itemsize * 1.01
        self._big = bytes_at_most > _LARGEST_CLASSIC if big is None else big
        self._offsets: list[int] = []
        self._sizes: list[int] = []
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if self._big else struct.pack("<2sHI", b"II", 42, 0))

    def append(self, tile: Samples) -> None:
        """The next tile: (h, w, c), cut at the image's right and lower edge."""
        missing = ((0, self.tile_height - tile.shape[0]), (0, self.tile_width - tile.shape[1]), (0, 0))
        whole = np.pad(tile, missing, mode="edge") if any(map(any, missing)) else np.ascontiguousarray(tile)
        encoded = _ENCODERS[self._compression](self._differences(whole).tobytes())
        self._offsets.append(self._file.tell())
        self._sizes.append(len(encoded))
        self._file.write(encoded)

    def finish(
        self,
        *,
        icc: bytes | None = None,
        xmp: bytes | None = None,
        dpi: tuple[float, float] | None = None,
        tags: dict[int, Any] | None = None,
    ) -> None:
        """Write the directory. tags: further ones, a sub-directory as a dict; unwritable ones are left out."""
        directory = ImageFileDirectory_v2(b"II+\0" + bytes(12) if self._big else b"II*\0" + bytes(4))
        for tag, value in _writable(tags or {}).items():
            directory[tag] = value
        self._describe(directory)
        if dpi:
            directory[_X_RESOLUTION], directory[_Y_RESOLUTION], directory[_RESOLUTION_UNIT] = *dpi, 2
        for tag, block in ((_ICC, icc), (_XMP, xmp)):
            if block:
                directory[tag] = block
        self._file.write(bytes(self._file.tell() % 2))  # a directory begins on a word
        place = self._file.tell()
        directory.save(self._file)
        self._file.seek(8 if self._big else 4)
        self._file.write(struct.pack("<Q" if self._big else "<I", place))

    def _differences(self, tile: Samples) -> Samples:
        """Each sample less its left neighbour, which compresses better; floats by their bytes."""
        if self._compression == "none":
            return tile
        encode = imagecodecs.floatpred_encode if self._dtype.kind == "f" else imagecodecs.delta_encode
        return np.asarray(encode(tile, axis=-2))

    def _describe(self, directory: ImageFileDirectory_v2) -> None:
        height, width, channels = self._shape
        floats = self._dtype.kind == "f"
        directory[_WIDTH], directory[_HEIGHT] = width, height
        directory[_BITS], directory[_SAMPLES] = (8 * self._dtype.itemsize,) * channels, channels
        directory[_FORMAT] = (_FLOAT if floats else _UINT,) * channels
        directory[_PHOTOMETRIC] = 2 if channels > 2 else 1
        directory[_COMPRESSION], directory[_PLANAR] = _CODES[self._compression], 1
        if channels in (2, 4):
            directory[_EXTRA] = _UNASSOCIATED
        if self._compression != "none":
            directory[_PREDICTOR] = _FLOAT_DIFFERENCES if floats else _DIFFERENCES
        directory[_TILE_WIDTH], directory[_TILE_HEIGHT] = self.tile_width, self.tile_height
        for tag, values in ((_OFFSETS, self._offsets), (_SIZES, self._sizes)):
            directory.tagtype[tag] = TiffTags.LONG8 if self._big else TiffTags.LONG
            directory[tag] = tuple(values)


def tiff_bytes(samples: Samples, *, compression: str, **metadata: Any) -> bytes:
    """A TIFF file of `samples` (h, w, c); the rest as `TiffWriter` takes it."""
    file = BytesIO()
    height, width, channels = samples.shape
    writer = TiffWriter(file, (height, width, channels), samples.dtype, compression)
    for y in range(0, height, writer.tile_height):
        for x in range(0, width, writer.tile_width):
            writer.append(samples[y : y + writer.tile_height, x : x + writer.tile_width])
    writer.finish(**metadata)
    return file.getvalue()


def _writable(tags: dict[int, Any], group: int | None = None) -> dict[int, Any]:
    """The tags whose values a TIFF can hold."""
    found = {}
    for tag, value in tags.items():
        if isinstance(value, dict):
            found[tag] = _writable(value, tag)
            continue
        try:
            alone = ImageFileDirectory_v2(group=group)
            alone[tag] = value
            alone.tobytes()
        except _UNWRITABLE:
            continue
        found[tag] = value
    return found
