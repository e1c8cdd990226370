"""Small pictures for pages: a crop of an input, enlarged, beside the same crop of its result.

Knows pixels and one file format; where a picture lies is told. No HTML, no torch.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.data import images, storage
from pipeline.errors import ItemError
from pipeline.physics.resample import upscale_bicubic

Pixels = npt.NDArray[np.uint8]

_QUALITY = 88  # of WebP: at these sizes its artefacts lie below the noise of the pictures


@dataclass(frozen=True)
class Window:
    """A part of an LR image, in LR pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: npt.NDArray[Any], scale: int = 1) -> npt.NDArray[Any]:
        """The same part of an image `scale` times as large."""
        rows, columns = slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)
        return image[_times(rows, scale), _times(columns, scale)]


@dataclass(frozen=True)
class Pair:
    """Two WebP files of one size, in pixels, and the window they show; whole: it is all there is."""

    before: bytes
    after: bytes
    width: int
    height: int
    whole: bool


def pair(
    uri: str, sr_uri: str, *, page: int, scale: int, phase: str, side: int, max_pixels: int, max_bytes: int
) -> Pair:
    """The busiest part of an item, its input enlarged (bicubic) and its result.

    side: of the pictures, SR pixels at most. Raises `ItemError` for whatever cannot be read or
    does not fit together any more.
    """
    lr = images.decode(storage.read_bytes(uri, max_bytes=max_bytes), page=page, max_pixels=max_pixels).pixels_hwc
    sr_pixels = max_pixels * scale**2
    sr = images.decode(storage.read_bytes(sr_uri, max_bytes=max_bytes * scale**2), max_pixels=sr_pixels).pixels_hwc
    if sr.shape[:2] != (lr.shape[0] * scale, lr.shape[1] * scale):
        raise ItemError("input-changed", f"{uri} no longer fits its result: {lr.shape[:2]} and {sr.shape[:2]}")
    window = busiest(lr, max(1, side // scale))
    before = enlarged(eight_bits(lr), window, scale, phase)
    after = eight_bits(window.of(sr, scale))
    whole = (window.height, window.width) == lr.shape[:2]
    return Pair(webp(before), webp(after), after.shape[1], after.shape[0], whole)


def busiest(image: npt.NDArray[Any], side: int) -> Window:
    """The window of at most side×side with the most detail: where settings and results differ most."""
    gray = eight_bits(image).reshape(*image.shape[:2], -1).mean(axis=2)
    height, width = min(side, gray.shape[0]), min(side, gray.shape[1])
    detail = np.zeros((gray.shape[0] + 1, gray.shape[1] + 1))
    detail[2:, 2:] = np.abs(np.diff(gray, axis=0))[:, 1:] + np.abs(np.diff(gray, axis=1))[1:]
    total = detail.cumsum(axis=0).cumsum(axis=1)  # summed-area table
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = np.unravel_index(int(np.argmax(np.round(sums, 6))), sums.shape)
    return Window(int(top), int(left), height, width)


def enlarged(lr: Pixels, window: Window, scale: int, phase: str) -> Pixels:
    """The window of an LR image, bicubic, on the grid that the phase means."""
    margin = 3  # LR pixels that the interpolation looks beyond the window
    top, left = max(0, window.top - margin), max(0, window.left - margin)
    around = Window(top, left, window.height + 2 * margin, window.width + 2 * margin).of(lr)
    inner = Window(window.top - top, window.left - left, window.height, window.width)
    bicubic = upscale_bicubic(around, scale, phase)
    return np.asarray(np.rint(inner.of(bicubic, scale).clip(0, 255)), np.uint8)


def eight_bits(image: npt.NDArray[Any]) -> Pixels:
    """Samples of any integer type as 0-255: what a page can show."""
    if image.dtype == np.uint8:
        return np.asarray(image, np.uint8)
    scaled = np.rint(image.astype(np.float64) * 255 / np.iinfo(image.dtype).max)
    return np.asarray(scaled.astype(np.uint8))


def webp(pixels: Pixels, *, lossless: bool = False) -> bytes:
    """(h, w), (h, w, 1) or (h, w, 3) uint8 as a WebP file."""
    file = BytesIO()
    flat = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    Image.fromarray(np.ascontiguousarray(flat)).convert("RGB").save(
        file, "WEBP", lossless=lossless, quality=_QUALITY, method=4
    )
    return file.getvalue()


def _times(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)
