"""Restoring pictures with a USRNet: arrays in, arrays out. The one door to the network.

`Restorer.batch` restores many images of any size, scale and kernel at once and answers for each
one apart; `Restorer.windows` one image of any size in bounded memory; `restore` is the thin call
for a person. What happens to each image:

    lay out   cut into overlapping windows where it is too large for one (pipeline.model.layout)
    extend    each window to a smooth periodic one: the data step is circular
    stack     with windows of the same scale and shape, from whichever image
    restore   in fp32, the prior in bf16/fp16 where the hardware has it (pipeline.model.runner)
    guard     a result that is no picture is computed once more in fp32, then refused
    measure   the consistency: does the result, degraded again, give the input?
    blend     the windows, clamp, round to the input's sample type

Knows no file, no table row, no Ray.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.errors import ItemError
from pipeline.model.backend import PRECISIONS, best_precision
from pipeline.model.layout import BoundaryMode, Layout, aligned, context_lr, lay_out
from pipeline.model.memory import available_bytes, bytes_per_pixel, memory_for_batches
from pipeline.model.picture import Canvas, Image, check, rounded
from pipeline.model.runner import Refused, Result, Runner, Window
from pipeline.model.usrnet import USRNet
from pipeline.records import Degradation

LEAST_PIXELS = 2**16  # HR pixels of a window; with less, memory is not the trouble
# HR pixels in one call of the network on a CPU, where a batch gains nothing but for small windows: feature
# maps of more fall out of the cache (16 windows of 256² at once took up to 1.6 times as long as one by one).
_CPU_TOGETHER = 2**17
_STRIP_SHARE = 2  # the full-width strip of `windows` may hold so many windows' worth of pixels
_STRIP_BYTES = 3 * 3 * 4  # of an HR pixel: the strip, its finished rows, those between 0 and white; three channels each
_SURELY_THERE = 2**30  # bytes that are not worth a look at how much memory there is


@dataclass(frozen=True)
class Account:
    """What is told of a result beside its pixels.

    consistency_rms_255: RMS of (degraded result - input) in grey levels, a kernel radius inside
    the border; near sigma when kernel, phase and restoration are right. precision: of the prior;
    fp32 if any window had to be computed again. backend: the code it ran by. tiles: windows used.
    """

    consistency_rms_255: float
    precision: str
    backend: str
    tiles: int = 1


@dataclass(frozen=True)
class Restored(Account):
    """One result. image: (h·s, w·s[, 3]) in the input's dtype."""

    image: Image = field(kw_only=True)


class Source(Protocol):
    """An image that is read in parts. shape: (h, w) or (h, w, 3); dtype: uint8, uint16 or float32."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def read(self, y0: int, y1: int, x0: int, x1: int) -> Image:
        """Pixels [y0, y1) × [x0, x1), as (rows, columns[, 3])."""
        ...


class Restorer:
    """A USRNet ready to work on one device.

    precision: auto, fp32, bf16 or fp16, of the prior's convolutions; FFT and data step stay fp32.
    compile: auto, off or on (pipeline.model.backend). memory: bytes that one batch may take; None
    asks the device. Where memory runs out all the same, batches are halved, then windows.
    """

    def __init__(
        self,
        net: USRNet,
        *,
        precision: str = "auto",
        compile: str = "auto",
        memory: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.precision = best_precision(self.device) if precision == "auto" else precision
        self._runner = Runner(net, self.device, self.precision, compile)
        self._few_shapes = self.device.type == "cuda" and compile != "off"
        shallow, deep = (bytes_per_pixel(net.architecture, PRECISIONS[p]) for p in (self.precision, "fp32"))
        self._deep_share = shallow / deep
        self.most_pixels = max(LEAST_PIXELS, (memory or memory_for_batches(self.device)) // shallow)

    @property
    def backend(self) -> str:
        """The code that the prior runs by: onednn, eager or compiled."""
        return self._runner.backend

    @torch.inference_mode()
    def batch(
        self,
        images: Sequence[Image],
        degradations: Sequence[Degradation],
        boundary: BoundaryMode = "smooth",
    ) -> list[Restored | ItemError]:
        """Restore each image, or say why not: one bad image never costs its neighbours anything.

        images: (h, w, 3) or (h, w); uint8, uint16, or float32 in [0, 1]. boundary: `smooth` for real images,
        `circular` for synthetic ones degraded with wrap-around. Results in the order of `images`.
        """
        results: dict[int, Restored | ItemError] = {}
        todo, most_pixels = list(range(len(images))), self.most_pixels
        while todo:
            results |= self._attempt({n: (images[n], degradations[n]) for n in todo}, boundary, most_pixels)
            most_pixels //= 2
            smaller = boundary == "smooth" and most_pixels >= LEAST_PIXELS
            todo = [n for n in todo if smaller and _lacked_memory(results[n])]
        return [results[n] for n in range(len(images))]

    @torch.inference_mode()
    def windows(
        self, source: Source, degradation: Degradation, tell: Callable[[Account], None] = lambda _: None
    ) -> Iterator[tuple[int, int, Image]]:
        """Restore an image of any size in bounded memory: (y, x, tile) from top to bottom.

        Tiles are whole rows of the result, (rows, w·s[, 3]) in the source's dtype, each below the
        one before. Where memory runs out, what is below the last tile is restored by smaller windows.
        tell: is given the account of the whole after the last one. Raises `ItemError`; tiles that
        came before it are good.
        """
        check(source.shape, source.dtype)
        tally, done, most_pixels = _Tally(), 0, self.most_pixels
        while done < source.shape[0]:
            try:
                for tile in self._tiles(source, degradation, done, most_pixels, tally):
                    yield done * degradation.scale, 0, tile
                    done += len(tile) // degradation.scale
            except ItemError as error:
                most_pixels //= 2
                if error.code != "out-of-memory" or most_pixels < LEAST_PIXELS:
                    raise
        tell(tally.account(self.backend))

    def _tiles(
        self, source: Source, degradation: Degradation, done: int, most_pixels: int, tally: "_Tally"
    ) -> Iterator[Image]:
        """What lies below LR row `done`: restored from a context above it, which is thrown away, as whole rows."""
        top = aligned(max(0, done - context_lr(degradation.kernel.shape[0], degradation.scale)), degradation.scale)
        part = _Below(source, top)
        surplus = (done - top) * degradation.scale
        for rows in self._strips(part, degradation, self._budget(source.dtype, most_pixels), tally):
            if len(rows) > surplus:
                yield rows[surplus:]
            surplus = max(0, surplus - len(rows))

    def _strips(self, source: Source, degradation: Degradation, most_pixels: int, tally: "_Tally") -> Iterator[Image]:
        """The rows of the result, as many at a time as no window below needs. Raises the first refusal."""
        h, w, s = source.shape[0], source.shape[1], degradation.scale
        most_rows = most_pixels * _STRIP_SHARE // (w * s * s)
        layout = lay_out((h, w), degradation, "smooth", most_pixels, most_rows=most_rows)
        canvas = self._strip(layout, w)
        for row, rows in enumerate(layout.rows):
            for result in self._runner.stream(self._row_of_batches(source, degradation, layout, row, most_pixels)):
                if isinstance(result, Refused):
                    raise result.error
                tally.add(result)
                _blend(result, canvas, top=rows.start)
            below = layout.rows[row + 1].start if row + 1 < len(layout.rows) else h
            finished = canvas.take_rows((below - rows.start) * s)
            yield rounded(finished, source.dtype, gray=len(source.shape) == 2).numpy()

    def _strip(self, layout: Layout, lr_width: int) -> Canvas:
        """A row of windows at full width, blank. Raises `ItemError` where the main memory does not hold it."""
        height, width = (n * layout.scale for n in (max(rows.stop - rows.start for rows in layout.rows), lr_width))
        _refuse_beyond_memory(height * width * _STRIP_BYTES, f"a strip of {width}×{height} pixels, the least there is,")
        return Canvas(height, width)

    def _attempt(
        self, pairs: dict[int, tuple[Image, Degradation]], boundary: BoundaryMode, most_pixels: int
    ) -> dict[int, Restored | ItemError]:
        """Restore numbered images with windows of at most `most_pixels`; by number the result, or why not."""
        results: dict[int, Restored | ItemError] = {}
        pictures: dict[int, _Picture] = {}
        groups: dict[tuple[object, ...], list[Window]] = defaultdict(list)
        for n, (image, degradation) in pairs.items():
            try:
                check(image.shape, image.dtype)
                layout = self._lay_out(image, degradation, boundary, most_pixels)
            except ItemError as error:
                results[n] = error
            else:
                pictures[n] = _Picture(image, layout)
                is_deep = image.dtype != np.uint8
                groups[layout.scale, layout.shape, is_deep] += _cut(n, image, degradation, layout)
        batches = (batch for windows in groups.values() for batch in self._batches(windows, most_pixels))
        for result in self._runner.stream(batches):
            n = result.window.image
            if isinstance(result, Refused):
                results.setdefault(n, result.error)
            elif pictures[n].add(result) and n not in results:
                results[n] = pictures.pop(n).finished(self.backend)
        return results

    def _lay_out(self, image: Image, degradation: Degradation, boundary: BoundaryMode, most_pixels: int) -> Layout:
        h, w = image.shape[:2]
        budget = self._budget(image.dtype, most_pixels)
        layout = lay_out((h, w), degradation, boundary, budget, few_shapes=self._few_shapes)
        (kh, kw), s = degradation.kernel.shape, degradation.scale
        if kh > layout.shape[0] * s or kw > layout.shape[1] * s:
            raise ItemError("bad-kernel", f"the kernel ({kh}×{kw}) is larger than the result; use boundary smooth")
        _refuse_beyond_memory(h * w * s * s * 3 * (4 + image.itemsize), f"a result of {w * s}×{h * s} pixels")
        return layout

    def _budget(self, dtype: np.dtype[Any], most_pixels: int) -> int:
        """HR pixels that take the memory of `most_pixels` of 8 bits: deeper ones end in fp32."""
        return most_pixels if dtype == np.uint8 else max(LEAST_PIXELS, int(most_pixels * self._deep_share))

    def _row_of_batches(
        self, source: Source, degradation: Degradation, layout: Layout, row: int, most_pixels: int
    ) -> Iterator[list[Window]]:
        rows, lr_shape = layout.rows[row], (source.shape[0], source.shape[1])
        together = self._most_windows(layout, most_pixels)
        for first in range(0, len(layout.columns), together):
            numbered = list(enumerate(layout.columns))[first : first + together]
            yield [
                Window(0, row, column, layout, source.read(rows.start, rows.stop, span.start, span.stop), lr_shape,
                       degradation)
                for column, span in numbered
            ]  # fmt: skip

    def _batches(self, windows: list[Window], most_pixels: int) -> Iterator[list[Window]]:
        together = self._most_windows(windows[0].layout, self._budget(windows[0].lr.dtype, most_pixels))
        for first in range(0, len(windows), together):
            yield windows[first : first + together]

    def _most_windows(self, layout: Layout, most_pixels: int) -> int:
        """How many windows go through the network in one call."""
        if self.device.type == "cpu":
            most_pixels = min(most_pixels, _CPU_TOGETHER)
        return max(1, most_pixels // (layout.shape[0] * layout.shape[1] * layout.scale**2))


class _Below:
    """What of a source lies from LR row `top` on."""

    def __init__(self, source: Source, top: int) -> None:
        self._source, self._top = source, top
        self.shape, self.dtype = (source.shape[0] - top, *source.shape[1:]), source.dtype

    def read(self, y0: int, y1: int, x0: int, x1: int) -> Image:
        return self._source.read(self._top + y0, self._top + y1, x0, x1)


class _Tally:
    """What the windows of one image add up to."""

    def __init__(self) -> None:
        self.tiles = 0
        self._squares, self._count = 0.0, 0
        self._precisions: set[str] = set()

    def add(self, result: Result) -> None:
        self.tiles += 1
        self._squares += result.squares
        self._count += result.count
        self._precisions.add(result.precision)

    def account(self, backend: str) -> Account:
        rms = 255 * math.sqrt(self._squares / max(1, self._count))
        precision = "fp32" if "fp32" in self._precisions else next(iter(self._precisions))
        return Account(rms, precision, backend, self.tiles)


class _Picture:
    """A result in the making: the windows it still waits for and what they gave so far."""

    def __init__(self, image: Image, layout: Layout) -> None:
        self._image, self._layout, self._tally = image, layout, _Tally()
        self._canvas: Canvas | None = None
        self._whole: Image | None = None

    def add(self, result: Result) -> bool:
        """Take one window's result; True when it was the last."""
        self._tally.add(result)
        if self._layout.tiles == 1:
            self._whole = result.pixels.numpy()
        else:
            self._canvas = self._canvas or self._blank()
            _blend(result, self._canvas)
        return self._tally.tiles == self._layout.tiles

    def finished(self, backend: str) -> Restored:
        if self._canvas is not None:
            self._whole = rounded(self._canvas.pixels, self._image.dtype, self._image.ndim == 2).numpy()
        assert self._whole is not None
        return Restored(**vars(self._tally.account(backend)), image=self._whole)

    def _blank(self) -> Canvas:
        h, w = self._image.shape[:2]
        return Canvas(h * self._layout.scale, w * self._layout.scale)


def restore(
    net: USRNet,
    images: Sequence[Image],
    degradations: Sequence[Degradation],
    boundary: BoundaryMode = "smooth",
    *,
    precision: str = "auto",
) -> list[Image]:
    """Restore images with a network: the call for a person. The first failure is raised.

    images: (h, w, 3) or (h, w); uint8, uint16, or float32 in [0, 1]. Returns (h·s, w·s[, 3]) arrays of the same dtype.
    Raises `ItemError` naming the image's position.
    """
    restored = []
    for position, result in enumerate(Restorer(net, precision=precision).batch(images, degradations, boundary)):
        if isinstance(result, ItemError):
            raise ItemError(result.code, f"images[{position}]: {result}")
        restored.append(result.image)
    return restored


def _cut(n: int, image: Image, degradation: Degradation, layout: Layout) -> Iterator[Window]:
    """The windows of an image; views, no copies."""
    lr_shape = (image.shape[0], image.shape[1])
    for row, rows in enumerate(layout.rows):
        for column, columns in enumerate(layout.columns):
            lr = image[rows.start : rows.stop, columns.start : columns.stop]
            yield Window(n, row, column, layout, lr, lr_shape, degradation, alone=layout.tiles == 1)


def _blend(result: Result, canvas: Canvas, top: int = 0) -> None:
    """Add a window's share to a canvas whose first row is the image's LR row `top`."""
    window, layout = result.window, result.window.layout
    weight = layout.row_weights[window.row][:, None] * layout.column_weights[window.column]
    y, x = (window.rows.start - top) * layout.scale, window.columns.start * layout.scale
    canvas.add(result.pixels, y, x, weight)


def _refuse_beyond_memory(needed: int, what: str) -> None:
    if needed > _SURELY_THERE and needed > (there := available_bytes()):
        sizes = f"needs {needed / 2**30:.1f} GiB of main memory, {there / 2**30:.1f} are free"
        raise ItemError("out-of-memory", f"{what} {sizes}")


def _lacked_memory(result: Restored | ItemError) -> bool:
    return isinstance(result, ItemError) and result.code == "out-of-memory"
