"""Restoring pictures with a USRNet: arrays in, arrays out. The one door to the network.

`Restorer.batch` restores many images of any size, scale and kernel at once and answers for each
one apart; `restore` is the thin call for a person. What happens to each image:

    extend   to a smooth periodic image (the data step is circular), to an FFT-friendly size
    stack    with others of the same scale and size into one batch
    restore  in fp32, the prior in bf16/fp16 where the hardware has it
    guard    a result that is not finite is computed once more in fp32, then refused
    measure  the consistency: does the result, degraded again, give the input?
    crop     to (h·s, w·s), clamp, round to the input's sample type

Knows no file, no table row, no Ray.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.errors import ItemError
from pipeline.model.usrnet import USRNet
from pipeline.physics.boundary import extend_periodic
from pipeline.physics.data_step import Observation, observe, observed_spectrum
from pipeline.physics.fourier import Shape
from pipeline.records import Degradation

Image = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
BoundaryMode = Literal["smooth", "circular"]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# The prior sees far, but what a border ramp changes fades within a few pixels beyond the kernel.
_MARGIN_LR = 8


@dataclass(frozen=True)
class Restored:
    """One result. image: (h·s, w·s[, 3]) in the input's dtype.

    consistency_rms_255: RMS of (degraded result - input) in grey levels, a kernel radius inside
    the border; near sigma when kernel, phase and restoration are right. tiles: windows used.
    """

    image: Image
    consistency_rms_255: float
    precision: str
    tiles: int = 1


@dataclass(frozen=True)
class _Task:
    """One image made ready: lr (3, h, w) in [0, 1] and the shape it is extended to."""

    index: int
    lr: Tensor
    degradation: Degradation
    shape: Shape
    source: Image


class Restorer:
    """A USRNet ready to work on one device.

    precision: auto, fp32, bf16 or fp16, of the prior's convolutions; FFT and data step stay fp32.
    memory: HR pixels restored together in one batch.
    """

    def __init__(
        self,
        net: USRNet,
        *,
        precision: str = "auto",
        device: torch.device | str | None = None,
        memory: int = 2_000_000,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.precision = best_precision(self.device) if precision == "auto" else precision
        self.memory = memory
        self._exact = _on_device(net, self.device, torch.float32)
        self._fast = _on_device(net, self.device, PRECISIONS[self.precision])

    def batch(
        self,
        images: Sequence[Image],
        degradations: Sequence[Degradation],
        boundary: BoundaryMode = "smooth",
    ) -> list[Restored | ItemError]:
        """Restore each image, or say why not: one bad image never costs its neighbours anything.

        images: (h, w, 3) or (h, w) uint8 or uint16. boundary: `smooth` for real images,
        `circular` for synthetic ones degraded with wrap-around. Results in the order of `images`.
        """
        results: dict[int, Restored | ItemError] = {}
        groups: dict[tuple[int, Shape], list[_Task]] = defaultdict(list)
        for index, (image, degradation) in enumerate(zip(images, degradations, strict=True)):
            try:
                task = _prepare(index, image, degradation, boundary)
            except ItemError as error:
                results[index] = error
            else:
                groups[degradation.scale, task.shape].append(task)
        for (scale, shape), tasks in groups.items():
            most = max(1, self.memory // (shape[0] * shape[1] * scale**2))
            for start in range(0, len(tasks), most):
                results.update(self._within_memory(tasks[start : start + most]))
        return [results[index] for index in range(len(images))]

    def _within_memory(self, tasks: list[_Task]) -> Iterator[tuple[int, Restored | ItemError]]:
        """Restore tasks of one scale and shape together; where memory runs out, in halves."""
        try:
            restored = self._together(tasks)
        except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
            if not _ran_out_of_memory(error):
                raise
            restored = None
        if restored is not None:
            yield from restored
        elif len(tasks) == 1:
            h, w = tasks[0].lr.shape[-2:]
            yield tasks[0].index, ItemError("out-of-memory", f"no memory for an LR image of {w}×{h} pixels")
        else:
            half = len(tasks) // 2
            yield from self._within_memory(tasks[:half])
            yield from self._within_memory(tasks[half:])

    @torch.inference_mode()
    def _together(self, tasks: list[_Task]) -> list[tuple[int, Restored | ItemError]]:
        lr = torch.stack([extend_periodic(task.lr, *task.shape) for task in tasks]).to(self.device)
        scale = tasks[0].degradation.scale
        seen = observe(lr, _stacked_kernels(tasks).to(self.device), scale)
        sigma = torch.tensor([task.degradation.sigma / 255 for task in tasks], device=self.device)
        sr = self._fast.unfold(lr, seen, sigma.view(-1, 1, 1, 1))
        bad = _is_bad(sr)
        again = bad.clone()
        if bad.any() and self.precision != "fp32":
            sr[bad] = self._exact.unfold(lr[bad], _subset(seen, bad), sigma[bad].view(-1, 1, 1, 1))
            bad &= _is_bad(sr)
        residual = torch.fft.irfft2(observed_spectrum(sr, seen) - seen.Y, s=lr.shape[-2:])
        used = ["fp32" if computed_again else self.precision for computed_again in again.tolist()]
        return [
            (task.index, _refused(task) if bad[n] else self._finish(task, sr[n], residual[n], used[n]))
            for n, task in enumerate(tasks)
        ]

    def _finish(self, task: _Task, sr: Tensor, residual: Tensor, precision: str) -> Restored:
        h, w = task.lr.shape[-2:]
        scale = task.degradation.scale
        inside = _interior(residual[:, :h, :w], task.degradation)
        rms = 255 * float(inside.square().mean().sqrt())
        return Restored(_quantize(sr[:, : h * scale, : w * scale], task.source), rms, precision)


def restore(
    net: USRNet,
    images: Sequence[Image],
    degradations: Sequence[Degradation],
    boundary: BoundaryMode = "smooth",
    *,
    precision: str = "auto",
) -> list[Image]:
    """Restore images with a network: the call for a person. The first failure is raised.

    images: (h, w, 3) or (h, w) uint8 or uint16. Returns (h·s, w·s[, 3]) arrays of the same dtype.
    Raises `ItemError` naming the image's position.
    """
    restored = []
    for position, result in enumerate(Restorer(net, precision=precision).batch(images, degradations, boundary)):
        if isinstance(result, ItemError):
            raise ItemError(result.code, f"images[{position}]: {result}")
        restored.append(result.image)
    return restored


def best_precision(device: torch.device) -> str:
    """bf16 where the hardware multiplies it natively, fp16 on older GPUs, else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def working_shape(lr_shape: Shape, degradation: Degradation, boundary: BoundaryMode) -> Shape:
    """The LR size an image is extended to: room for the kernel, HR a multiple of 8, quick to transform."""
    if boundary == "circular":
        return lr_shape
    h, w = lr_shape
    kh, kw = degradation.kernel.shape
    scale = degradation.scale
    return _extended(h, kh, scale), _extended(w, kw, scale)


def _extended(n: int, kernel_width: int, scale: int) -> int:
    n += _MARGIN_LR + math.ceil(kernel_width / scale)
    while (n * scale) % 8 or not _is_fft_friendly(n):
        n += 1
    return n


def _is_fft_friendly(n: int) -> bool:
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1


def _prepare(index: int, image: Image, degradation: Degradation, boundary: BoundaryMode) -> _Task:
    if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ItemError(
            "unsupported-mode",
            f"an image must be (h, w, 3) or (h, w) uint8 or uint16, not {image.shape} {image.dtype}",
        )
    if image.size == 0:
        raise ItemError("corrupt-image", f"the image has no pixels: {image.shape}")
    lr_shape = (image.shape[0], image.shape[1])
    shape = working_shape(lr_shape, degradation, boundary)
    kh, kw = degradation.kernel.shape
    if kh > shape[0] * degradation.scale or kw > shape[1] * degradation.scale:
        raise ItemError("bad-kernel", f"the kernel ({kh}×{kw}) is larger than the result; use boundary smooth")
    unit = torch.from_numpy(image.astype(np.float32)) / float(np.iinfo(image.dtype).max)
    lr = unit.permute(2, 0, 1) if image.ndim == 3 else unit.expand(3, -1, -1)
    return _Task(index, lr, degradation, shape, image)


def _stacked_kernels(tasks: list[_Task]) -> Tensor:
    """Kernels of different sizes embedded in the largest, origins (n//2) on top of each other."""
    kernels = [task.degradation.kernel for task in tasks]
    kh, kw = (max(k.shape[axis] for k in kernels) for axis in (0, 1))
    stacked = np.zeros((len(kernels), 1, kh, kw), np.float32)
    for n, k in enumerate(kernels):
        top, left = kh // 2 - k.shape[0] // 2, kw // 2 - k.shape[1] // 2
        stacked[n, 0, top : top + k.shape[0], left : left + k.shape[1]] = k
    return torch.from_numpy(stacked)


def _is_bad(sr: Tensor) -> Tensor:
    """(N,) bool: not finite, or so far out of [0, 1] that it is no picture."""
    flat = sr.flatten(1)
    return ~torch.isfinite(flat).all(dim=1) | (flat.abs().amax(dim=1) > 100)


def _subset(seen: Observation, which: Tensor) -> Observation:
    return Observation(seen.K[which], seen.power[which], seen.Y[which], seen.lr_shape, seen.scale)


def _refused(task: _Task) -> ItemError:
    sigma = task.degradation.sigma
    return ItemError("bad-result", f"the result is not a finite picture, even in fp32 (sigma {sigma:g})")


def _interior(residual: Tensor, degradation: Degradation) -> Tensor:
    """A kernel radius inside the border, where the extension has no say; all of a very small image."""
    dy, dx = (math.ceil(n // 2 / degradation.scale) for n in degradation.kernel.shape)
    inside = residual[..., dy : residual.shape[-2] - dy, dx : residual.shape[-1] - dx]
    return inside if inside.numel() else residual


def _quantize(sr: Tensor, source: Image) -> Image:
    """(3, H, W) float → (H, W[, 3]) in the dtype of `source`; a gray source gets the channel mean."""
    picture = sr.mean(dim=0) if source.ndim == 2 else sr.permute(1, 2, 0)
    peak = int(np.iinfo(source.dtype).max)
    levels = picture.clamp(0, 1).mul(peak).round().cpu().numpy()
    quantized: Any = levels.astype(source.dtype)
    return np.asarray(quantized)


def _on_device(net: USRNet, device: torch.device, prior_dtype: torch.dtype) -> USRNet:
    net = copy.deepcopy(net).float().eval().requires_grad_(False).to(device)
    net.p.to(prior_dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


def _ran_out_of_memory(error: BaseException) -> bool:
    """torch reports the CPU allocator's failure as a plain RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
