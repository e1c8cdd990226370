"""USRNet's data module D: the closed-form data step, which has no weights.

Solves (USRNet, eq. 7; authors: network_usrnet_v1.py, DataNet)

    z = argmin_z  ||y - (z ⊗ k)↓s||² + α ||z - x||²

With H = decimate∘blur, the matrix inversion lemma turns the normal equations
(HᵀH + αI) z = Hᵀy + αx into

    z = x + Hᵀ (HHᵀ + αI)⁻¹ (y - Hx)

and HHᵀ is diagonal in the LR Fourier domain (Zhao et al. 2016): the folded power |K|². This form
is the authors' equation rearranged: it never divides by α alone, so it stays accurate in fp32.

    x  HR estimate   y  LR image   K  OTF of k   s  scale   α  trade-off, larger trusts x more
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.physics.fourier import Shape, fold, otf, tile


@dataclass(frozen=True)
class Observation:
    """What the data step needs of (y, k, s) and what does not change over the iterations.

    K: (N, 1, H, W//2+1) complex. power: (N, 1, h, w//2+1) real, fold(|K|²).
    Y: (N, C, h, w//2+1) complex. lr_shape: (h, w). scale: s.
    """

    K: Tensor
    power: Tensor
    Y: Tensor
    lr_shape: Shape
    scale: int


def observe(lr: Tensor, kernel: Tensor, scale: int) -> Observation:
    """lr: (N, C, h, w) real; kernel: (N, 1, kh, kw); scale: s. ValueError for a kernel too large."""
    h, w = lr.shape[-2:]
    K = otf(kernel, (h * scale, w * scale))
    power = fold((K.real**2 + K.imag**2).to(K.dtype), (h, w), scale).real
    return Observation(K, power, torch.fft.rfft2(lr), (h, w), scale)


def data_step(x: Tensor, seen: Observation, alpha: Tensor) -> Tensor:
    """z of the module's equation. x: (N, C, H, W) real; alpha: (N, 1, 1, 1) > 0. Returns like x."""
    residual = seen.Y - observed_spectrum(x, seen)
    correction = tile(residual / (seen.power + alpha), seen.lr_shape, seen.scale)
    z: Tensor = x + torch.fft.irfft2(seen.K.conj() * correction, s=x.shape[-2:])
    return z


def observed_spectrum(x: Tensor, seen: Observation) -> Tensor:
    """Spectrum of Hx = (x ⊗ k)↓s: (N, C, H, W) real → (N, C, h, w//2+1) complex."""
    return fold(seen.K * torch.fft.rfft2(x), seen.lr_shape, seen.scale)
