"""Blur, decimation and their adjoints on half spectra, in torch.

A real (H, W) image has the half spectrum (H, W//2 + 1) that `torch.fft.rfft2` gives; every
operator here maps half spectra to half spectra. Legend:

    N, C     batch and channels         s         scale
    h, w     LR size                    H, W      HR size, s·h and s·w
    fold     the spectrum of decimation: the mean over the s×s blocks of the full spectrum
    tile     the spectrum of zero-fill: the LR spectrum repeated s×s times; s²·fold's adjoint

Knows no network, no file.
"""

from functools import lru_cache

import torch
from torch import Tensor

Shape = tuple[int, int]


def otf(kernel: Tensor, shape: Shape) -> Tensor:
    """Optical transfer function of a PSF whose origin is at (kh//2, kw//2).

    kernel: (N, 1, kh, kw) real, kh <= H, kw <= W. shape: (H, W). Returns (N, 1, H, W//2+1) complex.
    Raises ValueError when the kernel is larger than the image.
    """
    kh, kw = kernel.shape[-2:]
    if kh > shape[0] or kw > shape[1]:
        raise ValueError(f"the kernel ({kh}×{kw}) is larger than the HR image ({shape[0]}×{shape[1]})")
    psf = kernel.new_zeros(*kernel.shape[:-2], *shape)
    psf[..., :kh, :kw] = kernel
    psf = torch.roll(psf, (-(kh // 2), -(kw // 2)), dims=(-2, -1))
    transfer: Tensor = torch.fft.rfft2(psf)
    return transfer


def fold(spectrum: Tensor, lr_shape: Shape, scale: int) -> Tensor:
    """Spectrum of `x[..., ::s, ::s]` from the spectrum of x.

    spectrum: (..., H, W//2+1) complex. Returns (..., h, w//2+1).
    """
    if scale == 1:
        return spectrum
    h, w = lr_shape
    outer, stored = spectrum.shape[:-2], spectrum.shape[-1]
    rows = spectrum.reshape(*outer, scale, h, stored).mean(dim=-3)  # (..., h, W//2+1)
    source, mirrored = _fold_columns(w, scale, spectrum.device)
    blocks = torch.where(mirrored, _mirror_rows(rows)[..., source], rows[..., source])
    return blocks.reshape(*outer, h, scale, w // 2 + 1).mean(dim=-2)


def tile(spectrum: Tensor, lr_shape: Shape, scale: int) -> Tensor:
    """Spectrum of the zero-filled image (y at the upper left of each block) from that of y.

    spectrum: (..., h, w//2+1) complex. Returns (..., H, W//2+1).
    """
    if scale == 1:
        return spectrum
    source, mirrored = _tile_columns(lr_shape[1], scale, spectrum.device)
    row = torch.where(mirrored, _mirror_rows(spectrum)[..., source], spectrum[..., source])
    return row.repeat(*[1] * (row.ndim - 2), scale, 1)


def blur(x: Tensor, kernel: Tensor) -> Tensor:
    """Circular convolution. x: (N, C, H, W); kernel: (N, 1, kh, kw). Returns (N, C, H, W)."""
    shape = (x.shape[-2], x.shape[-1])
    blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * otf(kernel, shape), s=shape)
    return blurred


def decimate(x: Tensor, scale: int) -> Tensor:
    """Keep the upper-left pixel of each s×s block: (..., H, W) → (..., h, w)."""
    return x[..., ::scale, ::scale]


def zero_fill(y: Tensor, scale: int) -> Tensor:
    """Adjoint of `decimate`: (..., h, w) → (..., H, W), zeros between the pixels."""
    x = y.new_zeros(*y.shape[:-2], y.shape[-2] * scale, y.shape[-1] * scale)
    x[..., ::scale, ::scale] = y
    return x


def _mirror_rows(spectrum: Tensor) -> Tensor:
    """X*(-u) along the rows: with the mirrored column this is the unstored half of a real signal."""
    return torch.roll(spectrum.flip(-2), 1, dims=-2).conj()


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a cached inference tensor would break a later training's gradients
def _fold_columns(w: int, scale: int, device: torch.device) -> tuple[Tensor, Tensor]:
    width = scale * w
    columns = (torch.arange(scale)[:, None] * w + torch.arange(w // 2 + 1)).flatten()
    mirrored = columns > width // 2
    return torch.where(mirrored, width - columns, columns).to(device), mirrored.to(device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _tile_columns(w: int, scale: int, device: torch.device) -> tuple[Tensor, Tensor]:
    columns = torch.arange(scale * w // 2 + 1) % w
    mirrored = columns > w // 2
    return torch.where(mirrored, w - columns, columns).to(device), mirrored.to(device)
