"""The TIFF writer, read by tifffile and Pillow."""

import io

import numpy as np
import numpy.typing as npt
import pytest
import pyvips
import tifffile
from PIL import Image

from pipeline.data.tiff import COMPRESSIONS, TiffWriter, tiff_bytes


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


def test_large_images_are_cut_into_tiles() -> None:
    with tifffile.TiffFile(io.BytesIO(tiff_bytes(gradient(700, 1001, 3), compression="none"))) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        assert page.is_tiled
        assert len(page.dataoffsets) == 4
        assert (page.tilelength, page.tilewidth) == (512, 512)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint16, 1), (np.uint16, 4), (np.float32, 1), (np.float32, 3)])
def test_deep_samples_and_bigtiffs_are_read_by_tifffile_and_libvips(
    dtype: type, channels: int, compression: str, big: bool
) -> None:
    samples = (gradient(600, 533, channels) / np.float32(255)).astype(np.float32)
    samples = samples if dtype is np.float32 else (samples * 65535).astype(dtype)
    file = io.BytesIO()
    writer = TiffWriter(file, samples.shape, dtype, compression, big)
    for y, x in ((0, 0), (0, 512), (512, 0), (512, 512)):
        writer.append(samples[y : y + 512, x : x + 512])
    writer.finish(icc=b"profile", tags={0x8769: {0x829A: 0.01}})
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as found:
        assert found.is_bigtiff == big
        np.testing.assert_array_equal(found.asarray().reshape(samples.shape), samples)
        assert found.pages[0].tags[34665].value["ExposureTime"]  # type: ignore[union-attr]
    if compression != "zstd":  # not in the wheel of libvips
        read = pyvips.Image.new_from_buffer(file.getvalue(), "").numpy()
        np.testing.assert_array_equal(read.reshape(samples.shape), samples)


def test_a_value_no_tiff_can_hold_costs_only_its_tag() -> None:
    data = tiff_bytes(gradient(5, 4, 3), compression="none", tags={0x010F: "Maker", 0x8769: {0x829A: "no number"}})
    assert Image.open(io.BytesIO(data)).getexif()[0x010F] == "Maker"


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
