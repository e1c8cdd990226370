"""Overlapping windows over an image, and the weights that blend their results. One axis at a time.

    image     |------------------------------------------------|
    windows   [-----------------]
                           [-----------------]
                                           [-------------------]
    weights   1111111111111111\\/1111111111111\\/1111111111111111

All windows of an axis have nearly one length, lie inside the image and are spread evenly, so
neighbours overlap by `overlap` or more. In the middle of each overlap one result fades into the next over a
narrow band; left and right of the band lies context that only one of the two sees well.

Pure geometry: no torch, no files.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Span:
    """One window on one axis, in LR pixels: it reads [start, stop) and answers for [first, last)."""

    start: int
    stop: int
    first: int
    last: int


def spans(n: int, longest: int, overlap: int, step: int = 1) -> list[Span]:
    """Windows of at most `longest` pixels that cover n, neighbours sharing `overlap` or more.

    Each starts at a multiple of `step`, and the last ends with the image, up to step - 1 shorter than
    the others. Raises ValueError where such windows could not get anywhere.
    """
    if n <= longest:
        return [Span(0, n, 0, n)]
    stride = _floor(longest - overlap, step)
    if stride <= 0:
        raise ValueError(f"windows of {longest} pixels that overlap by {overlap} never cover an image")
    count = math.ceil((n - overlap) / stride)
    length = _ceil(math.ceil((n - overlap) / count), step) + overlap
    last = _ceil(n - length, step)
    starts = [_ceil(math.ceil(i * last / (count - 1)), step) for i in range(count)]
    stops = [*(start + length for start in starts[:-1]), n]
    seams = [0, *((stop + start) // 2 for stop, start in zip(stops[:-1], starts[1:], strict=True)), n]
    return [Span(*ends, *seam) for ends, seam in zip(zip(starts, stops, strict=True), pairwise(seams), strict=True)]


def weights(axis: list[Span], scale: int, band: int) -> list[npt.NDArray[np.float32]]:
    """For each window of an axis its weight at each of its HR pixels; they sum to 1 everywhere.

    band: LR pixels, centred on each seam, over which one window fades (as a cosine) into the next;
    less where the overlap is less.
    """
    overlaps = [2 * min(left.stop - left.last, right.first - right.start) for left, right in pairwise(axis)]
    band = min([band, *overlaps, *(span.last - span.first for span in axis)])
    return [_weight(span, left, right, scale, band) for left, span, right in _with_neighbours(axis)]


def overhead(axis: list[Span]) -> float:
    """Pixels that all windows read over the pixels there are, >= 1."""
    return sum(span.stop - span.start for span in axis) / axis[-1].stop


def _floor(n: int, step: int) -> int:
    return n // step * step


def _ceil(n: int, step: int) -> int:
    return -(-n // step) * step


def _with_neighbours(axis: list[Span]) -> list[tuple[bool, Span, bool]]:
    return [(i > 0, span, i < len(axis) - 1) for i, span in enumerate(axis)]


def _weight(span: Span, fades_in: bool, fades_out: bool, scale: int, band: int) -> npt.NDArray[np.float32]:
    x = np.arange(span.start * scale, span.stop * scale) + 0.5
    weight = np.ones(len(x))
    if fades_in:
        weight *= _rising((x - span.first * scale) / max(band * scale, 1))
    if fades_out:
        weight *= 1 - _rising((x - span.last * scale) / max(band * scale, 1))
    return weight.astype(np.float32)


def _rising(t: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """0 up to t = -1/2, 1 from t = 1/2, half a cosine between."""
    risen: npt.NDArray[np.float64] = 0.5 + 0.5 * np.sin(np.pi * np.clip(t, -0.5, 0.5))
    return risen
