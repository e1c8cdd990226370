"""The perceptual network of the GAN phase: frozen convolutions whose activations are compared.

Pluggable by its weights: a state dict with torchvision's names (`features.0.weight`, ...), as
VGG11 to VGG19 have them; which layers lie between is read off the numbers. The authors take VGG19
up to its last convolution, before the ReLU, and so does this. Without weights there is a small
network of random filters, made here: enough to run the phase, not to judge by.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.errors import WeightsError

_NAME = re.compile(r"(?:features\.)?(\d+)\.weight")
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, that VGG expects

_SMALL = ((0, 3, 32), (2, 32, 32), (5, 32, 64), (7, 64, 64), (10, 64, 128))  # number, channels in, out


class Features(nn.Module):
    """(N, 3, H, W) in [0, 1] → activations of the last convolution, (N, C, h, w)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        activations: Tensor = self.layers((image - self.mean) / self.deviation)
        return activations


def features_of(state: Mapping[str, Tensor], name: str = "the perceptual network") -> Features:
    """The network whose tensors are `state`; tensors with other names (a classifier's) are ignored.

    Raises `WeightsError` when there is no chain of 3-channel-in convolutions with ReLU and pooling.
    """
    numbers = sorted(int(match[1]) for key in state if (match := _NAME.fullmatch(key)))
    layers = nn.Sequential()
    for number in numbers:
        _ends_pooled(layers, number - len(layers), name)
        layers.append(_convolution(state, number, name))
    if not numbers:
        raise WeightsError(f"{name}: has no tensors named features.0.weight and so on; give VGG weights of torchvision")
    try:
        Features(layers)(torch.zeros(1, 3, 64, 64))
    except RuntimeError as error:
        raise WeightsError(f"{name}: its convolutions do not follow each other: {error}") from None
    return Features(layers)


def random_features(seed: int = 0) -> dict[str, Tensor]:
    """The state of a small network of random filters, in the layout that `features_of` reads."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for number, inputs, outputs in _SMALL:
        deviation = (2 / (9 * inputs)) ** 0.5
        state[f"features.{number}.weight"] = deviation * torch.randn(outputs, inputs, 3, 3, generator=generator)
        state[f"features.{number}.bias"] = torch.zeros(outputs)
    return state


def _ends_pooled(layers: nn.Sequential, gap: int, name: str) -> None:
    """Fill the gap before the next convolution: ReLU, or ReLU and pooling."""
    if (len(layers) == 0) != (gap == 0) or gap > 2:
        raise WeightsError(f"{name}: layer {len(layers) + gap} follows no layer known here (VGG without batch norm)")
    if gap >= 1:
        layers.append(nn.ReLU())
    if gap == 2:
        layers.append(nn.MaxPool2d(2))


def _convolution(state: Mapping[str, Tensor], number: int, name: str) -> nn.Conv2d:
    prefix = "features." if f"features.{number}.weight" in state else ""
    weight, bias = (state.get(f"{prefix}{number}.{part}") for part in ("weight", "bias"))
    if weight is None or weight.ndim != 4 or bias is None or bias.shape != weight.shape[:1]:
        raise WeightsError(f"{name}: layer {number} is no convolution with a bias (batch norm is not known here)")
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], (weight.shape[2], weight.shape[3]), padding="same")
    layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    return layer
