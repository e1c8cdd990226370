"""The prior: any size, and the identity it may start from."""

import pytest
import torch
from torch import Tensor

from pipeline.model.prior import ResBlock, ResUNet, initialize_as_identity


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def prior() -> ResUNet:
    torch.manual_seed(0)
    return ResUNet((8, 8, 8, 8), blocks=1).requires_grad_(False)


@pytest.mark.parametrize("size", [(8, 16), (1, 1), (7, 9), (15, 8), (17, 3)])
def test_any_size_is_taken_and_kept(prior: ResUNet, size: tuple[int, int]) -> None:
    assert prior(noise(2, 4, *size)).shape == (2, 3, *size)


def test_odd_sizes_are_padded_by_repeating_the_edge(prior: ResUNet) -> None:
    x = noise(1, 4, 13, 10)
    padded = torch.nn.functional.pad(x, (0, 6, 0, 3), mode="replicate")
    torch.testing.assert_close(prior(x), prior(padded)[..., :13, :10])


def test_a_residual_block_whose_last_weights_are_zero_is_the_identity() -> None:
    block = ResBlock(4).requires_grad_(False)
    block.res[2].weight.zero_()
    x = noise(1, 4, 5, 6)
    assert torch.equal(block(x), x)


def test_it_has_no_biases(prior: ResUNet) -> None:
    """So a black picture without noise stays black."""
    assert not prior(torch.zeros(1, 4, 16, 16)).any()


@pytest.mark.parametrize("widths", [(8, 8, 8, 8), (16, 32, 64, 64)])
def test_the_identity_initialisation_passes_the_picture_through(widths: tuple[int, int, int, int]) -> None:
    torch.manual_seed(0)
    prior = ResUNet(widths, blocks=2)
    before = noise(1, 4, 32, 32)
    initialize_as_identity(prior)
    with torch.no_grad():
        deviation = (prior(before) - before[:, :3]).abs()
    assert deviation.mean() < 0.005


def test_every_weight_can_learn_from_the_identity_initialisation() -> None:
    torch.manual_seed(0)
    prior = ResUNet((8, 8, 8, 8), blocks=1)
    initialize_as_identity(prior)
    prior(noise(1, 4, 16, 16)).square().mean().backward()
    for name, weight in prior.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.any(), name
