"""Training pairs made on the fly: clean HR crops, degraded as in eq. 1 on the device, in batches.

The recipe is the authors' (KAIR, data/dataset_usrnet.py): one scale a batch from {1, 2, 3, 4},
half motion and half Gaussian kernels, sigma uniform in 0-25 with one in eight exactly 0, flips and
rotations. Different here: the blurred image is rounded to 8 bits (theirs is truncated), flat crops
(sky, fog) are drawn again, and one in eight is gray with gray noise, as it will come from gray images
whose one channel is given to the network three times.

Knows no file: photographs come as arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.physics.fourier import blur, decimate
from pipeline.physics.kernels import random_gaussian_kernel, random_motion_kernel

Photograph = npt.NDArray[np.uint8]  # (h, w, 3)

SCALES = (1, 2, 3, 4)
SIGMA_MAX = 25.0
KERNEL_SIZE = 25
FLAT = 6.0  # a crop whose luma deviates less (grey levels) teaches nothing


@dataclass(frozen=True)
class Pairs:
    """One batch. hr (N,3,H,W), lr (N,3,H/s,W/s), kernel (N,1,25,25), sigma (N,1,1,1) in [0, 1]."""

    hr: Tensor
    lr: Tensor
    kernel: Tensor
    sigma: Tensor
    scale: int


def draw_pairs(
    photographs: Sequence[Photograph],
    rng: np.random.Generator,
    *,
    batch: int,
    patch: int,
    device: torch.device | str = "cpu",
    scale: int | None = None,
) -> Pairs:
    """`batch` random crops of patch×patch pixels, degraded with one scale (drawn when not given).

    patch must be a multiple of every scale; photographs are at least patch pixels each way.
    All randomness comes from `rng`, so the same state draws the same pairs.
    """
    scale = scale or int(rng.choice(SCALES))
    crops = np.stack([_crop(photographs, rng, patch) for _ in range(batch)])
    kernels = np.stack([_kernel(rng) for _ in range(batch)])
    sigma = np.where(rng.random(batch) < 1 / 8, 0.0, rng.uniform(0, SIGMA_MAX, batch)) / 255
    noise = rng.standard_normal((batch, 3, patch // scale, patch // scale), dtype=np.float32)
    gray = rng.random(batch) < 1 / 8
    crops[gray] = crops[gray].mean(axis=3, keepdims=True).round()
    noise[gray] = noise[gray][:, :1]

    def tensor(array: npt.NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(array.astype(np.float32)).to(device)

    hr = torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).float() / 255
    kernel, level = tensor(kernels)[:, None], tensor(sigma).view(-1, 1, 1, 1)
    blurred = torch.round(decimate(blur(hr, kernel), scale) * 255) / 255
    return Pairs(hr, blurred + level * tensor(noise), kernel, level, scale)


def _kernel(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    draw = random_motion_kernel if rng.random() < 0.5 else random_gaussian_kernel
    return draw(rng, KERNEL_SIZE)


def _crop(photographs: Sequence[Photograph], rng: np.random.Generator, patch: int) -> Photograph:
    areas = np.array([p.shape[0] * p.shape[1] for p in photographs], dtype=np.float64)
    for _ in range(8):
        photo = photographs[rng.choice(len(photographs), p=areas / areas.sum())]
        top, left = (rng.integers(0, n - patch + 1) for n in photo.shape[:2])
        crop = photo[top : top + patch, left : left + patch]
        if crop.mean(axis=2).std() > FLAT:
            break
    crop = np.rot90(crop, int(rng.integers(4)))
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)
