"""USRNet against recorded outputs of the authors' network, and its own promises."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.model.checkpoint import load_usrnet
from pipeline.model.usrnet import TINY, Architecture, USRNet
from pipeline.training.loop import initial_usrnet

GOLDEN_CASES = ["deblur_x1", "odd_size_x2", "noisy_x3", "motion_x4", "batch_of_two_x2", "large_kernel_x3"]
SMALL = Architecture(iterations=2, hidden=8, widths=(8, 8, 8, 8), blocks=1)


@pytest.fixture(scope="module")
def small() -> USRNet:
    """A network whose every part takes part, in float64."""
    return initial_usrnet(SMALL, seed=3).double().eval().requires_grad_(False)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kernels(n: int, *shape: int, seed: int = 1) -> Tensor:
    k = noise(n, 1, *shape, seed=seed)
    return k / k.sum(dim=(-2, -1), keepdim=True)


@pytest.mark.parametrize("case", GOLDEN_CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
def test_the_network_is_the_authors(reference: Path, case: str, dtype: torch.dtype, tolerance: float) -> None:
    net = load_usrnet(reference / "usrnet_tiny.pth").to(dtype)
    with np.load(reference / "usrnet_tiny_golden.npz") as golden:
        lr, kernel, scale, sigma, sr = (golden[f"{case}/{part}"] for part in ("lr", "kernel", "scale", "sigma", "sr"))
    y = torch.from_numpy(lr).to(dtype).permute(0, 3, 1, 2)
    k, level = torch.from_numpy(kernel).to(dtype)[:, None], torch.from_numpy(sigma).to(dtype)
    result = net(y, k, int(scale), level)
    assert result.dtype == dtype
    deviation = np.abs(result.permute(0, 2, 3, 1).numpy() - sr).max()
    assert deviation <= tolerance * np.abs(sr).max()


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_a_batch_equals_its_items_one_by_one(small: USRNet, scale: int) -> None:
    lr, k = noise(3, 3, 9, 10), kernels(3, 5, 4)
    sigma = torch.tensor([0.0, 0.02, 0.1], dtype=torch.float64)
    together = small(lr, k, scale, sigma)
    for i in range(3):
        alone = small(lr[i : i + 1], k[i : i + 1], scale, sigma[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("part", ["lr", "kernel", "sigma"])
def test_every_input_matters(small: USRNet, part: str) -> None:
    inputs = {"lr": noise(1, 3, 8, 8), "kernel": kernels(1, 5, 5), "sigma": noise(1)}
    other = {"lr": noise(1, 3, 8, 8, seed=9), "kernel": kernels(1, 5, 5, seed=9), "sigma": noise(1, seed=9)}
    before = small(scale=2, **inputs)
    after = small(scale=2, **{**inputs, part: other[part]})
    assert (before - after).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("lr_shape", "scale", "kernel_shape"),
    [
        ((24, 26), 3, (67, 67)),
        ((24, 26), 3, (70, 70)),
        ((9, 11), 2, (18, 22)),  # as large as the HR image
        ((5, 7), 1, (4, 6)),
        ((7, 5), 4, (1, 1)),
        ((1, 1), 1, (1, 1)),
    ],
)
def test_kernels_of_any_size_up_to_the_image_are_taken(
    small: USRNet, lr_shape: tuple[int, int], scale: int, kernel_shape: tuple[int, int]
) -> None:
    sr = small(noise(1, 3, *lr_shape), kernels(1, *kernel_shape), scale, noise(1) / 10)
    assert sr.shape == (1, 3, lr_shape[0] * scale, lr_shape[1] * scale)
    assert sr.isfinite().all()


def test_an_even_kernel_is_the_odd_one_padded_at_the_end(small: USRNet) -> None:
    """The origin of an n-wide kernel is n//2: a zero row and column in front make 5 wide 6 wide."""
    k = kernels(1, 5, 5)
    padded = torch.nn.functional.pad(k, (1, 0, 1, 0))
    lr, sigma = noise(1, 3, 8, 8), noise(1) / 10
    torch.testing.assert_close(small(lr, padded, 2, sigma), small(lr, k, 2, sigma), atol=1e-12, rtol=0)


def test_sigma_may_be_given_flat_or_as_an_image(small: USRNet) -> None:
    lr, k, sigma = noise(2, 3, 6, 6), kernels(2, 3, 3), noise(2)
    assert torch.equal(small(lr, k, 2, sigma), small(lr, k, 2, sigma.reshape(2, 1, 1, 1)))


def test_kernel_and_sigma_may_be_of_another_precision_than_the_image() -> None:
    net = initial_usrnet(SMALL, seed=0).eval().requires_grad_(False)
    lr, k, sigma = noise(1, 3, 6, 6).float(), kernels(1, 3, 3), noise(1)
    sr = net(lr, k, 2, sigma)
    assert sr.dtype == torch.float32
    assert torch.equal(sr, net(lr, k.float(), 2, sigma.float()))


def test_the_hyper_parameters_are_positive_and_depend_on_noise_and_scale(small: USRNet) -> None:
    def alphas_betas(sigma: float, scale: int) -> Tensor:
        alphas, betas = small.hyper_parameters(torch.full((1, 1, 1, 1), sigma, dtype=torch.float64), scale)
        assert len(alphas) == len(betas) == SMALL.iterations
        return torch.cat((*alphas, *betas)).flatten()

    quiet, noisy, larger = alphas_betas(0.0, 2), alphas_betas(0.1, 2), alphas_betas(0.0, 4)
    assert (torch.cat((quiet, noisy, larger)) > 0).all()
    assert not torch.equal(quiet, noisy)
    assert not torch.equal(quiet, larger)


@pytest.mark.parametrize(
    ("lr", "kernel", "scale", "sigma", "says"),
    [
        ((1, 1, 8, 8), (1, 1, 3, 3), 2, 1, "lr must be"),
        ((3, 8, 8), (1, 1, 3, 3), 2, 1, "lr must be"),
        ((2, 3, 8, 8), (1, 1, 3, 3), 2, 2, "kernel must be"),
        ((1, 3, 8, 8), (3, 3), 2, 1, "kernel must be"),
        ((1, 3, 8, 8), (1, 1, 3, 3), 0, 1, "scale must be"),
        ((1, 3, 8, 8), (1, 1, 3, 3), 1.5, 1, "scale must be"),
        ((2, 3, 8, 8), (2, 1, 3, 3), 2, 1, "sigma must hold 2"),
        ((1, 3, 8, 8), (1, 1, 17, 3), 2, 1, "larger than the HR image"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(
    small: USRNet, lr: tuple[int, ...], kernel: tuple[int, ...], scale: int, sigma: int, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        small(noise(*lr), noise(*kernel), scale, noise(sigma))


@pytest.mark.parametrize(("architecture", "parameters"), [(TINY, 590_332), (Architecture(), 17_016_016)])
def test_the_architectures_have_as_many_parameters_as_the_authors(architecture: Architecture, parameters: int) -> None:
    with torch.device("meta"):
        net = USRNet(architecture)
    assert sum(p.numel() for p in net.parameters()) == parameters
