"""Batches of windows through the network: the only place where a USRNet runs on archives' pixels.

A batch is launched, and finished only after the next one is: on a GPU the host prepares and uploads
while the device computes. Where memory runs out a batch goes in halves; what is not finite is
computed again in fp32.
"""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ItemError
from pipeline.model.backend import Denoiser
from pipeline.model.layout import Layout
from pipeline.model.picture import Image, unit_range
from pipeline.model.usrnet import USRNet
from pipeline.physics.boundary import extend_periodic
from pipeline.physics.data_step import Observation, observe, observed_spectrum
from pipeline.physics.fourier import Shape
from pipeline.physics.windows import Span
from pipeline.records import Degradation


@dataclass(frozen=True)
class Window:
    """Part of an image: of which (its number), where it lies in the layout, its LR pixels."""

    image: int
    row: int
    column: int
    layout: Layout
    lr: Image
    lr_shape: Shape
    degradation: Degradation

    @property
    def rows(self) -> Span:
        return self.layout.rows[self.row]

    @property
    def columns(self) -> Span:
        return self.layout.columns[self.column]


@dataclass(frozen=True)
class Result:
    """sr: (3, rows·s, columns·s), not clamped. squares, count: of the residual where this window answers.

    precision: of the prior, fp32 where it had to be computed again.
    """

    window: Window
    sr: Tensor
    squares: float
    count: int
    precision: str


@dataclass(frozen=True)
class Refused:
    """A window without result, and why."""

    window: Window
    error: ItemError


@dataclass(frozen=True)
class _Launched:
    """A batch whose computation has begun. bad: (N,) bool, whose result is no picture."""

    windows: list[Window]
    lr: Tensor
    seen: Observation
    sigma: Tensor
    sr: Tensor
    bad: Tensor


class Runner:
    """Runs batches of windows that share scale and shape on one device."""

    def __init__(self, net: USRNet, device: torch.device, precision: str, compile: str) -> None:
        self.device, self.precision = device, precision
        self._net = copy.deepcopy(net).float().eval().requires_grad_(False).to(device)
        self._fast = Denoiser(net.p, device, precision, compile)
        self._exact = self._fast if precision == "fp32" else Denoiser(net.p, device, "fp32", compile)

    @property
    def backend(self) -> str:
        """The code that the prior runs by."""
        return self._fast.name

    def stream(self, batches: Iterable[list[Window]]) -> Iterator[Result | Refused]:
        """Each window's result, or why there is none; in order of the batches."""
        waiting: list[_Launched] = []
        for windows in batches:
            launched = self._launched(windows)
            yield from (result for batch in waiting for result in self._finished(batch))
            waiting = []
            for batch in launched:
                if isinstance(batch, Refused):
                    yield batch
                else:
                    waiting.append(batch)
        yield from (result for batch in waiting for result in self._finished(batch))

    def _launched(self, windows: list[Window]) -> list[_Launched | Refused]:
        """The batch begun, in halves where memory runs out."""
        try:
            return [self._launch(windows)]
        except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
            if not _ran_out_of_memory(error):
                raise
        if len(windows) == 1:
            h, w = windows[0].lr.shape[:2]
            return [Refused(windows[0], ItemError("out-of-memory", f"no memory for {w}×{h} LR pixels at once"))]
        half = len(windows) // 2
        return self._launched(windows[:half]) + self._launched(windows[half:])

    def _launch(self, windows: list[Window]) -> _Launched:
        layout = windows[0].layout
        lr = torch.stack([extend_periodic(unit_range(w.lr, self.device), *layout.shape) for w in windows])
        seen = self._observe(lr, [w.degradation for w in windows])
        sigma = torch.tensor([w.degradation.sigma / 255 for w in windows], device=self.device).view(-1, 1, 1, 1)
        deep = any(w.lr.dtype != np.uint8 for w in windows)
        sr = self._net.unfold(lr, seen, sigma, self._fast, self._exact if deep else None)
        return _Launched(windows, lr, seen, sigma, sr, _is_bad(sr))

    def _finished(self, batch: _Launched) -> Iterator[Result | Refused]:
        again, still_bad = batch.bad.tolist(), batch.bad
        if any(again) and self.precision != "fp32":
            bad = batch.bad
            exact = self._net.unfold(batch.lr[bad], _subset(batch.seen, bad), batch.sigma[bad], self._exact)
            batch.sr[bad] = exact
            still_bad = _is_bad(batch.sr)
        residual = torch.fft.irfft2(observed_spectrum(batch.sr, batch.seen) - batch.seen.Y, s=batch.lr.shape[-2:])
        for n, window in enumerate(batch.windows):
            if still_bad[n]:
                yield Refused(window, _no_picture(window.degradation))
                continue
            h, w = (size * window.layout.scale for size in window.lr.shape[:2])
            inside = _answered(residual[n], window)
            squares, count = float(inside.square().sum()), inside.numel()
            yield Result(window, batch.sr[n, :, :h, :w], squares, count, "fp32" if again[n] else self.precision)

    def _observe(self, lr: Tensor, degradations: list[Degradation]) -> Observation:
        """Spectra of the kernels, each different one transformed once; one for all is not even copied."""
        numbers: dict[tuple[Shape, bytes], int] = {}
        which = [numbers.setdefault((d.kernel.shape, d.kernel.tobytes()), len(numbers)) for d in degradations]
        different = [degradations[which.index(number)] for number in range(len(numbers))]
        seen = observe(lr, _stacked_kernels(different).to(self.device), degradations[0].scale)
        if len(different) in (1, len(degradations)):
            return seen
        return Observation(seen.K[which], seen.power[which], seen.Y, seen.lr_shape, seen.scale)


def _stacked_kernels(degradations: list[Degradation]) -> Tensor:
    """Kernels of different sizes embedded in the largest, origins (n//2) on top of each other."""
    kernels = [degradation.kernel for degradation in degradations]
    kh, kw = (max(k.shape[axis] for k in kernels) for axis in (0, 1))
    stacked = np.zeros((len(kernels), 1, kh, kw), np.float32)
    for n, k in enumerate(kernels):
        top, left = kh // 2 - k.shape[0] // 2, kw // 2 - k.shape[1] // 2
        stacked[n, 0, top : top + k.shape[0], left : left + k.shape[1]] = k
    return torch.from_numpy(stacked)


def _is_bad(sr: Tensor) -> Tensor:
    """(N,) bool: not finite, or so far out of [0, 1] that it is no picture."""
    largest = sr.flatten(1).abs().amax(dim=1)
    return ~(largest <= 100)  # false for NaN as well


def _subset(seen: Observation, which: Tensor) -> Observation:
    shared = len(seen.K) == 1  # one kernel for the whole batch
    K, power = (seen.K, seen.power) if shared else (seen.K[which], seen.power[which])
    return Observation(K, power, seen.Y[which], seen.lr_shape, seen.scale)


def _no_picture(degradation: Degradation) -> ItemError:
    return ItemError("bad-result", f"the result is not a finite picture, even in fp32 (sigma {degradation.sigma:g})")


def _answered(residual: Tensor, window: Window) -> Tensor:
    """The part of the residual (3, h, w) that this window answers for, a kernel radius inside the image's border.

    All of a picture too small to have an inside.
    """
    s = window.degradation.scale
    parts = []
    for span, n, width in zip(
        (window.rows, window.columns), window.lr_shape, window.degradation.kernel.shape, strict=True
    ):
        radius = -(-(width // 2) // s)
        if n <= 2 * radius:
            radius = 0
        first, last = max(span.first, radius), min(span.last, n - radius)
        parts.append(slice(first - span.start, max(first, last) - span.start))
    return residual[:, parts[0], parts[1]]


def _ran_out_of_memory(error: BaseException) -> bool:
    """torch reports the CPU allocator's failure as a plain RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
