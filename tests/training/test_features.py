"""The perceptual network is read off its weights, VGG's layout included."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.errors import WeightsError
from pipeline.training.features import features_of, random_features

VGG11 = (0, 3, 6, 8, 11, 13, 16, 18)


def vgg(numbers: tuple[int, ...], width: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {"classifier.0.weight": torch.zeros(2, 2)}
    for position, number in enumerate(numbers):
        state[f"features.{number}.weight"] = torch.randn(width, 3 if not position else width, 3, 3, generator=generator)
        state[f"features.{number}.bias"] = torch.randn(width, generator=generator)
    return state


def test_the_layers_between_are_those_of_vgg() -> None:
    layers = features_of(vgg(VGG11)).layers
    kinds = [type(layer) for layer in layers]
    assert kinds[:7] == [nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Conv2d]
    assert tuple(number for number, kind in enumerate(kinds) if kind is nn.Conv2d) == VGG11
    assert kinds[-1] is nn.Conv2d, "compared before the last ReLU"


def test_activations_are_those_of_the_normalised_image() -> None:
    state, image = vgg((0, 2)), torch.rand(2, 3, 16, 16)
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = F.conv2d((image - mean) / deviation, state["features.0.weight"], state["features.0.bias"], padding=1)
    x = F.conv2d(F.relu(x), state["features.2.weight"], state["features.2.bias"], padding=1)
    torch.testing.assert_close(features_of(state)(image), x)


def test_the_small_network_has_its_layout_and_comes_from_its_seed() -> None:
    features = features_of(random_features(1))
    assert features(torch.rand(1, 3, 48, 48)).shape == (1, 128, 12, 12)
    assert not any(weight.requires_grad for weight in features.parameters())
    assert torch.equal(random_features(1)["features.5.weight"], random_features(1)["features.5.weight"])
    assert not torch.equal(random_features(1)["features.5.weight"], random_features(2)["features.5.weight"])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"numbers": ()}, "has no tensors named features.0.weight"),
        ({"numbers": (0, 7)}, "follows no layer known here"),
        ({"numbers": (2, 4)}, "follows no layer known here"),
        ({"features.2.bias": None}, "layer 2 is no convolution with a bias"),
        ({"features.2.weight": torch.zeros(4)}, "layer 2 is no convolution"),
        ({"features.2.weight": torch.zeros(4, 9, 3, 3)}, "do not follow each other"),
    ],
)
def test_other_weights_are_refused_with_the_layer(change: dict[str, object], complaint: str) -> None:
    state = vgg(change.pop("numbers", (0, 2))) | change
    with pytest.raises(WeightsError, match=complaint):
        features_of({key: tensor for key, tensor in state.items() if tensor is not None})
