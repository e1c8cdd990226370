"""The TIFF writer, read by tifffile and Pillow."""

import io

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from pipeline.data.tiff import COMPRESSIONS, tiff_bytes


def gradient(height: int, width: int, channels: int) -> npt.NDArray[np.uint8]:
    y, x, c = np.ogrid[:height, :width, :channels]
    return np.asarray((3 * x + 5 * y + 70 * c) % 256, np.uint8)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 999), (999, 1), (700, 301)])
def test_other_readers_find_the_samples(size: tuple[int, int], channels: int, compression: str) -> None:
    samples = gradient(*size, channels)
    data = tiff_bytes(samples, compression=compression)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        np.testing.assert_array_equal(page.asarray().reshape(samples.shape), samples)
        assert [int(extra) for extra in page.extrasamples] == ([2] if channels in (2, 4) else [])
    plain = Image.open(io.BytesIO(data))
    assert plain.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    np.testing.assert_array_equal(np.asarray(plain).reshape(samples.shape), samples)


@pytest.mark.parametrize("compression", ["deflate", "lzw"])
def test_compression_makes_smooth_images_much_smaller(compression: str) -> None:
    samples = gradient(700, 301, 3)
    assert len(tiff_bytes(samples, compression=compression)) < samples.nbytes / 10


def test_large_images_are_cut_into_strips() -> None:
    with tifffile.TiffFile(io.BytesIO(tiff_bytes(gradient(700, 1001, 3), compression="none"))) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        assert len(page.dataoffsets) == 9
        assert max(page.databytecounts) <= 1 << 18


def test_tags_and_their_sub_directories_are_written() -> None:
    tags = {0x010F: "Maker", 0x8769: {0x829A: 0.01, 0x927C: b"NOTE"}}
    data = tiff_bytes(gradient(5, 4, 3), compression="lzw", tags=tags, icc=b"profile", xmp=b"<x/>", dpi=(300, 72.5))
    plain = Image.open(io.BytesIO(data))
    assert plain.getexif()[0x010F] == "Maker"
    assert plain.getexif().get_ifd(0x8769) == {0x829A: 0.01, 0x927C: b"NOTE"}
    assert (plain.info["icc_profile"], plain.info["xmp"], plain.info["dpi"]) == (
        b"profile",
        b"<x/>",
        (300, 72.5),
    )
