"""Decoding and encoding, against Pillow used plainly, tifffile, and files made by hand."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from pipeline.data import images
from pipeline.errors import ItemError
from pipeline.plan import ENDINGS
from pipeline.records import Picture

U8 = npt.NDArray[np.uint8]
MANY = 10**6
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="1" dc:title="M\xc3\xbcnchen"/></x:xmpmeta>'


def photo(channels: int, height: int = 21, width: int = 34) -> U8:
    """Smooth colours with some noise: (h, w, channels), or (h, w) for one channel."""
    y, x, c = np.ogrid[:height, :width, :channels]
    smooth = 127 + 90 * np.sin(x / 9 + c) * np.cos(y / 7 - c)
    noisy = smooth + np.random.default_rng(channels).normal(0, 6, smooth.shape)
    array = noisy.clip(0, 255).astype(np.uint8)
    return array[:, :, 0] if channels == 1 else array


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def tiff(array: npt.NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def png_of(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def refusal(data: bytes, *, page: int = 0, max_pixels: int = MANY) -> ItemError:
    with pytest.raises(ItemError) as caught:
        images.decode(data, page=page, max_pixels=max_pixels)
    return caught.value


def picture_of(channels: int, height: int = 21, width: int = 34, **facts: Any) -> Picture:
    array = photo(channels, height, width).reshape(height, width, -1)
    alpha = array[:, :, -1] if channels in (2, 4) else None
    colours = array[:, :, : 1 if channels < 3 else 3]
    return Picture(colours, mode="?", format="?", alpha_hw=alpha, **facts)


# --- pixels


CASES = [
    ("PNG", ["1", "L", "LA", "RGB", "RGBA", "P"], {}),
    ("JPEG", ["L", "RGB"], {}),
    ("JPEG", ["RGB"], {"progressive": True, "subsampling": 2}),
    ("TIFF", ["1", "L", "LA", "RGB", "RGBA", "P"], {}),
    ("TIFF", ["1", "L", "LA", "RGB", "RGBA", "P"], {"compression": "tiff_lzw"}),
    ("TIFF", ["L", "RGB"], {"compression": "jpeg"}),
    ("TIFF", ["RGB"], {"compression": "zstd"}),
    ("WEBP", ["RGB", "RGBA"], {"lossless": True, "exact": True}),
    ("WEBP", ["RGB"], {"quality": 80}),
    ("BMP", ["1", "L", "RGB", "P"], {}),
]


@pytest.mark.parametrize(
    ("format", "mode", "options"),
    [(format, mode, options) for format, modes, options in CASES for mode in modes],
)
def test_pixels_and_alpha_are_those_pillow_reads(format: str, mode: str, options: dict[str, Any]) -> None:
    source = Image.fromarray(photo(4)).convert("RGB" if mode in ("P", "1") else mode).convert(mode)
    data = saved(source, format, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    picture = images.decode(data, max_pixels=MANY)
    gray = mode in ("1", "L", "LA")
    assert picture.pixels_hwc.dtype == np.uint8
    assert picture.pixels_hwc.shape == (21, 34, 1 if gray else 3)
    np.testing.assert_array_equal(picture.pixels_hwc, expected[:, :, : 1 if gray else 3])
    if mode.endswith("A"):
        assert picture.alpha_hw is not None
        np.testing.assert_array_equal(picture.alpha_hw, expected[:, :, 3])
    else:
        assert picture.alpha_hw is None
    assert (picture.mode, picture.format) == (mode, format.lower())


def test_a_palette_with_transparent_entries_keeps_its_alpha() -> None:
    palette = (b"PLTE", bytes([10, 20, 30, 40, 50, 60]))
    picture = images.decode(png_of(2, 1, 8, 3, b"\0\0\1", palette, (b"tRNS", b"\x80")), max_pixels=9)
    assert picture.pixels_hwc.tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert picture.alpha_hw is not None
    assert picture.alpha_hw.tolist() == [[128, 255]]
    assert picture.mode == "P"


@pytest.mark.parametrize(
    ("depth", "rows", "key", "gray", "alpha"),
    [
        (1, b"\0\x40", 1, [0, 255, 0, 0], [255, 0, 255, 255]),
        (2, b"\0\x1b", 1, [0, 85, 170, 255], [255, 0, 255, 255]),
        (4, b"\0\x01\x2f", 2, [0, 17, 34, 255], [255, 255, 0, 255]),
        (8, b"\0\x01\x02\x03\x04", 3, [1, 2, 3, 4], [255, 255, 0, 255]),
    ],
)
def test_gray_of_any_depth_up_to_8_with_a_transparent_key(
    depth: int, rows: bytes, key: int, gray: list[int], alpha: list[int]
) -> None:
    picture = images.decode(png_of(4, 1, depth, 0, rows, (b"tRNS", struct.pack(">H", key))), max_pixels=9)
    assert picture.pixels_hwc[:, :, 0].tolist() == [gray]
    assert picture.alpha_hw is not None
    assert picture.alpha_hw.tolist() == [alpha]
    assert picture.bits == depth


def test_rgb_with_a_transparent_key_has_alpha() -> None:
    key = (b"tRNS", struct.pack(">HHH", 1, 2, 3))
    picture = images.decode(png_of(2, 1, 8, 2, b"\0\1\2\3\1\2\4", key), max_pixels=9)
    assert picture.alpha_hw is not None
    assert picture.alpha_hw.tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (photo(3), {"bigtiff": True}),
        (photo(3), {"tile": (16, 16), "compression": "lzw"}),
        (photo(3).transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate"}),
        (photo(3), {"byteorder": ">", "compression": "deflate", "predictor": True}),
        (photo(1), {"photometric": "miniswhite"}),
        (photo(4), {"extrasamples": ["unassalpha"], "photometric": "rgb"}),
    ],
    ids=["bigtiff", "tiled", "planar", "big-endian", "white is zero", "alpha"],
)
def test_tiffs_of_any_layout_are_read_as_tifffile_wrote_them(array: U8, options: dict[str, Any]) -> None:
    picture = images.decode(tiff(array, **options), max_pixels=MANY)
    expected = array.transpose(1, 2, 0) if "planarconfig" in options else array.reshape(21, 34, -1)
    if options.get("photometric") == "miniswhite":
        expected = 255 - expected
    np.testing.assert_array_equal(picture.pixels_hwc, expected[:, :, :3])
    if array.shape[-1] == 4:
        np.testing.assert_array_equal(picture.alpha_hw, array[:, :, 3])


# --- orientation: how an upright image has to be stored for each value of the tag


STORED: dict[int, Callable[[U8], U8]] = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: np.swapaxes(upright, 0, 1),
    6: lambda upright: np.rot90(upright, 1),  # to be turned 90 degrees clockwise for display
    7: lambda upright: np.rot90(np.swapaxes(upright, 0, 1), 2),
    8: lambda upright: np.rot90(upright, -1),
}


def exif_with(orientation: int | None, **more: object) -> bytes:
    tags = Image.Exif()
    if orientation is not None:
        tags[0x0112] = orientation
    tags[0x010F] = "Maker"
    tags.get_ifd(0x8769).update({0xA002: 34, 0xA003: 21, 0x927C: b"MAKERNOTE", 0x829A: 0.01})
    tags.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 14.0)})
    return tags.tobytes()


def read_exif(block: bytes | None) -> Image.Exif:
    assert block is not None
    tags = Image.Exif()
    tags.load(block)
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_orientation_is_applied_to_pixels_and_alpha_and_then_reads_1(format: str, orientation: int) -> None:
    upright = photo(4)
    options = {"lossless": True, "exact": True} if format == "WEBP" else {"dpi": (300, 200)}
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    picture = images.decode(saved(stored, format, exif=exif_with(orientation), **options), max_pixels=MANY)
    np.testing.assert_array_equal(picture.pixels_hwc, upright[:, :, :3])
    np.testing.assert_array_equal(picture.alpha_hw, upright[:, :, 3])
    assert read_exif(picture.exif).get(0x0112, 1) == 1
    if format != "WEBP":
        assert picture.dpi == pytest.approx((200, 300) if orientation > 4 else (300, 200), rel=1e-4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("format", "options"), [("JPEG", {}), ("TIFF", {"compression": "jpeg"})])
def test_orientation_is_applied_to_jpeg_pixels(format: str, options: dict[str, Any], orientation: int) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](photo(3))))
    plain = np.asarray(Image.open(io.BytesIO(saved(stored, format, quality=90, **options))))
    tag: dict[str, Any] = {"exif": exif_with(orientation)}
    if format == "TIFF":
        tag = {"tiffinfo": {0x0112: orientation}}
    picture = images.decode(saved(stored, format, quality=90, **options, **tag), max_pixels=MANY)
    np.testing.assert_array_equal(STORED[orientation](picture.pixels_hwc.astype(np.uint8)), plain)
    assert picture.pixels_hwc.shape == (21, 34, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["none", "lzw", "deflate"])
def test_orientation_is_applied_to_tiffs_of_other_writers(compression: str, orientation: int) -> None:
    stored = np.ascontiguousarray(STORED[orientation](photo(3)))
    data = tiff(
        stored,
        photometric="rgb",
        compression=None if compression == "none" else compression,
        extratags=[(274, "H", 1, orientation, True)],
    )
    np.testing.assert_array_equal(images.decode(data, max_pixels=MANY).pixels_hwc, photo(3))


def test_orientation_0_and_9_mean_nothing() -> None:
    for value in (0, 9):
        data = saved(Image.fromarray(photo(3)), "PNG", exif=exif_with(value))
        np.testing.assert_array_equal(images.decode(data, max_pixels=MANY).pixels_hwc, photo(3))


def test_orientation_in_xmp_is_put_right_too() -> None:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode().replace('Orientation="1"', 'Orientation="6"'))
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(photo(3), 1)))
    picture = images.decode(saved(stored, "PNG", pnginfo=info), max_pixels=MANY)
    np.testing.assert_array_equal(picture.pixels_hwc, photo(3))
    assert picture.xmp == XMP


# --- what is refused


def cmyk_jpeg() -> bytes:
    return saved(Image.fromarray(photo(3)).convert("CMYK"), "JPEG")


DEEP = (photo(3).astype(np.uint16) * 257).astype(np.uint16)

UNSUPPORTED: dict[str, tuple[Callable[[], bytes], str]] = {
    "big-endian BigTIFF": (
        lambda: tiff(photo(3), photometric="rgb", bigtiff=True, byteorder=">"),
        "a big-endian BigTIFF cannot be read; rewrite it little-endian",
    ),
    "32-bit integers": (lambda: tiff(photo(1).astype(np.uint32)), "integers of 32 bits a sample; at most 16"),
    "double floats": (lambda: tiff(photo(1).astype(np.float64)), "floats of 64 bits; only 32"),
    "half floats": (lambda: tiff(photo(1).astype(np.float16)), "floats of 16 bits; only 32"),
    "floats beyond white": (
        lambda: tiff(photo(3).astype(np.float32), photometric="rgb"),
        "divide them by their white so that they lie in 0 to 1",
    ),
    "floats with a hole": (lambda: tiff(np.full((4, 5), np.nan, np.float32)), "the floats reach from nan"),
    "signed TIFF": (lambda: tiff(photo(1).astype(np.int8)), "neither unsigned integers nor floats"),
    "CMYK TIFF": (lambda: tiff(photo(4), photometric="separated"), "the TIFF is CMYK without a profile"),
    "five channels": (lambda: tiff(photo(5), photometric="rgb", planarconfig="contig"), "2 more channels"),
    "an unspecified channel": (
        lambda: tiff(photo(4), photometric="rgb", extrasamples=["unspecified"]),
        "1 more channels than colours",
    ),
    "CMYK JPEG": (cmyk_jpeg, "the JPEG is CMYK without a profile"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_gray_and_rgb_cannot_hold_is_refused_never_cut(name: str) -> None:
    data, says = UNSUPPORTED[name][0](), UNSUPPORTED[name][1]
    error = refusal(data)
    assert error.code == "unsupported-mode"
    assert says in str(error)


def test_zero_bytes_are_input_empty() -> None:
    assert refusal(b"").code == "input-empty"


@pytest.mark.parametrize(
    "data",
    [
        b"<html>404</html>",
        b"\0" * 5000,
        b"BM is how this text begins, but it is no bitmap",
        b"GIF89a" + b"\0" * 50,
        b"x",
    ],
)
def test_other_bytes_are_not_an_image(data: bytes) -> None:
    assert refusal(data).code == "not-an-image"


WHOLE: dict[str, bytes] = {
    "png": saved(Image.fromarray(photo(3)), "PNG"),
    "jpeg": saved(Image.fromarray(photo(3)), "JPEG"),
    "progressive jpeg": saved(Image.fromarray(photo(3)), "JPEG", progressive=True),
    "tiff": saved(Image.fromarray(photo(3)), "TIFF"),
    "lzw tiff": saved(Image.fromarray(photo(3)), "TIFF", compression="tiff_lzw"),
    "webp": saved(Image.fromarray(photo(3)), "WEBP"),
    "bmp": saved(Image.fromarray(photo(3)), "BMP"),
    "avif": saved(Image.fromarray(photo(3)), "AVIF"),
    "jp2": saved(Image.fromarray(photo(3)), "JPEG2000"),
    "16-bit png": imagecodecs.png_encode(DEEP),
    "12-bit jpeg": imagecodecs.jpeg8_encode(DEEP >> 4, 95, bitspersample=12),
    "10-bit avif": imagecodecs.avif_encode(DEEP >> 6, 95, bitspersample=10),
    "16-bit jp2": imagecodecs.jpeg2k_encode(DEEP, reversible=True, level=0),
    "16-bit tiff": tiff(DEEP, photometric="rgb", compression="lzw", rowsperstrip=4),
    "float tiff": tiff(DEEP[:, :, 0] / np.float32(65535), compression="deflate", predictor=True),
    "16-bit raw tiff": tiff(DEEP, photometric="rgb"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_cut_file_is_corrupt_wherever_it_is_cut(name: str) -> None:
    data = WHOLE[name]
    images.decode(data, max_pixels=MANY)
    # the last row of a BMP ends in padding; what stands last in these TIFFs is no pixel, or not read
    padding = {"bmp": 2, "16-bit raw tiff": 0}.get(name, 0)
    for end in {
        30,
        60,
        len(data) // 3,
        len(data) // 2,
        len(data) - 100,
        len(data) - 5,
        len(data) - 1 - padding,
    }:
        assert refusal(data[:end]).code == "corrupt-image", f"cut after {end} of {len(data)}"


@settings(deadline=None)
@given(place=st.integers(100, len(WHOLE["png"]) - 13), bit=st.integers(0, 7))
def test_a_flipped_bit_in_png_pixels_is_seen(place: int, bit: int) -> None:
    data = bytearray(WHOLE["png"])
    data[place] ^= 1 << bit
    assert refusal(bytes(data)).code == "corrupt-image"


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(WHOLE)), seed=st.integers(0, 2**32 - 1))
def test_a_damaged_file_gives_a_picture_or_an_item_error_and_nothing_else(name: str, seed: int) -> None:
    rng, data = np.random.default_rng(seed), bytearray(WHOLE[name])
    for place in rng.integers(0, len(data) if seed % 2 else min(250, len(data)), rng.integers(1, 4)):
        data[place] = rng.integers(256)
    try:
        picture = images.decode(bytes(data), max_pixels=MANY)
    except ItemError:
        return
    assert picture.pixels_hwc.size > 0


@pytest.mark.parametrize(
    "data",
    [png_of(0, 5, 8, 0, b""), png_of(5, 0, 8, 2, b""), tiff(photo(1))[:4] + b"\x08\0\0\0\0\0\0\0\0\0"],
    ids=["no width", "no height", "no tags"],
)
def test_an_image_without_pixels_is_corrupt(data: bytes) -> None:
    assert refusal(data).code == "corrupt-image"


# --- limits and pages


def huge(format: str) -> bytes:
    """A file of a few bytes that claims many pixels."""
    if format == "png":
        return png_of(60_000, 60_000, 8, 2, b"\0" * 1000)
    if format == "webp":
        header = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + b"\xff\xff\0" + b"\xff\xff\0"
        return b"RIFF" + struct.pack("<I", len(header) + 4) + b"WEBP" + header
    data = bytearray(WHOLE[format])
    if format.endswith("jpeg"):
        at = data.index(b"\xff\xc1" if format == "12-bit jpeg" else b"\xff\xc0") + 5
        data[at : at + 4] = b"\xff\xff\xff\xff"
    if format == "bmp":
        data[18:26] = struct.pack("<ii", 60_000, 60_000)
    if format == "16-bit png":
        return png_of(60_000, 60_000, 16, 2, b"\0" * 1000)
    if format == "jp2":
        at = data.index(b"\xff\x4f\xff\x51") + 8
        data[at : at + 8] = struct.pack(">II", 60_000, 60_000)
    if format in ("tiff", "16-bit tiff"):
        at = data.index(struct.pack("<HHI", 256, 4, 1))
        data[at : at + 12] = struct.pack("<HHII", 256, 4, 1, 4_000_000)
    return bytes(data)


@pytest.mark.parametrize(
    "format", ["png", "jpeg", "tiff", "webp", "bmp", "16-bit png", "jp2", "16-bit tiff", "12-bit jpeg"]
)
def test_too_many_pixels_are_refused_by_the_header(format: str) -> None:
    error = refusal(huge(format), max_pixels=2**24)
    assert error.code == "over-limit"
    assert "`limits.lr_pixels` allows 16777216" in str(error)


def test_the_limit_is_the_last_size_allowed() -> None:
    assert images.decode(WHOLE["png"], max_pixels=21 * 34).pixels_hwc.shape == (21, 34, 3)
    assert refusal(WHOLE["png"], max_pixels=21 * 34 - 1).code == "over-limit"


@pytest.mark.parametrize("format", ["png", "jpeg", "tiff", "lzw tiff", "webp", "bmp", "avif", "16-bit png"])
def test_pillows_own_limit_does_not_count_and_is_left_as_it_was(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert images.decode(WHOLE[format], max_pixels=MANY).pixels_hwc.shape == (21, 34, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_each_page_of_a_tiff_is_an_image_of_its_own() -> None:
    sizes = [(21, 34), (5, 4), (9, 8)]
    pages = [Image.fromarray(photo(3, *size)) for size in sizes]
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    for page, size in enumerate(sizes):
        np.testing.assert_array_equal(images.decode(data, page=page, max_pixels=MANY).pixels_hwc, photo(3, *size))
    assert images.decode(data, page=1, max_pixels=20).pixels_hwc.shape == (5, 4, 3)
    assert refusal(data, max_pixels=20).code == "over-limit"


@pytest.mark.parametrize("page", [-1, 2, 10**9])
def test_a_page_the_file_does_not_have_is_bad_page(page: int) -> None:
    data = saved(Image.fromarray(photo(3)), "TIFF", save_all=True, append_images=[Image.fromarray(photo(1))])
    assert refusal(data, page=page).code == "bad-page"
    assert f"there is no page {page}; the file has 2" in str(refusal(data, page=page))


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "bmp", "avif", "jp2", "16-bit png", "10-bit avif"])
def test_formats_of_one_image_have_page_0_only(format: str) -> None:
    assert refusal(WHOLE[format], page=1).code == "bad-page"


def test_the_depth_of_the_page_counts_not_that_of_the_first() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(photo(3), photometric="rgb")
        writer.write(DEEP, photometric="rgb")
    data = file.getvalue()
    assert images.decode(data, max_pixels=MANY).bits == 8
    deep = images.decode(data, page=1, max_pixels=MANY)
    assert deep.bits == 16
    np.testing.assert_array_equal(deep.pixels_hwc, DEEP)


# --- metadata


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_profile_exif_xmp_and_resolution_come_into_the_picture(format: str) -> None:
    options: dict[str, Any] = {"icc_profile": ICC, "exif": exif_with(1), "dpi": (300, 200), "xmp": XMP}
    if format == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options["pnginfo"] = info
    if format == "TIFF":
        tags = read_exif(exif_with(1))
        tags[700] = XMP
        options["exif"] = tags
    picture = images.decode(saved(Image.fromarray(photo(3)), format, **options), max_pixels=MANY)
    assert picture.icc == ICC
    assert picture.xmp == XMP
    if format != "WEBP":
        assert picture.dpi == pytest.approx((300, 200), rel=1e-4)
    tags = read_exif(picture.exif)
    assert tags[0x010F] == "Maker"
    assert tags.get_ifd(0x8769)[0x927C] == b"MAKERNOTE"
    assert tags.get_ifd(0x8825)[2] == (48.0, 8.0, 14.0)
    if format != "TIFF":
        assert picture.exif == exif_with(1).removeprefix(b"Exif\0\0")


def test_an_image_without_metadata_has_none() -> None:
    for data in WHOLE.values():
        picture = images.decode(data, max_pixels=MANY)
        assert (picture.icc, picture.exif, picture.xmp) == (None, None, None)
    assert images.decode(WHOLE["tiff"], max_pixels=MANY).dpi is None


WRITERS: list[tuple[str, dict[str, Any]]] = [
    ("png", {}),
    ("png", {"png_level": 6}),
    ("tiff", {}),
    ("tiff", {"tiff_compression": "lzw"}),
    ("tiff", {"tiff_compression": "none"}),
]


@pytest.mark.parametrize(("format", "options"), WRITERS)
def test_metadata_is_written_and_read_back(format: str, options: dict[str, Any]) -> None:
    block = exif_with(1).removeprefix(b"Exif\0\0")
    given = picture_of(3, 42, 68, icc=ICC, exif=block, xmp=XMP, dpi=(300.0, 200.0))
    data = images.encode(given, format, images.Options(**options))
    plain = Image.open(io.BytesIO(data))
    plain.load()
    assert plain.info["icc_profile"] == ICC
    assert plain.info["xmp"] == XMP
    assert plain.info["dpi"] == pytest.approx((300, 200), rel=1e-4)
    tags = plain.getexif()
    assert tags[0x010F] == "Maker"
    assert tags.get(0x0112, 1) == 1
    details = tags.get_ifd(0x8769)
    assert (details[0xA002], details[0xA003]) == (68, 42)  # the size of this image, not of the LR one
    assert (details[0x927C], details[0x829A]) == (b"MAKERNOTE", 0.01)
    assert tags.get_ifd(0x8825)[2] == (48.0, 8.0, 14.0)
    again = images.decode(data, max_pixels=MANY)
    assert (again.icc, again.xmp) == (ICC, XMP)


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_exif_that_is_none_costs_only_itself(format: str) -> None:
    for block in (b"rubbish", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"):
        picture = images.decode(images.encode(picture_of(3, exif=block), format), max_pixels=MANY)
        np.testing.assert_array_equal(picture.pixels_hwc, photo(3))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), format=st.sampled_from(["png", "tiff"]))
def test_damaged_exif_never_costs_the_image(seed: int, format: str) -> None:
    rng, block = np.random.default_rng(seed), bytearray(exif_with(6).removeprefix(b"Exif\0\0"))
    for place in rng.integers(8, len(block), rng.integers(1, 5)):
        block[place] = rng.integers(256)
    written = images.encode(picture_of(3, exif=bytes(block)), format)
    picture = images.decode(written, max_pixels=MANY)
    np.testing.assert_array_equal(picture.pixels_hwc, photo(3))


# --- encoding


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize(("format", "options"), WRITERS)
def test_a_picture_is_written_in_the_mode_it_has(
    channels: int, mode: str, format: str, options: dict[str, Any]
) -> None:
    data = images.encode(picture_of(channels), format, images.Options(**options))
    plain = Image.open(io.BytesIO(data))
    assert (plain.mode, plain.format) == (mode, format.upper())
    np.testing.assert_array_equal(np.asarray(plain), photo(channels))


@settings(max_examples=60, deadline=None)
@given(
    pixels=arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))),
    with_alpha=st.booleans(),
    writer=st.sampled_from(WRITERS),
)
def test_what_was_encoded_decodes_to_the_same_pixels(
    pixels: U8, with_alpha: bool, writer: tuple[str, dict[str, Any]]
) -> None:
    alpha = 255 - pixels[:, :, 0] if with_alpha else None
    format, options = writer
    data = images.encode(Picture(pixels, mode="?", format="?", alpha_hw=alpha), format, images.Options(**options))
    picture = images.decode(data, max_pixels=MANY)
    np.testing.assert_array_equal(picture.pixels_hwc, pixels)
    np.testing.assert_array_equal(picture.alpha_hw, alpha)
    if format == "tiff":  # an independent reader
        whole = tifffile.imread(io.BytesIO(data)).reshape(*pixels.shape[:2], -1)
        np.testing.assert_array_equal(whole[:, :, : pixels.shape[2]], pixels)


def test_views_of_read_only_memory_are_encoded() -> None:
    pixels = np.frombuffer(photo(3).tobytes(), np.uint8).reshape(21, 34, 3)
    data = images.encode(Picture(pixels[:, ::-1], mode="RGB", format="png"), "png")
    np.testing.assert_array_equal(images.decode(data, max_pixels=MANY).pixels_hwc, pixels[:, ::-1])


def test_unknown_formats_and_compressions_are_errors_of_the_program() -> None:
    with pytest.raises(ValueError, match="format must be one of png, tiff, jpeg, webp, avif"):
        images.encode(picture_of(3), "gif")
    with pytest.raises(ValueError, match="tiff_compression must be one of deflate, zstd, lzw, none"):
        images.encode(picture_of(3), "tiff", images.Options(tiff_compression="jpeg"))


def test_every_format_written_has_its_ending_in_the_plan_too() -> None:
    assert {format: endings[0] for format, endings in ENDINGS.items()} == images.EXTENSIONS
