"""The closed-form data step against a dense solve of the equations it claims to solve."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.physics.data_step import data_step, observe, observed_spectrum
from pipeline.physics.fourier import blur, decimate

CASES = [(1, (5, 6)), (2, (5, 4)), (2, (4, 5)), (3, (3, 4)), (3, (3, 3)), (4, (2, 3)), (5, (2, 2))]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normalized(kernel: Tensor) -> Tensor:
    return kernel / kernel.sum(dim=(-2, -1), keepdim=True)


def degradation_matrix(kernel: Tensor, lr_shape: tuple[int, int], scale: int) -> np.ndarray:
    """H of y = Hx, column by column: what the degradation makes of each single HR pixel."""
    height, width = lr_shape[0] * scale, lr_shape[1] * scale
    pixels = torch.eye(height * width, dtype=torch.float64).reshape(-1, 1, height, width)
    seen = decimate(blur(pixels, kernel), scale)
    return seen.reshape(height * width, -1).T.numpy()


@pytest.mark.parametrize("alpha", [1e-6, 0.02, 3.0])
@pytest.mark.parametrize("kernel_shape", [(3, 3), (4, 4), (2, 5)])
@pytest.mark.parametrize(("scale", "lr_shape"), CASES)
def test_data_step_solves_the_normal_equations(
    scale: int, lr_shape: tuple[int, int], kernel_shape: tuple[int, int], alpha: float
) -> None:
    kernel = normalized(noise(1, 1, *kernel_shape))
    y, x = noise(1, 1, *lr_shape, seed=1), noise(1, 1, lr_shape[0] * scale, lr_shape[1] * scale, seed=2)
    z = data_step(x, observe(y, kernel, scale), torch.full((1, 1, 1, 1), alpha, dtype=torch.float64))

    H = degradation_matrix(kernel, lr_shape, scale)
    normal = H.T @ H + alpha * np.eye(H.shape[1])
    expected = np.linalg.solve(normal, H.T @ y.numpy().ravel() + alpha * x.numpy().ravel())
    np.testing.assert_allclose(z.numpy().ravel(), expected, atol=1e-7 if alpha < 1e-3 else 1e-11)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_a_batch_equals_its_items_one_by_one(scale: int) -> None:
    kernels = torch.cat([normalized(noise(1, 1, 5, 5, seed=i)) for i in range(3)])
    y, x = noise(3, 3, 6, 7), noise(3, 3, 6 * scale, 7 * scale, seed=1)
    alpha = torch.tensor([1e-3, 0.1, 2.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    together = data_step(x, observe(y, kernels, scale), alpha)
    for i in range(3):
        one = slice(i, i + 1)
        alone = data_step(x[one], observe(y[one], kernels[one], scale), alpha[one])
        torch.testing.assert_close(together[one], alone, atol=1e-13, rtol=0)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_observed_spectrum_is_that_of_the_degraded_image(scale: int) -> None:
    kernel, x = normalized(noise(1, 1, 4, 3)), noise(1, 3, 5 * scale, 6 * scale, seed=1)
    seen = observe(noise(1, 3, 5, 6), kernel, scale)
    expected = torch.fft.rfft2(decimate(blur(x, kernel), scale))
    torch.testing.assert_close(observed_spectrum(x, seen), expected, atol=1e-12, rtol=0)


def test_an_estimate_that_explains_the_observation_is_left_alone() -> None:
    kernel, x = normalized(noise(1, 1, 5, 5)), noise(1, 3, 12, 15)
    seen = observe(decimate(blur(x, kernel), 3), kernel, 3)
    z = data_step(x, seen, torch.full((1, 1, 1, 1), 1e-3, dtype=torch.float64))
    torch.testing.assert_close(z, x, atol=1e-11, rtol=0)


def test_a_large_alpha_trusts_the_estimate() -> None:
    y, kernel, x = noise(1, 3, 4, 4), normalized(noise(1, 1, 3, 3)), noise(1, 3, 8, 8, seed=1)
    z = data_step(x, observe(y, kernel, 2), torch.full((1, 1, 1, 1), 1e9, dtype=torch.float64))
    torch.testing.assert_close(z, x, atol=1e-8, rtol=0)


def test_single_precision_stays_accurate_for_a_tiny_alpha() -> None:
    """Dividing by α alone would cost six digits here."""
    t = torch.arange(-7.0, 8.0, dtype=torch.float64)
    kernel = torch.exp(-(t[:, None] ** 2 + t[None, :] ** 2) / (2 * 2.4**2))
    kernel = normalized(kernel[None, None])
    truth = noise(1, 3, 64, 64)
    y, x = decimate(blur(truth, kernel), 2), torch.full_like(truth, 0.5)
    alpha = torch.full((1, 1, 1, 1), 1e-4, dtype=torch.float64)
    exact = data_step(x, observe(y, kernel, 2), alpha)
    single = data_step(x.float(), observe(y.float(), kernel.float(), 2), alpha.float())
    assert (single - exact).abs().max() < 2e-3


def test_a_kernel_larger_than_the_hr_image_is_refused() -> None:
    with pytest.raises(ValueError, match="larger"):
        observe(noise(1, 3, 4, 4), noise(1, 1, 9, 9), 2)
