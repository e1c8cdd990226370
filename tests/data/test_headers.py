"""What is told from the header alone. What becomes of each depth and mode: test_formats.py."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from pipeline.data import headers


def saved(format: str, size: tuple[int, int] = (34, 21), **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 4), np.uint8)).convert(
        str(options.pop("mode", "RGB"))
    ).save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize("format", ["png", "jpeg", "tiff", "webp", "bmp", "avif"])
def test_a_format_is_known_by_its_first_bytes(format: str) -> None:
    assert headers.format_of(saved(format.upper())[:30]) == format


@pytest.mark.parametrize("data", [b"", b"BM", b"BMW is a maker of cars", b"RIFF1234WAVE", b"GIF89a", b"%PDF"])
def test_other_beginnings_are_no_format(data: bytes) -> None:
    assert headers.format_of(data) is None


@pytest.mark.parametrize("size", [(1, 1), (34, 21), (300, 7), (2, 513)])
@pytest.mark.parametrize(
    "options",
    [{}, {"lossless": True}, {"mode": "RGBA"}, {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}],
    ids=["lossy", "lossless", "alpha", "extended"],
)
def test_the_size_of_a_webp_is_the_one_pillow_finds(size: tuple[int, int], options: dict[str, object]) -> None:
    assert headers.webp_size(saved("WEBP", size, **options)) == size


def test_a_webp_too_short_for_a_size_has_none() -> None:
    assert headers.webp_size(saved("WEBP")[:20]) is None


def test_a_jpeg_with_fill_bytes_and_a_comment_before_its_frame_is_read() -> None:
    data = saved("JPEG")
    comment = b"\xff\xff\xff\xfe" + struct.pack(">H", 7) + b"\xff\xc0\x00\x00\x0c"
    assert headers.bits_per_sample(data[:2] + comment + data[2:], "jpeg", 0) == 8
