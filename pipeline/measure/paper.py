"""The USRNet paper's tables, cell by cell, with every quirk of the authors' scripts in one place.

Table 1, any kernel (main_test_table1.py):

    HR cropped to a multiple of lcm(scale, 8)
    blurred as uint8: scipy.ndimage.convolve wraps around and truncates to whole grey levels
    decimated from the upper left, divided by 255, noise added and not rounded
    SR clamped to [0, 1], rounded to 8 bits; PSNR over RGB, scale² pixels left out on each side

Table 2, bicubic degradation (main_test_bicubic.py):

    HR cropped to a multiple of scale
    shrunk by MATLAB's antialiased bicubic, edges mirrored, neither clipped nor rounded
    extended by at least 16 HR pixels to a periodic image (here by `physics.boundary`, where the
    authors use Liu and Jia's), restored with a bicubic kernel at sigma 0
    SR clamped and rounded; PSNR and SSIM of Y, scale pixels left out on each side

Quirks are kept because published figures hold them; `pipeline.physics.degradation` is the clean
degradation. Knows no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from pipeline.measure.metrics import luma, psnr, ssim_y
from pipeline.model.usrnet import USRNet
from pipeline.physics.boundary import extend_periodic
from pipeline.physics.degradation import degrade
from pipeline.physics.kernels import parse_kernel
from pipeline.physics.resample import upscale_bicubic

HrImage = npt.NDArray[np.uint8]  # (h, w, 3)
Lr = npt.NDArray[np.float32]  # (h, w, 3), white at 1
Sr = npt.NDArray[np.floating]
Kernel = npt.NDArray[np.float64]  # (kh, kw), sum 1


@dataclass(frozen=True)
class Scores:
    """How near one SR image is to its HR image: PSNR over RGB and of Y in dB, SSIM of Y."""

    psnr_rgb_db: float
    psnr_y_db: float
    ssim_y: float


def table1_scores(
    net: USRNet | None, hr: HrImage, kernel: Kernel, scale: int, sigma_255: float = 0.0, seed: int = 0
) -> Scores:
    """One image of a cell of Table 1; net None measures bicubic enlargement, on decimation's grid."""
    hr = _cropped(hr, int(np.lcm(scale, 8)))
    lr = degrade_as_in_table1(hr, kernel, scale, sigma_255, seed)
    if net is None:
        sr: Sr = upscale_bicubic(lr, scale, "corner")
    else:
        sr = restore_lr(net, lr, kernel, scale, sigma_255)
    return _scores(sr, hr, border=scale**2)


def table2_scores(net: USRNet | None, hr: HrImage, scale: int, kernel: Kernel | None = None) -> Scores:
    """One image of a cell of Table 2; net None measures bicubic enlargement.

    kernel: what the network is told; None takes the analytic bicubic kernel, where the authors have
    one that was fitted.
    """
    hr = _cropped(hr, scale)
    lr = degrade_as_in_table2(hr, scale)
    if net is None:
        return _scores(upscale_bicubic(lr, scale, "center"), hr, border=scale)
    h, w = lr.shape[:2]
    wider = [_extended(n, scale) for n in (h, w)]
    periodic = extend_periodic(torch.from_numpy(lr).permute(2, 0, 1), *wider).permute(1, 2, 0).numpy()
    sr = restore_lr(net, periodic, parse_kernel("bicubic", scale) if kernel is None else kernel, scale)
    return _scores(sr[: h * scale, : w * scale], hr, border=scale)


def degrade_as_in_table2(hr: HrImage, scale: int) -> Lr:
    """(h, w, 3) uint8, sides multiples of scale → (h/scale, w/scale, 3) float32, white at 1."""
    lr = degrade(hr / 255, parse_kernel("bicubic", scale), scale, 0.0, boundary="reflect")
    return np.asarray(lr, np.float32)


def table1_cell(
    net: USRNet | None,
    hr_images: Sequence[HrImage],
    kernel: Kernel,
    scale: int,
    sigma_255: float = 0.0,
    seed: int = 0,
) -> float:
    """Mean PSNR in dB of `net` over `hr_images`, degraded by one kernel, scale and noise level.

    net: None measures bicubic enlargement. sigma_255: noise in grey levels; each image's starts from `seed`.
    """
    scores = [table1_scores(net, hr, kernel, scale, sigma_255, seed) for hr in hr_images]
    return float(np.mean([score.psnr_rgb_db for score in scores]))


def degrade_as_in_table1(hr: HrImage, kernel: Kernel, scale: int, sigma_255: float = 0.0, seed: int = 0) -> Lr:
    """(h, w, 3) uint8, sides multiples of scale → (h/scale, w/scale, 3) float32, white at 1."""
    blurred = ndimage.convolve(hr, kernel[:, :, None], mode="wrap")
    lr = np.float32(blurred[::scale, ::scale] / 255)
    noise = np.random.RandomState(seed).normal(0, sigma_255 / 255, lr.shape)  # the authors' generator
    return np.asarray(lr + noise, np.float32)


def restore_lr(net: USRNet, lr: Lr, kernel: Kernel, scale: int, sigma_255: float = 0.0) -> Sr:
    """`net` on one periodic LR image, as it is: (h, w, 3) → (h·scale, w·scale, 3), not clamped."""
    like = next(net.parameters())
    y = torch.from_numpy(lr).to(like).permute(2, 0, 1)[None]
    k = torch.from_numpy(kernel).to(like)[None, None]
    with torch.inference_mode():
        sr = net(y, k, scale, like.new_full((1,), sigma_255 / 255))
    return np.asarray(sr[0].permute(1, 2, 0).cpu().numpy())


def _scores(sr: Sr, hr: HrImage, border: int) -> Scores:
    rounded = np.round(sr.clip(0, 1) * 255).astype(np.uint8)
    y = [luma(image) for image in (rounded, hr)]
    return Scores(psnr(rounded, hr, border=border), psnr(y[0], y[1], border=border), ssim_y(rounded, hr, border=border))


def _extended(n: int, scale: int) -> int:
    """LR pixels that give at least the authors' HR size, and one that the network's prior divides."""
    n = ceil(8 * ceil(n * scale / 8 + 2) / scale)
    while n * scale % 8:
        n += 1
    return n


def _cropped(hr: HrImage, multiple: int) -> HrImage:
    h, w = (n - n % multiple for n in hr.shape[:2])
    return hr[:h, :w]
