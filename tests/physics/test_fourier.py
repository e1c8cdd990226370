"""Operators on half spectra against the same operators on pixels."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from pipeline.physics import degradation
from pipeline.physics.fourier import blur, decimate, fold, otf, tile, zero_fill

LR_SHAPES = [(4, 6), (5, 7), (4, 7), (5, 6), (1, 1), (1, 2), (2, 1), (3, 8)]
SCALES = [1, 2, 3, 4, 5]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kernel_shape", [(1, 1), (3, 3), (2, 2), (4, 7), (9, 6), (12, 13)])
@pytest.mark.parametrize("shape", [(12, 14), (13, 13), (15, 16)])
def test_blur_is_scipys_wrapped_convolution(kernel_shape: tuple[int, int], shape: tuple[int, int]) -> None:
    x, kernel = noise(2, 3, *shape), noise(2, 1, *kernel_shape, seed=1)
    expected = ndimage.convolve(x[1, 2].numpy(), kernel[1, 0].numpy(), mode="wrap")
    np.testing.assert_allclose(blur(x, kernel)[1, 2].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("kernel_shape", [(5, 5), (6, 4), (13, 10)])
def test_torch_and_numpy_blur_alike(kernel_shape: tuple[int, int]) -> None:
    x, kernel = noise(1, 3, 13, 10), noise(1, 1, *kernel_shape, seed=1)
    kernel = kernel / kernel.sum()
    expected = degradation.blur(x[0].permute(1, 2, 0).numpy(), kernel[0, 0].numpy())
    np.testing.assert_allclose(blur(x, kernel)[0].permute(1, 2, 0).numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("lr_shape", LR_SHAPES)
def test_fold_is_the_spectrum_of_decimation(lr_shape: tuple[int, int], scale: int) -> None:
    x = noise(2, 3, lr_shape[0] * scale, lr_shape[1] * scale)
    folded = fold(torch.fft.rfft2(x), lr_shape, scale)
    torch.testing.assert_close(folded, torch.fft.rfft2(decimate(x, scale)), atol=1e-11, rtol=0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("lr_shape", LR_SHAPES)
def test_tile_is_the_spectrum_of_zero_fill(lr_shape: tuple[int, int], scale: int) -> None:
    y = noise(2, 3, *lr_shape)
    tiled = tile(torch.fft.rfft2(y), lr_shape, scale)
    torch.testing.assert_close(tiled, torch.fft.rfft2(zero_fill(y, scale)), atol=1e-11, rtol=0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("lr_shape", LR_SHAPES)
def test_zero_fill_is_the_adjoint_of_decimate(lr_shape: tuple[int, int], scale: int) -> None:
    x, y = noise(3, lr_shape[0] * scale, lr_shape[1] * scale), noise(3, *lr_shape, seed=1)
    torch.testing.assert_close((decimate(x, scale) * y).sum(), (x * zero_fill(y, scale)).sum())


@pytest.mark.parametrize("kernel_shape", [(3, 3), (4, 2), (7, 9)])
def test_the_conjugate_otf_is_the_adjoint_of_blur(kernel_shape: tuple[int, int]) -> None:
    x, y, kernel = noise(1, 1, 9, 10), noise(1, 1, 9, 10, seed=1), noise(1, 1, *kernel_shape, seed=2)
    adjoint = torch.fft.irfft2(otf(kernel, (9, 10)).conj() * torch.fft.rfft2(y), s=(9, 10))
    torch.testing.assert_close((blur(x, kernel) * y).sum(), (x * adjoint).sum())


def test_the_otf_at_frequency_zero_is_the_sum_of_the_kernel() -> None:
    kernel = noise(2, 1, 5, 4)
    torch.testing.assert_close(otf(kernel, (8, 9))[:, 0, 0, 0].real, kernel.sum(dim=(1, 2, 3)))


def test_a_kernel_as_large_as_the_image_has_an_otf() -> None:
    assert otf(noise(1, 1, 8, 9), (8, 9)).shape == (1, 1, 8, 5)


@pytest.mark.parametrize("kernel_shape", [(9, 3), (3, 10)])
def test_a_kernel_larger_than_the_image_is_refused_with_both_sizes(kernel_shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"{kernel_shape[0]}.{kernel_shape[1]}.*8.9"):
        otf(noise(1, 1, *kernel_shape), (8, 9))


def test_gradients_flow_after_a_call_in_inference_mode() -> None:
    """The operators cache their index tables; those must not be born as inference tensors."""
    x = noise(1, 1, 21, 33).requires_grad_()
    with torch.inference_mode():
        tile(fold(torch.fft.rfft2(x), (7, 11), 3), (7, 11), 3)
    spectrum = tile(fold(torch.fft.rfft2(x), (7, 11), 3), (7, 11), 3)
    (gradient,) = torch.autograd.grad(torch.fft.irfft2(spectrum, s=(21, 33)).sum(), x)
    assert gradient.isfinite().all()
