"""What a TIFF page says of its samples, and from stored samples to colours and alpha.

    refused    signed and complex numbers, 32-bit integers, floats of 16 or 64 bits, masks, raw
               sensors, channels that are neither colour nor alpha
    converted  CMYK by the embedded profile, Lab; see `pipeline.data.colour`
    kept       everything else

Works on whole pages and on windows of them alike: every step is pointwise. Knows no storage.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pipeline.data import colour
from pipeline.data.colour import Stored
from pipeline.errors import ItemError

_BIG_ENDIAN_BIGTIFF = b"MM\0+"

# TIFF tags
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES = 256, 257, 258, 262, 274, 277
_STRIPS, _TILES, _COLOR_MAP, _INK_SET, _EXTRA, _SAMPLE_FORMAT, _ICC = 273, 324, 320, 332, 338, 339, 34675
_UINT, _FLOAT = 1, 3
_COMPRESSION, _BY_PILLOW = 259, (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 50000)  # what its libtiff is built with
_CMYK_INKS, _YCBCR = 1, 6
_REFUSED = {4: "a mask", 32803: "raw sensor data", 34892: "linear raw sensor data"}
_COLOURS = {0: "gray", 1: "gray", 2: "rgb", 3: "palette", 5: "cmyk", 6: "rgb", 8: "lab", 9: "icc lab", 10: "lab"}
_CHANNELS = {"gray": 1, "rgb": 3, "palette": 1, "cmyk": 4, "lab": 3, "icc lab": 3}
_MODES = {"gray": "L", "rgb": "RGB", "palette": "P", "cmyk": "CMYK", "lab": "LAB", "icc lab": "LAB"}
_ALPHA = {1: "associated", 2: "unassociated"}


@dataclass(frozen=True)
class Layout:
    """One page: stored size before any turning, samples, colours; the tags as they stand."""

    width: int
    height: int
    bits: int
    floats: bool
    colours: str
    white_is_zero: bool
    alpha: str | None
    orientation: int
    icc: bytes | None
    colour_map: tuple[int, ...] | None
    tags: dict[int, Any]

    @property
    def plain(self) -> bool:
        """True where Pillow decodes every bit."""
        exact = self.bits <= 8 and not self.floats and self.alpha != "associated"
        exact = exact and self.tags.get(_COMPRESSION, 1) in _BY_PILLOW
        return exact and self.colours in ("gray", "rgb", "palette")

    @property
    def mode(self) -> str:
        return _MODES[self.colours] + ("A" if self.alpha else "")


def tiff_layout(data: bytes, page: int) -> Layout | None:
    """The layout of a page, None where there is no such page. Raises `ItemError` unsupported-mode."""
    return layout_in(BytesIO(data), len(data), page)


def layout_in(stream: BinaryIO, length: int, page: int) -> Layout | None:
    """`tiff_layout` of an open file of `length` bytes."""
    found = directory_at(stream, length, page)
    return None if found is None else _layout(dict(found[1]))


def directory_at(stream: BinaryIO, length: int, page: int) -> tuple[int, ImageFileDirectory_v2] | None:
    """Where a page's directory lies, and its tags."""
    head = stream.read(16)
    if head.startswith(_BIG_ENDIAN_BIGTIFF):
        raise ItemError("unsupported-mode", "a big-endian BigTIFF cannot be read; rewrite it little-endian")
    directory = ImageFileDirectory_v2(head[: 16 if head[2:3] == b"+" else 8])
    if page < 0:
        return None
    seen, place = set[int](), 0
    for _ in range(page + 1):
        place = directory.next
        if not 0 < place < length or place in seen:
            return None
        seen.add(place)
        stream.seek(place)
        directory.load(stream)
    return place, directory


def _layout(tags: dict[int, Any]) -> Layout:
    if not tags.get(_WIDTH) or not tags.get(_HEIGHT) or not (_STRIPS in tags or _TILES in tags):
        raise ItemError("corrupt-image", "the tiff is damaged: its directory has no size or no pixels")
    bits, formats = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (_UINT,))
    photometric = tags.get(_PHOTOMETRIC, 0)
    if photometric not in _COLOURS:
        name = _REFUSED.get(photometric, f"photometric {photometric}")
        raise ItemError("unsupported-mode", f"the TIFF is {name}, not gray, RGB, palette, CMYK or Lab")
    colours = _COLOURS[photometric]
    if photometric == _YCBCR and max(bits) > 8:
        raise ItemError("unsupported-mode", "the TIFF is YCbCr above 8 bits; convert it to RGB")
    floats = _checked_samples(bits, formats)
    if floats and (colours not in ("gray", "rgb") or photometric == 0):
        raise ItemError("unsupported-mode", f"the TIFF has {_MODES[colours]} floats; only gray and RGB may be floats")
    if colours == "cmyk" and tags.get(_INK_SET, _CMYK_INKS) != _CMYK_INKS:
        raise ItemError("unsupported-mode", "the TIFF has inks other than cyan, magenta, yellow and black")
    return Layout(
        width=int(tags.get(_WIDTH, 0)),
        height=int(tags.get(_HEIGHT, 0)),
        bits=int(max(bits)),
        floats=floats,
        colours=colours,
        white_is_zero=photometric == 0,
        alpha=_alpha(tags, _CHANNELS[colours], len(bits)),
        orientation=_orientation(tags),
        icc=tags.get(_ICC) or None,
        colour_map=tags.get(_COLOR_MAP),
        tags=tags,
    )


def interpret(raw_hwc: npt.NDArray[Any], layout: Layout) -> Stored:
    """Colours and alpha of stored samples (h, w, c): what is not gray or RGB is made so.

    Raises `ItemError` unsupported-mode.
    """
    colours = raw_hwc.astype(np.uint8) if raw_hwc.dtype == bool else raw_hwc
    alpha = None
    if layout.alpha:
        place = _CHANNELS[layout.colours]
        colours, alpha = raw_hwc[:, :, :place], raw_hwc[:, :, place]
    if layout.white_is_zero:
        colours = 2**layout.bits - 1 - colours
    if layout.colours == "palette":
        return Stored(colour.from_map(colours[:, :, 0], layout.colour_map), alpha, layout.icc)
    if layout.colours == "icc lab":
        colours = colour.plain_lab(colours)
    stored = colour.full_scale(colours, alpha, layout.bits)
    if layout.colours == "cmyk":
        return colour.from_cmyk(stored, layout.icc, "TIFF")
    if layout.colours in ("lab", "icc lab"):
        return colour.from_lab(stored, signed=layout.colours == "lab")
    if layout.alpha == "associated":
        stored = colour.unmultiplied(stored)
    return Stored(stored.colours, stored.alpha, layout.icc)


def _checked_samples(bits: tuple[int, ...], formats: tuple[int, ...]) -> bool:
    """True for floats; refuses what no result could hold."""
    widest = max(bits)
    if all(kind == _FLOAT for kind in formats):
        if set(bits) != {32}:
            raise ItemError("unsupported-mode", f"the TIFF has floats of {widest} bits; only 32 can be kept")
        return True
    if any(kind != _UINT for kind in formats):
        raise ItemError("unsupported-mode", "the TIFF has samples that are neither unsigned integers nor floats")
    if widest > 16:
        raise ItemError("unsupported-mode", f"the TIFF has integers of {widest} bits a sample; at most 16 can be kept")
    if len(set(bits)) > 1:
        raise ItemError("unsupported-mode", f"the TIFF has channels of unequal depth: {bits}")
    return False


def _alpha(tags: dict[int, Any], colours: int, samples: int) -> str | None:
    extra = tags.get(_EXTRA, ())
    beyond = tags.get(_SAMPLES, samples) - colours
    if beyond > 1 or (beyond == 1 and extra and extra[0] not in _ALPHA):
        raise ItemError("unsupported-mode", f"the TIFF has {beyond} more channels than colours, and not only alpha")
    return None if beyond < 1 else _ALPHA.get(extra[0] if extra else 2)


def _orientation(tags: dict[int, Any]) -> int:
    value = tags.get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
