"""The metrics against scikit-image and Pillow, and the figures they must give by definition."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from skimage import metrics as oracle

from pipeline.measure.metrics import luma, psnr, ssim_y


def pair(*shape: int, seed: int = 0, noise: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """A picture with some structure and a noisy copy, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    waves = np.sin(x / 3.0) + np.cos(y / 5.0 + x / 9.0)
    clean = 127 + 50 * waves.reshape(*shape[:2], *[1] * (len(shape) - 2)) + rng.normal(0, 9, shape)
    noisy = clean + rng.normal(0, noise, shape)
    return tuple(np.rint(image.clip(0, 255)).astype(np.uint8) for image in (clean, noisy))  # type: ignore[return-value]


def oracle_ssim(a: np.ndarray, b: np.ndarray, peak: float = 255) -> float:
    return float(
        oracle.structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=peak
        )
    )


@pytest.mark.parametrize("shape", [(20, 30, 3), (17, 19), (8, 8, 1)])
@pytest.mark.parametrize("border", [0, 3])
def test_psnr_is_scikit_images_inside_the_border(shape: tuple[int, ...], border: int) -> None:
    a, b = pair(*shape)
    inner = np.s_[border : shape[0] - border, border : shape[1] - border]
    expected = oracle.peak_signal_noise_ratio(a[inner], b[inner], data_range=255)
    assert psnr(a, b, border=border) == pytest.approx(expected, abs=1e-12)


def test_psnr_by_definition() -> None:
    """An error of one grey level everywhere is 20·log10(255) dB; unsigned numbers do not wrap around."""
    a, b = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint8)
    assert psnr(a, b) == psnr(b, a) == pytest.approx(20 * math.log10(255))
    assert psnr(a * 1.0, b / 255, peak=1.0) == pytest.approx(20 * math.log10(255))


def test_psnr_does_not_depend_on_the_bit_depth() -> None:
    a, b = pair(16, 16, 3)
    assert psnr(a.astype(np.uint16) * 257, b.astype(np.uint16) * 257, peak=65535) == pytest.approx(psnr(a, b))


def test_equal_images_have_no_error() -> None:
    a, _ = pair(16, 16, 3)
    assert psnr(a, a) == math.inf
    assert ssim_y(a, a) == pytest.approx(1)


@pytest.mark.parametrize("metric", [psnr, ssim_y])
def test_a_border_that_leaves_nothing_gives_no_figure(metric: Callable[..., float]) -> None:
    a, b = pair(14, 40, 3)
    assert math.isnan(metric(a, b, border=7))
    assert math.isnan(metric(a, b, border=16))


@pytest.mark.parametrize("metric", [psnr, ssim_y])
def test_images_of_unlike_shapes_are_not_compared(metric: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match="shapes"):
        metric(np.zeros((16, 16, 3)), np.zeros((16, 17, 3)))


@pytest.mark.parametrize("noise", [2.0, 30.0])
@pytest.mark.parametrize("border", [0, 4])
def test_ssim_is_scikit_images_on_luma(noise: float, border: int) -> None:
    a, b = pair(40, 33, 3, noise=noise)
    inner = np.s_[border : 40 - border, border : 33 - border]
    expected = oracle_ssim(luma(a)[inner], luma(b)[inner])
    assert ssim_y(a, b, border=border) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", [(25, 31), (25, 31, 1)])
def test_ssim_of_gray_images_is_scikit_images(shape: tuple[int, ...]) -> None:
    a, b = pair(*shape)
    assert ssim_y(a, b) == pytest.approx(oracle_ssim(a.reshape(25, 31), b.reshape(25, 31)), abs=1e-12)


def test_ssim_needs_one_whole_window() -> None:
    a, b = pair(11, 11, 3)
    assert ssim_y(a, b) < 1
    assert math.isnan(ssim_y(a[:10], b[:10]))


def test_ssim_does_not_depend_on_the_unit() -> None:
    a, b = pair(24, 24, 3)
    in_unit = ssim_y(a / 255, b / 255, peak=1.0)
    assert in_unit == pytest.approx(ssim_y(a.astype(float), b.astype(float)), abs=1e-12)


@pytest.mark.parametrize(("rgb", "y"), [((0, 0, 0), 16), ((255, 255, 255), 235), ((255, 0, 0), 81), ((0, 255, 0), 145)])
def test_luma_is_bt_601_in_studio_swing_rounded_as_the_authors_do(rgb: tuple[int, ...], y: int) -> None:
    """81.481 and 144.553 are the exact values of red and green."""
    assert luma(np.array([[rgb]], np.uint8)) == [[y]]


def test_luma_of_float_images_is_not_rounded() -> None:
    assert luma(np.array([[[255.0, 0, 0]]])) == pytest.approx(np.array([[81.481]]))
