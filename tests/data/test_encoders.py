"""Files written, read by other libraries than the one that wrote them; what a format cannot hold."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pyvips
import tifffile
from PIL import Image

from pipeline.data import images
from pipeline.data.encoders import refuse_unwritable
from pipeline.data.images import Options
from pipeline.errors import ItemError
from pipeline.records import Picture


def picture(channels: int, dtype: Any = np.uint8, height: int = 33, width: int = 50) -> Picture:
    y, x, c = np.ogrid[:height, :width, :channels]
    unit = 0.5 + 0.4 * np.sin(x / 9 + c) * np.cos(y / 7)
    samples = unit.astype(np.float32) if dtype is np.float32 else np.rint(unit * np.iinfo(dtype).max).astype(dtype)
    alpha = samples[:, :, -1] if channels in (2, 4) else None
    return Picture(samples[:, :, : 1 if channels < 3 else 3], mode="?", format="?", alpha_hw=alpha)


def whole(given: Picture) -> npt.NDArray[Any]:
    alpha = [] if given.alpha_hw is None else [given.alpha_hw]
    return np.dstack([given.pixels_hwc, *alpha])


@pytest.mark.parametrize("level", [0, 1, 6])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_libvips_reads_the_png_in_its_depth(channels: int, dtype: Any, level: int) -> None:
    given = picture(channels, dtype)
    read = pyvips.Image.new_from_buffer(images.encode(given, "png", Options(png_level=level)), "").numpy()
    np.testing.assert_array_equal(read.reshape(33, 50, channels), whole(given))
    assert read.dtype == dtype


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tifffile_reads_the_tiff_in_its_depth(channels: int, dtype: Any) -> None:
    given = picture(channels, dtype, 600, 700)
    read = tifffile.imread(io.BytesIO(images.encode(given, "tiff")))
    np.testing.assert_array_equal(read.reshape(600, 700, channels), whole(given))
    assert read.dtype == dtype


@pytest.mark.parametrize(
    ("format", "channels", "bands"),
    [("jpeg", 1, 1), ("jpeg", 3, 3), ("webp", 1, 3), ("webp", 3, 3), ("webp", 4, 4), ("avif", 3, 3), ("avif", 4, 4)],
)
def test_libvips_reads_lossy_files_and_finds_nearly_the_same(format: str, channels: int, bands: int) -> None:
    given = picture(channels)
    read = pyvips.Image.new_from_buffer(images.encode(given, format), "").numpy()
    assert read.reshape(33, 50, -1).shape[2] == bands
    assert np.abs(read.reshape(33, 50, -1).astype(int) - whole(given)).mean() < 4


def test_quality_makes_files_larger_and_nearer_and_webp_100_is_lossless() -> None:
    given = picture(3, height=200, width=200)
    for format in ("jpeg", "webp", "avif"):
        sizes = [len(images.encode(given, format, Options(**{f"{format}_quality": q}))) for q in (20, 60, 95)]
        assert sizes == sorted(set(sizes))
    exact = images.encode(given, "webp", Options(webp_quality=100))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(exact))), given.pixels_hwc)


@pytest.mark.parametrize(
    ("format", "given", "depth", "says"),
    [
        ("png", picture(3, np.float32), "keep", "png cannot hold floats; set encode.format to tiff"),
        ("jpeg", picture(3, np.uint16), "keep", "jpeg cannot hold 16 bits a sample; set encode.format to tiff or png"),
        ("webp", picture(3, np.float32), 16, "webp cannot hold 16 bits"),
        ("avif", picture(1, np.uint16), "keep", "avif cannot hold 16 bits"),
        ("jpeg", picture(4), "keep", "jpeg cannot hold transparency"),
        ("tiff", picture(3, np.float32), "keep", ""),
        ("png", picture(3, np.float32), 16, ""),
        ("jpeg", picture(3, np.uint16), 8, ""),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_the_mend(format: str, given: Picture, depth: Any, says: str) -> None:
    if not says:
        images.encode(given, format, Options(depth=depth))
        return
    with pytest.raises(ItemError, match=says) as caught:
        images.encode(given, format, Options(depth=depth))
    assert caught.value.code == "unsupported-mode"


def test_sides_beyond_a_format_are_over_its_limit() -> None:
    for format, side in (("jpeg", 65_536), ("webp", 16_384)):
        with pytest.raises(ItemError) as caught:
            refuse_unwritable(picture(3), format, "keep", side, 10)
        assert caught.value.code == "over-limit"


def test_fewer_bits_are_rounded_and_never_made_up() -> None:
    deep = picture(3, np.uint16)
    read = images.decode(images.encode(deep, "png", Options(depth=8)), max_pixels=10**6)
    np.testing.assert_array_equal(read.pixels_hwc, np.rint(deep.pixels_hwc / 257).astype(np.uint8))
    assert images.decode(images.encode(picture(3), "png", Options(depth=16)), max_pixels=10**6).bits == 8


def test_the_resolution_survives_in_every_format() -> None:
    for format in images.EXTENSIONS:
        given = Picture(picture(3).pixels_hwc, mode="RGB", format="?", dpi=(600.0, 300.0))
        assert images.decode(images.encode(given, format), max_pixels=10**6).dpi == pytest.approx((600, 300), rel=1e-3)
