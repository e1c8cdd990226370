"""Batches of windows through the network: the only place where a USRNet runs on archives' pixels.

A batch is launched with all that is wanted of it, and asked for only after the next one is: on a GPU
the host prepares and uploads while the device computes. Where memory runs out a batch goes in halves;
what is no picture is computed again in fp32.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.errors import ItemError
from pipeline.model.backend import Denoiser
from pipeline.model.layout import Layout
from pipeline.model.memory import ran_out_of_memory
from pipeline.model.picture import Image, rounded, unit_range
from pipeline.model.transfer import Transfer
from pipeline.model.usrnet import USRNet
from pipeline.physics.boundary import extend_periodic
from pipeline.physics.data_step import Observation, observe, observed_spectrum
from pipeline.physics.fourier import Shape
from pipeline.physics.windows import Span
from pipeline.records import Degradation

# Black is 0 and white 1, but the authors' own results of golden inputs reach 5.9 (docs/engine.md, "The guard").
_FAR_OUT = 16.0


@dataclass(frozen=True)
class Window:
    """Part of an image: of which (its number), where it lies in the layout, its LR pixels.

    alone: whether it is all of its image, so that its result is rounded on the device; parts are blended first.
    """

    image: int
    row: int
    column: int
    layout: Layout
    lr: Image
    lr_shape: Shape
    degradation: Degradation
    alone: bool = False

    @property
    def rows(self) -> Span:
        return self.layout.rows[self.row]

    @property
    def columns(self) -> Span:
        return self.layout.columns[self.column]


@dataclass(frozen=True)
class Result:
    """One window restored, in main memory. squares, count: of the residual where this window answers.

    pixels: (3, rows·s, columns·s) float32, not clamped; of a window alone (rows·s, columns·s[, 3]) samples.
    precision: of the prior, fp32 where it had to be computed again.
    """

    window: Window
    pixels: Tensor
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
    """A batch whose computation has begun. arrive: waits for it and gives the tensors of `Runner._answers`."""

    windows: list[Window]
    precision: str
    arrive: Callable[[], list[Tensor]]


class Runner:
    """Runs batches of windows that share scale, shape and kind of samples on one device."""

    def __init__(self, net: USRNet, device: torch.device, precision: str, compile: str) -> None:
        self.device, self.precision = device, precision
        self._transfer = Transfer(device)
        self._net = copy.deepcopy(net).float().eval().requires_grad_(False).to(device)
        self._fast = Denoiser(net.p, device, precision, compile)
        self._exact = self._fast if precision == "fp32" else Denoiser(net.p, device, "fp32", compile)

    @property
    def backend(self) -> str:
        """The code that the prior runs by."""
        return self._fast.name

    def stream(self, batches: Iterable[list[Window]]) -> Iterator[Result | Refused]:
        """Each window's result, or why there is none; in order of the batches."""
        waiting: list[_Launched | Refused] = []
        for windows in batches:
            launched = self._launched(windows, self.precision)
            yield from self._finished(waiting)
            waiting = launched
        yield from self._finished(waiting)

    def _launched(self, windows: list[Window], precision: str) -> list[_Launched | Refused]:
        """The batch begun, in halves where memory runs out."""
        try:
            return [self._launch(windows, precision)]
        except (MemoryError, RuntimeError) as error:
            if not ran_out_of_memory(error):
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # cuFFT and cuDNN cannot use what torch keeps for itself
        if len(windows) == 1:
            h, w = windows[0].lr.shape[:2]
            return [Refused(windows[0], ItemError("out-of-memory", f"no memory for {w}×{h} LR pixels at once"))]
        half = len(windows) // 2
        return self._launched(windows[:half], precision) + self._launched(windows[half:], precision)

    def _launch(self, windows: list[Window], precision: str) -> _Launched:
        """precision: the runner's own, or fp32 for what was no picture in that."""
        layout, floats = windows[0].layout, self._transfer.floats
        lr = torch.stack([extend_periodic(unit_range(w.lr, self._transfer), *layout.shape) for w in windows])
        seen = self._observe(lr, [w.degradation for w in windows])
        sigma = floats(np.array([w.degradation.sigma / 255 for w in windows])).view(-1, 1, 1, 1)
        deep = any(w.lr.dtype != np.uint8 for w in windows)
        fast = self._fast if precision == self.precision else self._exact
        last = self._exact if deep else fast
        for denoiser in {fast, last}:
            denoiser.expect((len(windows), layout.shape[0] * layout.scale, layout.shape[1] * layout.scale))
        sr = self._net.unfold(lr, seen, sigma, fast, last)
        return _Launched(windows, precision, self._transfer.to_host(self._answers(sr, seen, windows)))

    def _answers(self, sr: Tensor, seen: Observation, windows: list[Window]) -> list[Tensor]:
        """What is wanted of a batch: first (N,) squares, then (N,) whether it is a picture, then each one's pixels."""
        residual = torch.fft.irfft2(observed_spectrum(sr, seen) - seen.Y, s=seen.lr_shape)
        squares = [_answered(residual[n], window).square().sum() for n, window in enumerate(windows)]
        inside = [_cropped(sr[n], window) for n, window in enumerate(windows)]
        good = torch.stack([_is_picture(pixels) for pixels in inside])
        return [torch.stack(squares), good, *(_wanted(*pair) for pair in zip(inside, windows, strict=True))]

    def _finished(self, batches: list[_Launched | Refused]) -> Iterator[Result | Refused]:
        for batch in batches:
            if isinstance(batch, Refused):
                yield batch
            else:
                yield from self._results(batch)

    def _results(self, batch: _Launched) -> Iterator[Result | Refused]:
        squares, good, *pixels = batch.arrive()
        again = []
        for n, window in enumerate(batch.windows):
            if good[n]:
                yield Result(window, pixels[n], float(squares[n]), _count(window), batch.precision)
            elif batch.precision == "fp32":
                yield Refused(window, _no_picture(window.degradation))
            else:
                again.append(window)
        if again:
            yield from self._finished(self._launched(again, "fp32"))

    def _observe(self, lr: Tensor, degradations: list[Degradation]) -> Observation:
        """Spectra of the kernels, each different one transformed once; one for all is not even copied."""
        numbers: dict[tuple[Shape, bytes], int] = {}
        which = [numbers.setdefault((d.kernel.shape, d.kernel.tobytes()), len(numbers)) for d in degradations]
        different = [degradations[which.index(number)] for number in range(len(numbers))]
        seen = observe(lr, self._transfer.floats(_stacked_kernels(different)), degradations[0].scale)
        if len(different) in (1, len(degradations)):
            return seen
        K, power = (torch.stack([spectra[number] for number in which]) for spectra in (seen.K, seen.power))
        return Observation(K, power, seen.Y, seen.lr_shape, seen.scale)


def _stacked_kernels(degradations: list[Degradation]) -> npt.NDArray[np.float32]:
    """Kernels of different sizes embedded in the largest, origins (n//2) on top of each other."""
    kernels = [degradation.kernel for degradation in degradations]
    kh, kw = (max(k.shape[axis] for k in kernels) for axis in (0, 1))
    stacked = np.zeros((len(kernels), 1, kh, kw), np.float32)
    for n, k in enumerate(kernels):
        top, left = kh // 2 - k.shape[0] // 2, kw // 2 - k.shape[1] // 2
        stacked[n, 0, top : top + k.shape[0], left : left + k.shape[1]] = k
    return stacked


def _cropped(sr: Tensor, window: Window) -> Tensor:
    """(3, H, W) → (3, rows·s, columns·s): without the extension."""
    h, w = (size * window.layout.scale for size in window.lr.shape[:2])
    return sr[:, :h, :w]


def _is_picture(sr: Tensor) -> Tensor:
    """() bool: finite, and not so far out of [0, 1] that it is none."""
    return torch.stack(torch.aminmax(sr)).abs().amax() <= _FAR_OUT  # false for NaN as well


def _wanted(sr: Tensor, window: Window) -> Tensor:
    return rounded(sr, window.lr.dtype, window.lr.ndim == 2) if window.alone else sr.contiguous()


def _no_picture(degradation: Degradation) -> ItemError:
    why = f"not finite, or far beyond black and white, even in fp32 (sigma {degradation.sigma:g})"
    return ItemError("bad-result", f"the result is no picture: {why}")


def _answered(residual: Tensor, window: Window) -> Tensor:
    """The part of the residual (3, h, w) that this window answers for."""
    (top, bottom), (left, right) = _answers_for(window)
    return residual[:, top:bottom, left:right]


def _count(window: Window) -> int:
    (top, bottom), (left, right) = _answers_for(window)
    return 3 * (bottom - top) * (right - left)


def _answers_for(window: Window) -> list[tuple[int, int]]:
    """By axis from where to where, in the window's LR pixels: a kernel radius inside the image's border.

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
        parts.append((first - span.start, max(first, last) - span.start))
    return parts
