"""What a header says, against what decoding gives, and how little is read for it."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import uris
from pipeline.data import peek, storage
from pipeline.data.images import decode
from pipeline.data.peek import header_facts
from pipeline.errors import ItemError

LARGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 500, 3), dtype=np.uint8))
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("png", {}),
    ("jpeg", {}),
    ("webp", {}),
    ("webp", {"lossless": True}),
    ("tiff", {}),
    ("tiff", {"compression": "tiff_deflate"}),
    ("bmp", {}),
]


def stored(root: str, data: bytes) -> str:
    uri = uris.join(root, "image")
    storage.write_bytes(uri, data)
    return uri


def encoded(image: Image.Image, kind: str, options: dict[str, Any], orientation: int) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    turned = {"exif": exif.tobytes()} if orientation > 1 and kind != "bmp" else {}
    image.save(file, kind, **options, **turned)
    return file.getvalue()


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_the_header_says_what_decoding_gives(
    tmp_path: Path, kind: str, options: dict[str, Any], orientation: int
) -> None:
    data = encoded(LARGE, kind, options, orientation)
    picture, facts = decode(data, max_pixels=10**6), header_facts(stored(str(tmp_path), data))
    assert facts is not None
    assert (facts.height, facts.width) == picture.pixels_hwc.shape[:2]
    assert (facts.mode, facts.format, facts.pages) == (picture.mode, picture.format, 1)


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_few_blocks_are_read_from_s3_however_large_the_object(
    s3_prefix: str, monkeypatch: pytest.MonkeyPatch, kind: str, options: dict[str, Any]
) -> None:
    data = encoded(LARGE.resize((1000, 600)), kind, options, orientation=6)
    uri, read, real = stored(s3_prefix, data), [], storage.read_range

    def counted(uri: str, start: int, length: int) -> bytes:
        read.append(length)
        return real(uri, start, length)

    monkeypatch.setattr(peek.storage, "read_range", counted)
    assert header_facts(uri) is not None
    assert sum(read) <= 4 * 2**16, "of up to 2 MB"


def test_pages_of_a_tiff_are_counted(tmp_path: Path) -> None:
    file = io.BytesIO()
    LARGE.save(file, "TIFF", save_all=True, append_images=[LARGE, LARGE])
    facts = header_facts(stored(str(tmp_path), file.getvalue()))
    assert facts is not None
    assert (facts.pages, facts.width, facts.height) == (3, 500, 300)


@pytest.mark.parametrize(("data", "code"), [(b"", "input-empty"), (b"hello, world", "not-an-image")])
def test_what_is_no_image_is_refused(tmp_path: Path, data: bytes, code: str) -> None:
    with pytest.raises(ItemError) as error:
        header_facts(stored(str(tmp_path), data))
    assert error.value.code == code


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_cut_or_damaged_header_is_an_item_error_or_unknown(
    tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    data = encoded(LARGE, kind, options, orientation=6)
    rng = np.random.default_rng(1)
    for attempt in range(60):
        damaged = bytearray(data[: int(rng.integers(1, 400))] if attempt % 2 else data)
        for place in rng.integers(0, min(len(damaged), 300), 4):
            damaged[place] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(ItemError):
            header_facts(stored(str(tmp_path), bytes(damaged)))


def test_a_missing_object_is_named(tmp_path: Path) -> None:
    with pytest.raises(ItemError) as error:
        header_facts(str(tmp_path / "gone.png"))
    assert error.value.code == "input-missing"
