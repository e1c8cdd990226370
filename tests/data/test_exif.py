"""EXIF blocks: what is patched, and that nothing else is."""

import io
import struct

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from pipeline.data import exif


def block_with(order: str, orientation: int, *, preview: bool = False) -> bytes:
    """A block made by hand: main directory, Exif directory, preview directory, a maker note."""
    mark = {"<": b"II", ">": b"MM"}[order]
    head = mark + struct.pack(order + "HI", 42, 8)
    exif_at, next_at = 8 + 2 + 3 * 12 + 4, 8 + 2 + 3 * 12 + 4 + 2 + 2 * 12 + 4
    ifd0 = struct.pack(order + "H", 3)
    ifd0 += struct.pack(order + "HHIHH", 0x0100, 3, 1, 34, 0)
    ifd0 += struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    ifd0 += struct.pack(order + "HHII", 0x8769, 4, 1, exif_at)
    ifd0 += struct.pack(order + "I", next_at if preview else 0)
    details = struct.pack(order + "H", 2)
    details += struct.pack(order + "HHIHH", 0xA002, 3, 1, 34, 0)
    details += struct.pack(order + "HHII", 0xA003, 4, 1, 21)
    details += struct.pack(order + "I", 0)
    ifd1 = struct.pack(order + "HHHIHHI", 1, 0x0103, 3, 1, 6, 0, 0)
    return head + ifd0 + details + ifd1 + b"MAKERNOTE with \0 odd bytes"


def tags_of(block: bytes | None) -> Image.Exif:
    assert block is not None
    tags = Image.Exif()
    tags.load(block)
    return tags


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_and_sizes_tell_the_truth(order: str) -> None:
    tags = tags_of(exif.upright(block_with(order, 6), 21, 34))
    assert (tags[0x0112], tags[0x0100]) == (1, 21)
    assert (tags.get_ifd(0x8769)[0xA002], tags.get_ifd(0x8769)[0xA003]) == (21, 34)


@pytest.mark.parametrize("order", ["<", ">"])
def test_nothing_else_changes_by_a_byte(order: str) -> None:
    same = block_with(order, 1)
    assert exif.upright(same, 34, 21) == same
    turned = exif.upright(block_with(order, 6), 21, 34)
    assert turned is not None
    changed = [i for i, (old, new) in enumerate(zip(block_with(order, 6), turned, strict=True)) if old != new]
    assert len(changed) == 4  # one byte each: the orientation and three sizes


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_size_too_large_for_16_bits_is_written_in_32(order: str) -> None:
    tags = tags_of(exif.upright(block_with(order, 1), 70_000, 80_000))
    assert tags[0x0100] == 70_000
    assert tags.get_ifd(0x8769)[0xA003] == 80_000


def test_the_thumbnail_is_unlinked_and_its_bytes_are_gone() -> None:
    tags = Image.Exif()
    tags[0x010F] = "Maker"
    file = io.BytesIO()
    Image.new("RGB", (16, 12), "red").save(file, "JPEG")
    with_thumbnail = block_with_thumbnail(file.getvalue())
    assert file.getvalue() in with_thumbnail
    block = exif.upright(with_thumbnail, 34, 21)
    assert block is not None
    assert file.getvalue()[:100] not in block
    assert tags_of(block).get_ifd(0x0001) == {}
    assert len(block) == len(with_thumbnail)  # what lies behind it keeps its place


def block_with_thumbnail(jpeg: bytes) -> bytes:
    second = 8 + 2 + 12 + 4
    first = struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 1, 0, second)
    place = second + 2 + 2 * 12 + 4
    thumbnail = struct.pack("<HHHIIHHII", 2, 0x0201, 4, 1, place, 0x0202, 4, 1, len(jpeg)) + bytes(4)
    return b"II*\0\x08\0\0\0" + first + thumbnail + jpeg


def test_resolutions_are_put_right_and_sensor_resolutions_scaled() -> None:
    tags = Image.Exif()
    tags[0x011A], tags[0x011B], tags[0x0128] = 72, 72, 3
    tags.get_ifd(0x8769).update({0xA20E: IFDRational(2001, 2), 0xA20F: IFDRational(2001, 2)})
    found = tags_of(exif.upright(tags.tobytes(), 34, 21, dpi=(600.0, 400.25), scale=2))
    assert (found[0x011A], found[0x011B], found[0x0128]) == (600, 400.25, 2)
    assert found.get_ifd(0x8769)[0xA20E] == 2001


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0", b"Exif\0\0Exif\0\0"])
def test_the_jpeg_prefix_is_dropped(prefix: bytes) -> None:
    assert exif.upright(prefix + block_with("<", 1), 34, 21) == block_with("<", 1)


@pytest.mark.parametrize(
    "block", [b"", b"Exif\0\0", b"rubbish", b"II*\0", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\0\x09"]
)
def test_what_is_no_exif_is_dropped(block: bytes) -> None:
    assert exif.upright(block, 34, 21) is None


def test_tags_of_a_tiff_directory_become_a_block_and_back() -> None:
    tags = Image.Exif()
    tags[0x010F], tags[0x0101], tags[0x0111] = "Maker", 21, 8  # the latter two are about storage
    tags.get_ifd(0x8825).update({1: "N"})
    block = exif.block_of(tags)
    assert block is not None
    assert exif.descriptive_tags(block) == {0x010F: "Maker", 0x8825: {1: "N"}}


def test_a_tiff_directory_with_nothing_to_tell_gives_no_block() -> None:
    tags = Image.Exif()
    tags[0x0101] = 21
    assert exif.block_of(tags) is None
