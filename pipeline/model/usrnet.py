"""USRNet: half-quadratic splitting unfolded into n iterations of data step and denoiser.

    α, β = H(σ, s)                       hyper-parameter module, an MLP
    x_0  = nearest-neighbour(y)
    z_k  = D(x_{k-1}, y, k, s, α_k)      data module, closed form (pipeline.physics.data_step)
    x_k  = P(z_k, β_k)                   prior module, a ResUNet (pipeline.model.prior)

Zhang, Van Gool, Timofte: Deep Unfolding Network for Image Super-Resolution, CVPR 2020 (fig. 2).
The FFT runs in the input's precision, the prior in that of its weights.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.model.prior import ResUNet
from pipeline.physics.data_step import Observation, data_step, observe

Denoise = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Architecture:
    """What distinguishes one USRNet from another; read off a checkpoint's tensor shapes."""

    iterations: int = 8
    hidden: int = 64
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    blocks: int = 2


TINY = Architecture(iterations=6, hidden=32, widths=(16, 32, 64, 64))


class HyperParameters(nn.Module):
    """H: (N, 2, 1, 1) of (σ, s) → (N, 2n, 1, 1) positive, first the n α, then the n β."""

    def __init__(self, iterations: int, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Conv2d(2, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, 2 * iterations, 1),
            nn.Softplus(),
        )

    def forward(self, sigma_scale: Tensor) -> Tensor:
        positive: Tensor = self.mlp(sigma_scale)
        return positive + 1e-6


class USRNet(nn.Module):
    """One set of weights for every kernel, integer scale and noise level."""

    def __init__(self, architecture: Architecture = Architecture()) -> None:
        super().__init__()
        self.architecture = architecture
        self.p = ResUNet(architecture.widths, architecture.blocks)
        self.h = HyperParameters(architecture.iterations, architecture.hidden)

    def forward(self, lr: Tensor, kernel: Tensor, scale: int, sigma: Tensor) -> Tensor:
        """Restore a batch that shares one scale.

        lr: (N, 3, h, w) float in [0, 1]. kernel: (N, 1, kh, kw), sum 1, origin at (kh//2, kw//2),
        kh <= h·scale, kw <= w·scale. scale: integer >= 1. sigma: (N, 1, 1, 1) or (N,), noise
        standard deviation in [0, 1]. Returns (N, 3, h·scale, w·scale), not clamped.
        Raises ValueError when the shapes or the scale cannot be.
        """
        _check(lr, kernel, scale, sigma)
        kernel, sigma = kernel.to(lr.dtype), sigma.to(lr.dtype).reshape(-1, 1, 1, 1)
        return self.unfold(lr, observe(lr, kernel, int(scale)), sigma)

    def unfold(self, lr: Tensor, seen: Observation, sigma: Tensor, denoise: Denoise | None = None) -> Tensor:
        """`forward` for an image whose `Observation` is at hand. sigma: (N, 1, 1, 1).

        denoise: (z, β) → x, another way to compute the prior than `self.denoise`.
        """
        denoise = denoise or self.denoise
        alphas, betas = self.hyper_parameters(sigma, seen.scale)
        x = F.interpolate(lr, scale_factor=seen.scale, mode="nearest")
        for alpha, beta in zip(alphas, betas, strict=True):
            z = data_step(x, seen, alpha)
            x = denoise(z, beta)
        return x

    def hyper_parameters(self, sigma: Tensor, scale: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """sigma: (N, 1, 1, 1). Returns n alphas and n betas, each (N, 1, 1, 1)."""
        sigma_scale = torch.cat((sigma, torch.full_like(sigma, scale)), dim=1)
        with torch.autocast(sigma.device.type, enabled=False):  # half precision is too coarse for α
            positive: Tensor = self.h(sigma_scale.to(self.h.mlp[0].get_parameter("weight").dtype))
        values, n = torch.split(positive.to(sigma.dtype), 1, dim=1), self.architecture.iterations
        return values[:n], values[n:]

    def denoise(self, z: Tensor, beta: Tensor) -> Tensor:
        """P(z, β) in the precision of the prior's weights. z: (N, 3, H, W); returns like z."""
        weight = self.p.m_head.weight
        z_beta = torch.cat((z, beta.expand(-1, 1, *z.shape[-2:])), dim=1).to(weight.dtype)
        denoised: Tensor = self.p(z_beta)
        return denoised.to(z.dtype)


def _check(lr: Tensor, kernel: Tensor, scale: int, sigma: Tensor) -> None:
    if lr.ndim != 4 or lr.shape[1] != 3:
        raise ValueError(f"lr must be (N, 3, h, w), not {tuple(lr.shape)}")
    n = lr.shape[0]
    if kernel.ndim != 4 or kernel.shape[:2] != (n, 1):
        raise ValueError(f"kernel must be ({n}, 1, kh, kw), not {tuple(kernel.shape)}")
    if sigma.numel() != n:
        raise ValueError(f"sigma must hold {n} values, not {sigma.numel()}")
    if int(scale) != scale or scale < 1:
        raise ValueError(f"scale must be an integer >= 1, not {scale!r}")
