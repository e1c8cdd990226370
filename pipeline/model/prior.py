"""USRNet's prior module P: a ResUNet that denoises z given the noise map β.

Attribute names are those of the authors' state dicts (network_usrnet_v1.py, ResUNet), so that
public checkpoints load unchanged and ours load in the authors' code.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResUNet(nn.Module):
    """Four scales, residual blocks, additive skips, no biases; (N, 4, H, W) → (N, 3, H, W).

    widths: channels of the four scales. blocks: residual blocks per scale.
    The input's last channel is β; any H, W (padded to multiples of 8 by edge repetition, cropped).
    """

    def __init__(self, widths: tuple[int, int, int, int] = (64, 128, 256, 512), blocks: int = 2) -> None:
        super().__init__()
        self.m_head = _conv(4, widths[0])
        self.m_down1 = _down(widths[0], widths[1], blocks)
        self.m_down2 = _down(widths[1], widths[2], blocks)
        self.m_down3 = _down(widths[2], widths[3], blocks)
        self.m_body = nn.Sequential(*(ResBlock(widths[3]) for _ in range(blocks)))
        self.m_up3 = _up(widths[3], widths[2], blocks)
        self.m_up2 = _up(widths[2], widths[1], blocks)
        self.m_up1 = _up(widths[1], widths[0], blocks)
        self.m_tail = _conv(widths[0], 3)

    def forward(self, z_beta: Tensor) -> Tensor:
        h, w = z_beta.shape[-2:]
        x = F.pad(z_beta, (0, -w % 8, 0, -h % 8), mode="replicate") if h % 8 or w % 8 else z_beta
        x1 = self.m_head(x)
        x2 = self.m_down1(x1)
        x3 = self.m_down2(x2)
        x4 = self.m_down3(x3)
        x = self.m_body(x4)
        x = self.m_up3(x + x4)
        x = self.m_up2(x + x3)
        x = self.m_up1(x + x2)
        rgb: Tensor = self.m_tail(x + x1)
        return rgb[..., :h, :w]


class ResBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.res = nn.Sequential(_conv(width, width), nn.ReLU(inplace=True), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.res(x)
        return residual + x


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def _down(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    halve = nn.Conv2d(inputs, outputs, 2, stride=2, bias=False)
    return nn.Sequential(*(ResBlock(inputs) for _ in range(blocks)), halve)


def _up(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    double = nn.ConvTranspose2d(inputs, outputs, 2, stride=2, bias=False)
    return nn.Sequential(double, *(ResBlock(outputs) for _ in range(blocks)))


@torch.no_grad()
def initialize_as_identity(prior: ResUNet, gain: float = 0.2) -> None:
    """Start from P(z, β) = z: RGB passes along the outermost skip, all else is small.

    Untrained, USRNet is then a plain half-quadratic-splitting solver, which trains far sooner than
    from the authors' orthogonal initialisation. gain: what is left of the default initialisation.
    """
    for name, weight in prior.named_parameters():
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
        weight.mul_(0.1 if name.endswith("res.2.weight") else gain)
    for rgb in range(3):
        prior.m_head.weight[rgb] = 0
        prior.m_head.weight[rgb, rgb, 1, 1] = 1
        prior.m_tail.weight[rgb] *= 0.05
        prior.m_tail.weight[rgb, :3] = 0
        prior.m_tail.weight[rgb, rgb, 1, 1] = 1
    double = prior.m_up1[0].get_parameter("weight")
    double[:, :3] *= 0.01  # what the deeper scales add to the passed-through RGB
