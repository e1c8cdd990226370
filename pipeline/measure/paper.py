"""Table 1 of the USRNet paper, cell by cell, with every quirk of the authors' script in one place.

    HR cropped to a multiple of lcm(scale, 8)
    blurred as uint8: scipy.ndimage.convolve wraps around and truncates to whole grey levels
    decimated from the upper left, divided by 255, noise added and not rounded
    SR clamped to [0, 1], rounded to 8 bits; PSNR over RGB, scale² pixels left out on each side

Quirks are kept because published figures hold them; `pipeline.physics.degradation` is the clean
degradation. Knows no file.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from pipeline.measure.metrics import psnr
from pipeline.model.usrnet import USRNet
from pipeline.physics.resample import upscale_bicubic

HrImage = npt.NDArray[np.uint8]  # (h, w, 3)
Lr = npt.NDArray[np.float32]  # (h, w, 3), white at 1
Sr = npt.NDArray[np.floating]


def table1_cell(
    net: USRNet,
    hr_images: Sequence[HrImage],
    kernel: npt.NDArray[np.float64],
    scale: int,
    sigma_255: float = 0.0,
    seed: int = 0,
) -> float:
    """Mean PSNR in dB of `net` over `hr_images`, degraded by one kernel, scale and noise level.

    kernel: (kh, kw), sum 1. sigma_255: noise in grey levels; each image's starts from `seed`.
    """

    def restore(lr: Lr) -> Sr:
        return restore_lr(net, lr, kernel, scale, sigma_255)

    return _mean_psnr(restore, hr_images, kernel, scale, sigma_255, seed)


def bicubic_cell(
    hr_images: Sequence[HrImage],
    kernel: npt.NDArray[np.float64],
    scale: int,
    sigma_255: float = 0.0,
    seed: int = 0,
) -> float:
    """The same cell for bicubic enlargement, on the grid that the decimation keeps."""

    def enlarge(lr: Lr) -> Sr:
        return upscale_bicubic(lr, scale, "corner")

    return _mean_psnr(enlarge, hr_images, kernel, scale, sigma_255, seed)


def degrade_as_in_table1(
    hr: HrImage, kernel: npt.NDArray[np.float64], scale: int, sigma_255: float = 0.0, seed: int = 0
) -> Lr:
    """(h, w, 3) uint8, sides multiples of scale → (h/scale, w/scale, 3) float32, white at 1."""
    blurred = ndimage.convolve(hr, kernel[:, :, None], mode="wrap")
    lr = np.float32(blurred[::scale, ::scale] / 255)
    noise = np.random.RandomState(seed).normal(0, sigma_255 / 255, lr.shape)  # the authors' generator
    return np.asarray(lr + noise, np.float32)


def restore_lr(net: USRNet, lr: Lr, kernel: npt.NDArray[np.float64], scale: int, sigma_255: float = 0.0) -> Sr:
    """`net` on one periodic LR image, as it is: (h, w, 3) → (h·scale, w·scale, 3), not clamped."""
    like = next(net.parameters())
    y = torch.from_numpy(lr).to(like).permute(2, 0, 1)[None]
    k = torch.from_numpy(kernel).to(like)[None, None]
    with torch.inference_mode():
        sr = net(y, k, scale, like.new_full((1,), sigma_255 / 255))
    return np.asarray(sr[0].permute(1, 2, 0).cpu().numpy())


def _mean_psnr(
    restore: Callable[[Lr], Sr],
    hr_images: Sequence[HrImage],
    kernel: npt.NDArray[np.float64],
    scale: int,
    sigma_255: float,
    seed: int,
) -> float:
    scores = []
    for hr in hr_images:
        hr = _cropped(hr, int(np.lcm(scale, 8)))
        sr = restore(degrade_as_in_table1(hr, kernel, scale, sigma_255, seed))
        scores.append(psnr(np.round(sr.clip(0, 1) * 255), hr, border=scale**2))
    return float(np.mean(scores))


def _cropped(hr: HrImage, multiple: int) -> HrImage:
    h, w = (n - n % multiple for n in hr.shape[:2])
    return hr[:h, :w]
