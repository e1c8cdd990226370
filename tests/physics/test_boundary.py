"""The periodic extension: the image inside is untouched and the torus has no seam."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.physics.boundary import extend_periodic

sides = st.integers(1, 24)
margins = st.integers(0, 60)


def picture(h: int, w: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((2, h, w)))


def largest_step(image: Tensor, dim: int, wrap: bool) -> float:
    steps = (image.roll(-1, dim) - image).abs()
    if not wrap:
        steps = steps.narrow(dim, 0, image.shape[dim] - 1)
    return float(steps.max()) if steps.numel() else 0.0


@given(h=sides, w=sides, below=margins, right=margins)
def test_the_image_is_kept_at_the_upper_left(h: int, w: int, below: int, right: int) -> None:
    image = picture(h, w)
    extended = extend_periodic(image, h + below, w + right)
    assert extended.shape == (2, h + below, w + right)
    assert torch.equal(extended[:, :h, :w], image)


@given(h=sides, w=sides, below=margins, right=margins)
def test_values_stay_within_the_images_own_range(h: int, w: int, below: int, right: int) -> None:
    image = picture(h, w)
    extended = extend_periodic(image, h + below, w + right)
    assert extended.min() >= image.min() - 1e-15
    assert extended.max() <= image.max() + 1e-15


@given(w=st.integers(2, 24), margin=st.integers(1, 60), seed=st.integers(0, 5))
def test_no_step_on_the_torus_is_larger_than_the_images_own_and_the_fades(w: int, margin: int, seed: int) -> None:
    """A raised cosine of `margin` pixels climbs by at most π/(2·margin) from one pixel to the next."""
    image = picture(3, w, seed)
    contrast = float(image.max() - image.min())
    allowed = largest_step(image, -1, wrap=False) + contrast * math.pi / (2 * margin)
    extended = extend_periodic(image, 3, w + margin)
    assert largest_step(extended, -1, wrap=True) <= allowed + 1e-12


@given(h=st.integers(2, 24), margin=st.integers(1, 60))
def test_rows_are_extended_as_columns_are(h: int, margin: int) -> None:
    image = picture(h, 5)
    across = extend_periodic(image.mT.contiguous(), 5, h + margin)
    assert torch.equal(extend_periodic(image, h + margin, 5), across.mT)


def test_a_ramp_wraps_without_the_jump_it_would_have_unextended() -> None:
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64).expand(1, 8, 64)
    assert largest_step(ramp, -1, wrap=True) == 1.0
    assert largest_step(extend_periodic(ramp, 8, 96), -1, wrap=True) < 0.08


def test_an_extension_by_nothing_is_the_image() -> None:
    image = picture(5, 7)
    assert torch.equal(extend_periodic(image, 5, 7), image)


def test_a_flat_image_stays_flat() -> None:
    extended = extend_periodic(torch.full((1, 1, 3, 3), 0.25), 16, 24)
    torch.testing.assert_close(extended, torch.full((1, 1, 16, 24), 0.25))


def test_a_target_smaller_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot extend 7 pixels to 6"):
        extend_periodic(picture(5, 7), 5, 6)


@given(w=sides, margin=margins)
def test_both_edges_are_treated_alike(w: int, margin: int) -> None:
    """The extension of the mirror image is the mirror image of the extension."""
    image = picture(3, w)
    extension = extend_periodic(image, 3, w + margin)[..., w:]
    mirrored = extend_periodic(image.flip(-1), 3, w + margin)[..., w:]
    torch.testing.assert_close(mirrored.flip(-1), extension, atol=1e-12, rtol=0)
