"""Chunks of PNG files: damage found, metadata put in and taken out."""

import io

import numpy as np
from PIL import Image

from pipeline.data import png_chunks


def saved(format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (21, 34, 3), np.uint8)).save(file, format, **options)  # type: ignore[arg-type]
    return file.getvalue()


def test_a_whole_png_has_no_damage_and_text_chunks_may_be_wrong() -> None:
    data = saved("PNG", dpi=(300, 300))
    assert png_chunks.damage(data) is None
    at = data.index(b"pHYs") + 4
    assert png_chunks.damage(data[:at] + b"\xff" + data[at + 1 :]) is None  # ancillary: costs no pixel


def test_damage_to_a_png_is_named() -> None:
    data = saved("PNG")
    at = data.index(b"IDAT") + 20
    assert png_chunks.damage(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) == (
        "the checksum of a IDAT chunk is wrong"
    )
    assert png_chunks.damage(data[:-12]) == "the file is cut short"
    assert png_chunks.damage(data[: at + 5]) == "the file is cut short"


def test_metadata_is_found_wherever_it_stands() -> None:
    data = saved("PNG", dpi=(300, 300))
    late = png_chunks.with_metadata(data, exif=b"II*\0" + bytes(20), icc=b"profile", xmp=b"<x/>")
    start = late.index(b"IDAT") - 4
    chunks, rest = late[33:start], late[start:-12]
    for file in (late, late[:33] + rest + chunks + late[-12:]):
        facts = Image.open(io.BytesIO(png_chunks.without_pixels(file)))
        assert facts.size == (1, 1)
        assert (facts.info["exif"], facts.info["icc_profile"], facts.info["xmp"]) == (
            b"Exif\0\0II*\0" + bytes(20),
            b"profile",
            b"<x/>",
        )
        assert round(facts.info["dpi"][0]) == 300
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(file))), np.asarray(Image.open(io.BytesIO(data)))
        )
