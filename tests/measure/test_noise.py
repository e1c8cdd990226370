"""Noise that was added is found again, about, and never less than nothing."""

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.measure.noise import estimate_sigma
from pipeline.physics.degradation import degrade
from pipeline.physics.kernels import parse_kernel


def noisy(sigma: float) -> np.ndarray:
    """A photograph, blurred, halved, with noise."""
    hr = skimage.data.astronaut() / 255
    lr = degrade(hr, parse_kernel("gaussian(1.6)"), 2, sigma, boundary="reflect", rng=np.random.default_rng(0))
    return np.asarray(np.rint(lr.clip(0, 1) * 255), np.uint8)


@pytest.mark.parametrize("sigma", [2.55, 7.65, 15.0])
def test_added_noise_is_found_within_a_sixth(sigma: float) -> None:
    assert estimate_sigma(noisy(sigma)) == pytest.approx(sigma, rel=1 / 6)


def test_more_noise_gives_a_higher_estimate() -> None:
    estimates = [estimate_sigma(noisy(sigma)) for sigma in (0.0, 1.0, 3.0, 9.0, 27.0)]
    assert estimates == sorted(estimates)
    assert estimates[0] < 1.0


def test_the_unit_is_the_same_at_sixteen_bits() -> None:
    pixels = noisy(5.0)
    assert estimate_sigma(pixels.astype(np.uint16) * 257) == pytest.approx(estimate_sigma(pixels))


@given(arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]))))
def test_any_image_has_an_estimate(pixels: np.ndarray) -> None:
    assert 0 <= estimate_sigma(pixels) <= 255


def test_an_image_without_diagonal_detail_has_none() -> None:
    assert estimate_sigma(np.array([[[95], [0]]], np.uint8)) == 0.0


def test_a_flat_image_has_none() -> None:
    assert estimate_sigma(np.full((30, 30, 3), 9, np.uint8)) == 0.0
