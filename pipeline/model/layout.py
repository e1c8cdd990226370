"""How an image is cut into windows and how large each is worked on.

The data step is a circular deconvolution over whatever it is given, so a window is never alone: it
carries context on every inner side, which is thrown away, and an extension that makes it periodic.

Windows start at multiples of 8 HR pixels: the prior's strided convolutions see a picture moved by
another number of pixels as another picture, and differ from the whole by 40-50 dB everywhere.

How much context: what a cut changes was measured as PSNR between a picture restored whole and the
same picture cut, by distance from the cut (official tiny weights, the paper's kernels 1, 4, 7, 10,
scales 1-4, sigma 0 to 7.65; HR pixels). Narrow Gaussians agree to 60 dB from 8 pixels on; the worst,
25×25 motion blur without noise, to 47-50 dB at 48 pixels, 54-61 at 80, 62-69 at 96 and beyond 70 at
160. The reach grows with the kernel, so context is `_REACH + _REACH_PER_KERNEL · width`.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from pipeline.physics.fourier import Shape
from pipeline.physics.windows import Span, spans, weights
from pipeline.records import Degradation

BoundaryMode = Literal["smooth", "circular"]

_REACH = 24  # HR pixels that the prior alone sees well enough
_REACH_PER_KERNEL = 1.5  # kernel widths
_BAND = 32  # HR pixels over which neighbouring windows fade into each other
_MARGIN_LR = 8  # beyond the kernel's width, for the extension to become periodic smoothly

_PRIOR_PERIOD = 8  # HR pixels: the prior halves three times, so it treats pixels alike only modulo 8

_LADDER = tuple(int(2**e * m) for e in range(5, 13) for m in (1, 1.25, 1.5, 1.75))  # 32, 40, 48, 56, 64, ...


@dataclass(frozen=True)
class Layout:
    """rows, columns: the windows on each axis, LR pixels. shape: LR size that each is extended to."""

    rows: list[Span]
    columns: list[Span]
    shape: Shape
    scale: int

    @property
    def tiles(self) -> int:
        return len(self.rows) * len(self.columns)

    @cached_property
    def row_weights(self) -> list[Tensor]:
        """For each row of windows its share at each of its HR rows."""
        return self._weights(self.rows)

    @cached_property
    def column_weights(self) -> list[Tensor]:
        """For each column of windows its share at each of its HR columns."""
        return self._weights(self.columns)

    def _weights(self, axis: list[Span]) -> list[Tensor]:
        return [torch.from_numpy(weight) for weight in weights(axis, self.scale, max(1, _BAND // self.scale))]


def lay_out(
    lr_shape: Shape,
    degradation: Degradation,
    boundary: BoundaryMode,
    most_pixels: int,
    *,
    few_shapes: bool = False,
    most_rows: int | None = None,
) -> Layout:
    """Cut an LR image so that no window exceeds `most_pixels` HR pixels; whole where it fits.

    few_shapes: extend to one of a few sizes, for compiled graphs, instead of the nearest good one.
    most_rows: LR rows of a window, at most. Circular images are never cut: their neighbours wrap.
    """
    h, w = lr_shape
    if boundary == "circular":
        return Layout([Span(0, h, 0, h)], [Span(0, w, 0, w)], lr_shape, degradation.scale)
    s = degradation.scale
    margins = [_MARGIN_LR + math.ceil(n / s) for n in degradation.kernel.shape]
    overlaps = [context_lr(n, s) for n in degradation.kernel.shape]
    smallest = [2 * overlap + 16 for overlap in overlaps]  # below, windows are mostly context
    budget = most_pixels // s**2
    side = math.isqrt(budget)
    tall = min(h + margins[0], max(side, budget // (w + margins[1])))
    step = _step(s)
    rows = spans(h, max(smallest[0], min(tall - margins[0], most_rows or h)), overlaps[0], step)
    wide = budget // (_length(rows) + margins[0])
    columns = spans(w, max(smallest[1], wide - margins[1]), overlaps[1], step)
    good = _on_the_ladder if few_shapes else _good_size
    shape = (good(_length(rows) + margins[0], s), good(_length(columns) + margins[1], s))
    return Layout(rows, columns, shape, s)


def context_lr(kernel_width: int, scale: int) -> int:
    """LR pixels that neighbouring windows share: context for both, and the band between."""
    return math.ceil((2 * (_REACH + _REACH_PER_KERNEL * kernel_width) + _BAND) / scale)


def aligned(n: int, scale: int) -> int:
    """The last LR pixel up to n where a window may start."""
    return n // _step(scale) * _step(scale)


def _step(scale: int) -> int:
    return _PRIOR_PERIOD // math.gcd(_PRIOR_PERIOD, scale)


def _length(axis: list[Span]) -> int:
    return max(span.stop - span.start for span in axis)


def _good_size(n: int, scale: int) -> int:
    """The next LR size whose HR size is a multiple of 8 (the prior halves three times), quick to transform."""
    while (n * scale) % 8 or not _is_fft_friendly(n):
        n += 1
    return n


def _on_the_ladder(n: int, scale: int) -> int:
    return _good_size(next((rung for rung in _LADDER if rung >= n), n), scale)


def _is_fft_friendly(n: int) -> bool:
    for prime in (2, 3, 5, 7):
        while n % prime == 0:
            n //= prime
    return n == 1
