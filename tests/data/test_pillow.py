"""Pillow's switches: set while Unfold works, as they were before and after."""

import io
import struct
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile

from pipeline.data import images
from pipeline.data.pillow import own_rules
from pipeline.errors import ItemError


def saved(format: str) -> bytes:
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (21, 34, 3), np.uint8)).save(file, format)
    return file.getvalue()


def test_warnings_of_pillow_do_not_leak_and_filters_are_left_alone() -> None:
    data = bytearray(saved("TIFF"))
    first = struct.unpack_from("<I", data, 4)[0]
    struct.pack_into("<HHII", data, first + 2 + 12, 0x9999, 2, 5000, 2**31)  # a tag beyond the file
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        with pytest.raises(UserWarning):
            Image.open(io.BytesIO(bytes(data)))
        with pytest.raises(ItemError, match="damaged"):
            images.decode(bytes(data), max_pixels=10**6)
        assert list(warnings.filters) == before


def test_cut_files_stay_errors_even_where_a_program_tolerates_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ItemError, match="truncated"):
        images.decode(saved("JPEG")[:-200], max_pixels=10**6)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_the_last_of_overlapping_threads_puts_the_switches_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 77)
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with own_rules():
            entered.set()
            leave.wait(10)

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(stay)
        assert entered.wait(10)
        with own_rules():
            assert Image.MAX_IMAGE_PIXELS is None
        assert Image.MAX_IMAGE_PIXELS is None
        leave.set()
        other.result()
    assert Image.MAX_IMAGE_PIXELS == 77


def test_threads_decode_at_once() -> None:
    before, start = list(warnings.filters), threading.Barrier(8)
    files = [saved(format) for format in ("PNG", "JPEG", "TIFF", "WEBP", "BMP")]

    def work(number: int) -> bool:
        start.wait(10)
        mine = (files[(number + i) % len(files)] for i in range(40))
        return {images.decode(data, max_pixels=10**6).pixels_hwc.shape for data in mine} == {(21, 34, 3)}

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert list(warnings.filters) == before
