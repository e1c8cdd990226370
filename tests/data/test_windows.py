"""Regions of images against the whole, and results written piece by piece."""

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image, ImageCms

from pipeline.data import images, windows
from pipeline.data.tiff import TiffWriter
from pipeline.data.windows import TiledRows, open_windows
from pipeline.errors import ItemError
from pipeline.physics.resample import fill_transparent

H, W = 210, 330
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def photo(channels: int, dtype: Any = np.uint8) -> npt.NDArray[Any]:
    y, x, c = np.ogrid[:H, :W, :channels]
    unit = 0.5 + 0.45 * np.sin(x / 19 + c) * np.cos(y / 17 - c)
    if dtype is np.float32:
        return np.squeeze(unit.astype(np.float32))
    return np.squeeze(np.rint(unit * np.iinfo(dtype).max).astype(dtype))


def tiff(array: npt.NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def pillow(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def by_orientation(value: int) -> list[Any]:
    return [(274, "H", 1, value, True)]


FILES = {
    "strips": lambda: tiff(photo(3), photometric="rgb", rowsperstrip=16, compression="deflate", predictor=True),
    "one strip": lambda: tiff(photo(3), photometric="rgb"),
    "tiles": lambda: tiff(photo(3), photometric="rgb", tile=(64, 48), compression="zstd"),
    "jpeg tiles": lambda: tiff(photo(3), photometric="rgb", tile=(64, 48), compression="jpeg"),
    "16 bits": lambda: tiff(photo(3, np.uint16), photometric="rgb", tile=(32, 32), compression="lzw"),
    "floats": lambda: tiff(photo(1, np.float32), tile=(32, 32), compression="deflate", predictor=True),
    "planar": lambda: tiff(photo(3).transpose(2, 0, 1), photometric="rgb", planarconfig="separate", rowsperstrip=9),
    "planar tiles": lambda: tiff(
        photo(3).transpose(2, 0, 1), photometric="rgb", planarconfig="separate", tile=(32, 32)
    ),
    "white is 0": lambda: tiff(photo(1), photometric="miniswhite", rowsperstrip=7),
    "palette": lambda: pillow(Image.fromarray(photo(3)).convert("P"), "TIFF"),
    "lab": lambda: pillow(ImageCms.profileToProfile(Image.fromarray(photo(3)), SRGB, LAB, outputMode="LAB"), "TIFF"),
    "alpha": lambda: tiff(photo(4), photometric="rgb", extrasamples=["unassalpha"], tile=(64, 64)),
    "associated alpha": lambda: tiff(photo(4), photometric="rgb", extrasamples=["assocalpha"], tile=(64, 64)),
    "bigtiff": lambda: tiff(photo(3), photometric="rgb", bigtiff=True, tile=(64, 64)),
    "png": lambda: pillow(Image.fromarray(photo(3)), "PNG"),
    "bilevel": lambda: pillow(Image.fromarray(photo(1) > 127), "TIFF", compression="group4"),
    **{
        f"orientation {n}": lambda n=n: tiff(
            photo(3), photometric="rgb", tile=(64, 48), extratags=by_orientation(n)
        )
        for n in range(1, 9)
    },
}  # fmt: skip
REGIONS = [(0, 1, 0, 1), (0, 70, 0, 70), (33, 161, 47, 50), (150, 210, 100, 200)]


@pytest.mark.parametrize("name", FILES)
def test_every_region_is_that_of_the_whole(name: str, tmp_path: Path) -> None:
    data = FILES[name]()
    (tmp_path / "a").write_bytes(data)
    whole = images.decode(data, max_pixels=10**6)
    height, width = whole.pixels_hwc.shape[:2]
    with open_windows(tmp_path / "a", tmp_path, max_pixels=10**6) as source:
        assert source.shape == whole.pixels_hwc.shape[: 3 if whole.pixels_hwc.shape[2] == 3 else 2]
        assert source.dtype == whole.pixels_hwc.dtype
        assert source.has_alpha == (whole.alpha_hw is not None)
        for y0, y1, x0, x1 in (*REGIONS, (0, height, 0, width)):
            expected = whole.pixels_hwc[y0:y1, x0:x1]
            if whole.alpha_hw is not None:
                expected = fill_transparent(expected, whole.alpha_hw[y0:y1, x0:x1])
            np.testing.assert_array_equal(source.read(y0, y1, x0, x1).reshape(expected.shape), expected)
        assert (source.picture.mode, source.picture.bits) == (whole.mode, whole.bits)


def test_a_small_cache_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "_CACHE_BYTES", 1)
    test_every_region_is_that_of_the_whole("tiles", tmp_path)


def test_a_cut_or_damaged_file_is_corrupt_where_it_is_read(tmp_path: Path) -> None:
    data = bytearray(FILES["tiles"]())
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        place = file.pages[0].dataoffsets[-1]  # type: ignore[union-attr]
    data[place : place + 8] = b"rubbish!"
    (tmp_path / "a").write_bytes(data)
    with open_windows(tmp_path / "a", tmp_path, max_pixels=10**6) as source, pytest.raises(ItemError) as caught:
        source.read(H - 9, H, W - 9, W)
    assert caught.value.code == "corrupt-image"


def test_a_decoded_image_that_does_not_fit_on_the_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(FILES["png"]())
    monkeypatch.setattr(windows.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with (
        pytest.raises(ItemError, match=r"restore[.]scratch") as caught,
        open_windows(tmp_path / "a", tmp_path, max_pixels=10**6),
    ):
        pass
    assert caught.value.code == "out-of-scratch"
    assert not (tmp_path / "colours").exists()


def test_the_limit_holds_for_parts_and_a_smaller_one_for_what_is_decoded_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "DECODED_PIXELS", 1000)
    for name, fits in (("tiles", True), ("png", False)):
        (tmp_path / "a").write_bytes(FILES[name]())
        for most in (10**6, 1000):
            if fits and most == 10**6:
                with open_windows(tmp_path / "a", tmp_path, max_pixels=most):
                    continue
            with pytest.raises(ItemError) as caught, open_windows(tmp_path / "a", tmp_path, max_pixels=most):
                pass
            assert caught.value.code == "over-limit"


@pytest.mark.parametrize("phase", ["center", "corner"])
def test_alpha_enlarged_in_parts_is_alpha_enlarged_whole(tmp_path: Path, phase: str) -> None:
    (tmp_path / "a").write_bytes(FILES["alpha"]())
    with open_windows(tmp_path / "a", tmp_path, max_pixels=10**6) as source:
        whole = source.enlarged_alpha(0, 0, 3 * H, 3 * W, 3, phase)
        assert whole is not None
        for y, x, height, width in ((0, 0, 50, 70), (101, 333, 40, 41), (3 * H - 20, 3 * W - 10, 20, 10)):
            part = source.enlarged_alpha(y, x, height, width, 3, phase)
            np.testing.assert_array_equal(part, whole[y : y + height, x : x + width])


@pytest.mark.parametrize(("rows", "columns"), [(1300, 1100), (512, 512), (100, 1100), (700, 300), (1, 1100)])
def test_pieces_of_any_size_become_the_same_file(rows: int, columns: int) -> None:
    height, width = 1300, 1100
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    writer = TiffWriter(file, (height, width, 3), np.uint8, "deflate")
    pieces = TiledRows(writer, height, width)
    for y, x in itertools.product(range(0, height, rows), range(0, width, columns)):
        pieces.add(y, x, image[y : y + rows, x : x + columns])
    writer.finish()
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(file.getvalue())), image)
