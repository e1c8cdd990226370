"""Previews: the right part, on the right grid, in one small file."""

from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.data import previews
from pipeline.data.previews import Window
from pipeline.errors import ItemError
from pipeline.physics.resample import upscale_bicubic

RNG = np.random.default_rng(0)


def test_the_busiest_window_holds_the_only_detail() -> None:
    image = np.full((60, 80, 3), 90, np.uint8)
    image[40:50, 60:70] = RNG.integers(0, 255, (10, 10, 3))
    window = previews.busiest(image, 16)
    assert window.top <= 40
    assert window.left <= 60
    assert window.top + window.height >= 50
    assert window.left + window.width >= 70


def test_a_small_image_is_its_own_window() -> None:
    assert previews.busiest(np.zeros((5, 9, 1), np.uint8), 16) == Window(0, 0, 5, 9)


@pytest.mark.parametrize("phase", ["center", "corner"])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_an_enlarged_window_is_the_window_of_the_enlarged_image(scale: int, phase: str) -> None:
    lr = RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    window = Window(11, 7, 9, 12)
    whole = np.rint(upscale_bicubic(lr, scale, phase).clip(0, 255)).astype(np.uint8)
    assert np.array_equal(previews.enlarged(lr, window, scale, phase), window.of(whole, scale))


def test_sixteen_bits_become_eight_by_rounding() -> None:
    assert previews.eight_bits(np.array([0, 128, 129, 65535], np.uint16)).tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("shape", [(12, 20), (12, 20, 1), (12, 20, 3)])
def test_a_preview_is_a_webp_of_the_same_size(shape: tuple[int, ...]) -> None:
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    shown = np.asarray(Image.open(BytesIO(previews.webp(pixels, lossless=True))))
    assert np.array_equal(shown, np.broadcast_to(pixels.reshape(12, 20, -1), (12, 20, 3)))


def stored(path: Path, pixels: npt.NDArray[np.uint8]) -> str:
    Image.fromarray(pixels).save(path)
    return str(path)


def pair(uri: str, sr_uri: str, scale: int = 2) -> previews.Pair:
    return previews.pair(
        uri, sr_uri, page=0, scale=scale, phase="center", side=32, max_pixels=10_000, max_bytes=100_000
    )


def test_a_pair_shows_the_same_place_of_input_and_result(tmp_path: Path) -> None:
    lr = np.zeros((40, 40), np.uint8)
    lr[30:34, 4:8] = 255
    uri = stored(tmp_path / "lr.png", lr)
    sr_uri = stored(tmp_path / "sr.png", lr.repeat(2, axis=0).repeat(2, axis=1))
    found = pair(uri, sr_uri)
    before, after = (np.asarray(Image.open(BytesIO(file)).convert("L"), float) for file in (found.before, found.after))
    assert before.shape == after.shape == (found.height, found.width) == (32, 32)
    assert after.max() > 200
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.95
    assert not found.whole


def test_a_result_that_no_longer_fits_its_input_is_refused(tmp_path: Path) -> None:
    uri = stored(tmp_path / "lr.png", np.zeros((20, 20), np.uint8))
    with pytest.raises(ItemError, match="no longer fits"):
        pair(uri, uri)


def test_an_input_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(ItemError, match="no such object"):
        pair(str(tmp_path / "gone.png"), str(tmp_path / "gone.png"))
