"""Enlargement against Pillow, and on the grid each phase means."""

import numpy as np
import pytest
from PIL import Image

from pipeline.physics.resample import fill_transparent, upscale_bicubic


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5])
def test_center_phase_is_pillows_bicubic_away_from_the_edges(scale: int) -> None:
    lr = np.random.default_rng(0).random((12, 15)).astype(np.float32)
    size = (15 * scale, 12 * scale)
    expected = np.asarray(Image.fromarray(lr).resize(size, Image.Resampling.BICUBIC))
    inner = np.s_[2 * scale : -2 * scale, 2 * scale : -2 * scale]
    np.testing.assert_allclose(upscale_bicubic(lr, scale, "center")[inner], expected[inner], atol=1e-6)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5])
def test_corner_phase_keeps_every_lr_pixel_where_decimation_took_it(scale: int) -> None:
    lr = np.random.default_rng(0).random((7, 9, 3))
    sr = upscale_bicubic(lr, scale, "corner")
    assert sr.shape == (7 * scale, 9 * scale, 3)
    np.testing.assert_allclose(sr[::scale, ::scale], lr, atol=1e-15)


@pytest.mark.parametrize(("phase", "shift"), [("corner", 0.0), ("center", 0.5)])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_parabola_is_reproduced_on_the_grid_of_the_phase(phase: str, shift: float, scale: int) -> None:
    """Keys' interpolation is exact for polynomials of degree two."""

    def parabola(x: np.ndarray) -> np.ndarray:
        return 0.25 * x**2 - 3 * x + 1

    lr = np.tile(parabola(np.arange(16.0)), (16, 1))
    at = (np.arange(16 * scale) + shift) / scale - shift
    inner = np.s_[2 * scale : -2 * scale]
    for sr in (upscale_bicubic(lr, scale, phase), upscale_bicubic(lr.T, scale, phase).T):
        np.testing.assert_allclose(sr[5][inner], parabola(at)[inner], atol=1e-11)


@pytest.mark.parametrize("phase", ["corner", "center"])
def test_edges_are_repeated_so_a_flat_image_stays_flat(phase: str) -> None:
    sr = upscale_bicubic(np.full((1, 3), 7, np.uint8), 4, phase)
    np.testing.assert_allclose(sr, np.full((4, 12), 7.0), atol=1e-14)


# --- what is fully transparent


def test_colours_under_full_transparency_become_those_around() -> None:
    pixels = np.full((9, 14, 3), 200, np.uint8)
    alpha = np.full((9, 14), 255, np.uint8)
    pixels[3:7, 5:11], alpha[3:7, 5:11] = 0, 0
    filled = fill_transparent(pixels, alpha)
    assert filled.dtype == np.uint8
    assert (filled == 200).all()
    assert pixels[4, 6, 0] == 0, "the input stays as it was"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (16, 16), (21, 34)])
def test_visible_colours_stay_and_hidden_ones_lie_between_them(shape: tuple[int, int], dtype: type) -> None:
    rng = np.random.default_rng(0)
    pixels = (rng.random((*shape, 3)) * (1 if dtype is np.float32 else 250)).astype(dtype)
    alpha = (rng.random(shape) > 0.7).astype(dtype)
    alpha[0, 0] = 1
    filled = fill_transparent(pixels, alpha)
    visible = alpha > 0
    np.testing.assert_array_equal(filled[visible], pixels[visible])
    assert pixels[visible].min() <= filled.min()
    assert filled.max() <= pixels[visible].max()


def test_an_image_that_is_all_visible_or_all_hidden_is_left_alone() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    for alpha in (np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)):
        assert fill_transparent(pixels, alpha) is pixels
