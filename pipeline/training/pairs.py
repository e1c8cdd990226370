"""Training pairs made on the fly: the loader crops, the device degrades as in eq. 1, in batches.

The recipe is the authors' (KAIR, data/dataset_usrnet.py): one scale a batch from {1, 2, 3, 4},
half motion and half Gaussian kernels, sigma uniform in 0-25 with one in eight exactly 0, flips and
rotations. Different here: the blurred image is rounded to 8 bits (theirs is truncated), flat crops
(sky, fog) are drawn again, and one in eight is gray with gray noise, as it will come from gray images
whose one channel is given to the network three times.

Every sample is drawn from its own seed, made of the recipe's seed, the step and its number in the
batch. So there is no random state to keep, and how many workers and loaders share a batch changes
nothing. Knows no file: photographs come as arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.physics.fourier import blur, decimate
from pipeline.physics.kernels import Kernel, random_gaussian_kernel, random_motion_kernel
from pipeline.training.recipe import Recipe

Photograph = npt.NDArray[np.uint8]  # (h, w, 3)
OwnKernels = Mapping[int, Sequence[Kernel]]  # by scale, for corner decimation

KERNEL_SIZE = 25
FLAT = 6.0  # a crop whose luma deviates less (grey levels) teaches nothing


class Crops(NamedTuple):
    """What the loader makes of a step.

    hr: (n, H, W, 3) uint8. kernel: (n, 1, k, k) float32. sigma: (n,) float32 in [0, 1].
    gray: (n,) bool. seed: (n,) int64, of the noise. All share one scale.
    """

    hr: Tensor
    kernel: Tensor
    sigma: Tensor
    gray: Tensor
    seed: Tensor
    scale: int


@dataclass(frozen=True)
class Pairs:
    """One batch. hr (N,3,H,W), lr (N,3,H/s,W/s), kernel (N,1,k,k), sigma (N,1,1,1) in [0, 1]."""

    hr: Tensor
    lr: Tensor
    kernel: Tensor
    sigma: Tensor
    scale: int


@dataclass(frozen=True)
class Share:
    """Which part of every batch is this worker's: its rank among `world` workers."""

    rank: int = 0
    world: int = 1


ALONE = Share()


class Source(torch.utils.data.Dataset[Crops]):
    """The crops of every step, by its number: `source[step]`.

    photographs: each at least recipe.patch pixels high and wide. kernels: the archive's own, at
    most recipe.patch wide. Raises ValueError when a photograph is too small, a kernel too large, the
    patch no multiple of a scale, or the batch no multiple of the workers.
    """

    def __init__(
        self,
        photographs: Sequence[Photograph],
        recipe: Recipe,
        kernels: OwnKernels | None = None,
        share: Share = ALONE,
    ) -> None:
        self.photographs, self.recipe, self.kernels, self.share = photographs, recipe, kernels or {}, share
        _check(photographs, recipe, self.kernels, share)
        self.kernel_size = max([KERNEL_SIZE, *(max(k.shape) | 1 for some in self.kernels.values() for k in some)])
        self._areas = np.cumsum([float(p.shape[0]) * p.shape[1] for p in photographs])

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, step: int) -> Crops:
        scales = self.recipe.degradations.scales
        scale = int(np.random.default_rng((self.recipe.seed, step)).choice(scales))
        return self.crops(step, scale)

    def crops(self, step: int, scale: int) -> Crops:
        """The crops of `step`, to be degraded with `scale` rather than the one drawn."""
        each = self.recipe.batch // self.share.world
        numbers = range(self.share.rank * each, (self.share.rank + 1) * each)
        return _stacked([self._sample(step, number, scale) for number in numbers], scale)

    def _sample(self, step: int, number: int, scale: int) -> "_Sample":
        # A seed sequence ignores trailing zeros, so numbers start at 1: (s, t, 0) would be (s, t).
        rng = np.random.default_rng((self.recipe.seed, step, number + 1))
        known = self.recipe.degradations
        hr = _crop(self.photographs, self._areas, rng, self.recipe.patch)
        sigma = 0.0 if rng.random() < known.noiseless else rng.uniform(known.sigma_min, known.sigma_max) / 255
        gray, seed = bool(rng.random() < known.gray), int(rng.integers(2**63))
        return _Sample(hr, self._kernel(rng, scale), sigma, gray, seed)

    def _kernel(self, rng: np.random.Generator, scale: int) -> Kernel:
        own = self.kernels.get(scale)
        if own and rng.random() < self.recipe.degradations.own_kernels:
            return _centred(own[int(rng.integers(len(own)))], self.kernel_size)
        draw = random_motion_kernel if rng.random() < 0.5 else random_gaussian_kernel
        return _centred(draw(rng, KERNEL_SIZE), self.kernel_size)


def degraded(crops: Crops, device: torch.device | str = "cpu") -> Pairs:
    """The pairs of `crops`, made on `device`: blurred circularly, decimated, rounded to 8 bits, noise added."""
    hr, kernel, sigma, gray = (
        part.to(device, non_blocking=True) for part in (crops.hr, crops.kernel, crops.sigma, crops.gray)
    )
    hr = hr.permute(0, 3, 1, 2).float() / 255
    sigma, gray = sigma.view(-1, 1, 1, 1), gray.view(-1, 1, 1, 1)
    hr = torch.where(gray, torch.round(hr.mean(dim=1, keepdim=True) * 255) / 255, hr)
    clean = torch.round(decimate(blur(hr, kernel), crops.scale) * 255) / 255
    noise = torch.stack([_noise(int(seed), clean) for seed in crops.seed.tolist()])
    noise = torch.where(gray, noise[:, :1], noise)
    return Pairs(hr, clean + sigma * noise, kernel, sigma, crops.scale)


class _Sample(NamedTuple):
    hr: Photograph
    kernel: Kernel
    sigma: float
    gray: bool
    seed: int


def _stacked(samples: Sequence[_Sample], scale: int) -> Crops:
    return Crops(
        hr=torch.from_numpy(np.stack([sample.hr for sample in samples])),
        kernel=torch.from_numpy(np.stack([sample.kernel for sample in samples])[:, None].astype(np.float32)),
        sigma=torch.tensor([sample.sigma for sample in samples], dtype=torch.float32),
        gray=torch.tensor([sample.gray for sample in samples]),
        seed=torch.tensor([sample.seed for sample in samples], dtype=torch.int64),
        scale=scale,
    )


def _noise(seed: int, like: Tensor) -> Tensor:
    """White noise of standard deviation 1, (3, h, w), that depends on the seed and the kind of device alone."""
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(like.shape[1:], generator=generator, device=like.device)


def _centred(kernel: Kernel, size: int) -> Kernel:
    """The kernel amid zeros, (size, size) with size odd, its origin at size//2."""
    out = np.zeros((size, size))
    top, left = (size // 2 - n // 2 for n in kernel.shape)
    out[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
    return out


def _crop(
    photographs: Sequence[Photograph], areas: npt.NDArray[np.float64], rng: np.random.Generator, patch: int
) -> Photograph:
    for _ in range(8):
        photo = photographs[int(np.searchsorted(areas, rng.random() * areas[-1], side="right"))]
        top, left = (rng.integers(0, n - patch + 1) for n in photo.shape[:2])
        crop = photo[top : top + patch, left : left + patch]
        if crop.mean(axis=2).std() > FLAT:
            break
    crop = np.rot90(crop, int(rng.integers(4)))
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


def _check(photographs: Sequence[Photograph], recipe: Recipe, kernels: OwnKernels, share: Share) -> None:
    patch = recipe.patch
    if not photographs:
        raise ValueError("there is no photograph to train on")
    small = [p.shape[:2] for p in photographs if min(p.shape[:2]) < patch]
    if small:
        raise ValueError(f"{len(small)} photographs are smaller than the patch of {patch}, the first is {small[0]}")
    if any(patch % scale for scale in recipe.degradations.scales):
        raise ValueError(f"the patch of {patch} is no multiple of every scale in {recipe.degradations.scales}")
    widest = max((max(k.shape) for some in kernels.values() for k in some), default=0)
    if widest > patch - 1 + patch % 2:
        raise ValueError(f"a kernel is {widest} pixels wide, more than the patch of {patch} can hold")
    if recipe.batch % share.world:
        raise ValueError(f"the batch of {recipe.batch} cannot be shared evenly by {share.world} workers")
