"""The degradation against SciPy's convolution, and its own promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.errors import ItemError
from pipeline.physics.degradation import Boundary, blur, degrade, wrapped_psf

KERNEL_SHAPES = [(1, 1), (3, 3), (5, 7), (2, 2), (4, 4), (2, 5), (9, 6), (13, 14)]
SCIPY_MODE: dict[Boundary, str] = {"circular": "wrap", "reflect": "reflect"}


def random_kernel(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    kernel = rng.random(shape)
    return kernel / kernel.sum()


@pytest.mark.parametrize("boundary", ["circular", "reflect"])
@pytest.mark.parametrize("shape", KERNEL_SHAPES)
@pytest.mark.parametrize("size", [(16, 16), (15, 17), (14, 13)])
def test_blur_is_scipys_convolution_with_the_same_boundary(
    boundary: Boundary, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    image, kernel = rng.random((*size, 3)), random_kernel(rng, shape)
    expected = ndimage.convolve(image, kernel[:, :, None], mode=SCIPY_MODE[boundary])
    np.testing.assert_allclose(blur(image, kernel, boundary=boundary), expected, atol=1e-13)


@pytest.mark.parametrize("boundary", ["circular", "reflect"])
def test_a_kernel_larger_than_the_image_still_is_scipys_convolution(boundary: Boundary) -> None:
    rng = np.random.default_rng(1)
    image, kernel = rng.random((6, 5)), random_kernel(rng, (15, 12))
    expected = ndimage.convolve(image, kernel, mode=SCIPY_MODE[boundary])
    np.testing.assert_allclose(blur(image, kernel, boundary=boundary), expected, atol=1e-13)


@pytest.mark.parametrize("shape", KERNEL_SHAPES)
def test_the_origin_of_a_kernel_is_at_half_its_size_rounded_down(shape: tuple[int, int]) -> None:
    kernel = np.zeros(shape)
    kernel[shape[0] // 2, shape[1] // 2] = 1
    image = np.random.default_rng(0).random((14, 15))
    np.testing.assert_allclose(blur(image, kernel), image, atol=1e-14)


def test_the_wrapped_psf_keeps_every_tap_of_a_kernel_that_does_not_fit() -> None:
    kernel = np.arange(35.0).reshape(5, 7)
    psf = wrapped_psf(kernel, (3, 4))
    assert psf.sum() == kernel.sum()
    assert psf[0, 0] == kernel[2, 3]
    assert psf[1, 1] == kernel[np.ix_([3, 0], [4, 0])].sum()


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_decimation_keeps_the_upper_left_pixel_of_each_block(scale: int) -> None:
    hr = np.random.default_rng(0).random((13, 17, 3))
    lr = degrade(hr, np.ones((1, 1)), scale, 0)
    np.testing.assert_allclose(lr, hr[::scale, ::scale], atol=1e-14)


def test_the_noise_has_the_standard_deviation_asked_for_in_grey_levels() -> None:
    hr = np.full((200, 200, 3), 0.5)
    noise = degrade(hr, np.ones((1, 1)), 1, 12.75, rng=np.random.default_rng(0)) - hr
    assert noise.std() * 255 == pytest.approx(12.75, rel=0.01)
    assert abs(noise.mean()) * 255 < 0.15


def test_noise_is_neither_clipped_nor_rounded() -> None:
    lr = degrade(np.zeros((50, 50)), np.ones((1, 1)), 1, 2.0, rng=np.random.default_rng(0))
    assert lr.min() < 0
    assert np.unique(lr).size == lr.size


def test_the_same_random_state_gives_the_same_noise() -> None:
    hr, kernel = np.zeros((8, 9, 3)), np.ones((3, 3))
    first, second = (degrade(hr, kernel, 2, 5.0, rng=np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_noise_without_a_source_of_randomness_is_refused() -> None:
    with pytest.raises(ValueError, match="rng"):
        degrade(np.zeros((4, 4)), np.ones((1, 1)), 1, 1.0)


@given(gain=st.floats(0.1, 10), scale=st.integers(1, 4))
def test_a_kernel_is_normalised_so_brightness_is_kept(gain: float, scale: int) -> None:
    lr = degrade(np.full((8, 8), 0.3), gain * np.ones((3, 4)), scale, 0)
    np.testing.assert_allclose(lr, 0.3, atol=1e-13)


@pytest.mark.parametrize(
    ("kernel", "scale", "sigma", "code"),
    [
        (np.zeros((3, 3)), 2, 0, "bad-kernel"),
        (np.ones(3), 2, 0, "bad-kernel"),
        (np.ones((3, 3)), 0, 0, "bad-scale"),
        (np.ones((3, 3)), 1.5, 0, "bad-scale"),
        (np.ones((3, 3)), 2, -1, "bad-sigma"),
    ],
)
def test_an_impossible_degradation_is_refused_by_its_code(
    kernel: np.ndarray, scale: int, sigma: float, code: str
) -> None:
    with pytest.raises(ItemError) as raised:
        degrade(np.zeros((4, 4)), kernel, scale, sigma)
    assert raised.value.code == code


def test_an_unknown_boundary_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="mirror"):
        blur(np.zeros((4, 4)), np.ones((1, 1)), boundary="mirror")  # type: ignore[arg-type]
