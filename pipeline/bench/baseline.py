"""The yardstick: USRNet run the straightforward way, as the authors' test script does.

fp32, full complex spectra, every operator computed anew for each image, one image at a time in the
default memory layout, decoding and encoding in line. Written for comparison only; the same weights
through it give the authors' numbers (a test).
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.model.usrnet import USRNet
from pipeline.records import Degradation


@torch.inference_mode()
def restored_plainly(
    net: USRNet, lr: npt.NDArray[np.uint8], degradation: Degradation, device: torch.device
) -> npt.NDArray[np.uint8]:
    """One LR image (h, w, 3) through the plain network on `device`, rounded there: (h·s, w·s, 3)."""
    y = torch.from_numpy(lr).permute(2, 0, 1)[None].float().to(device) / 255
    kernel = torch.from_numpy(degradation.kernel).float()[None, None].to(device)
    sigma = torch.full((1, 1, 1, 1), degradation.sigma / 255, device=device)
    x = plain_usrnet(net.to(device), y, kernel, degradation.scale, sigma)
    sr: npt.NDArray[np.uint8] = (x[0].permute(1, 2, 0).clamp(0, 1) * 255).round().cpu().numpy().astype(np.uint8)
    return sr


def plain_usrnet(net: USRNet, lr: Tensor, kernel: Tensor, scale: int, sigma: Tensor) -> Tensor:
    """`USRNet.forward` with the data step over full spectra (network_usrnet_v1.py, DataNet).

    lr: (N, 3, h, w); kernel: (N, 1, kh, kw); sigma: (N, 1, 1, 1). Returns (N, 3, h·s, w·s).
    """
    h, w = lr.shape[-2] * scale, lr.shape[-1] * scale
    otf = _otf(kernel, h, w)
    filled = lr.new_zeros(*lr.shape[:2], h, w)
    filled[..., ::scale, ::scale] = lr
    adjoint = otf.conj() * torch.fft.fft2(filled)
    power = otf.abs() ** 2
    alphas, betas = net.hyper_parameters(sigma, scale)
    x = F.interpolate(lr, scale_factor=scale, mode="nearest")
    for alpha, beta in zip(alphas, betas, strict=True):
        z = _data_step(x, otf, power, adjoint, alpha, scale)
        x = net.p(torch.cat((z, beta.expand(-1, 1, h, w)), dim=1))
    return x


def _data_step(x: Tensor, otf: Tensor, power: Tensor, adjoint: Tensor, alpha: Tensor, scale: int) -> Tensor:
    """Eq. 7 of the paper: ((Fᴴd − conj(K)·(K·Fᴴd)⇓ / ((|K|²)⇓ + α))) / α, d = conj(K)·F(y↑) + α·F(x)."""
    numerator = adjoint + torch.fft.fft2(alpha * x)
    quotient = _mean_of_blocks(otf * numerator, scale) / (_mean_of_blocks(power, scale) + alpha)
    solved = (numerator - otf.conj() * quotient.repeat(1, 1, scale, scale)) / alpha
    z: Tensor = torch.fft.ifft2(solved).real
    return z


def _mean_of_blocks(spectrum: Tensor, scale: int) -> Tensor:
    """Mean over the scale × scale blocks of a full spectrum: (N, C, H, W) → (N, C, h, w)."""
    n, c, height, width = spectrum.shape
    blocks = spectrum.reshape(n, c, scale, height // scale, scale, width // scale)
    mean: Tensor = blocks.mean(dim=(2, 4))
    return mean


def _otf(kernel: Tensor, height: int, width: int) -> Tensor:
    kh, kw = kernel.shape[-2:]
    psf = kernel.new_zeros(*kernel.shape[:-2], height, width)
    psf[..., :kh, :kw] = kernel
    transfer: Tensor = torch.fft.fft2(torch.roll(psf, (-(kh // 2), -(kw // 2)), dims=(-2, -1)))
    return transfer
