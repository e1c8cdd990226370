"""Every combination of format, mode and depth, as a real file: restored, converted or refused.

The table of docs/formats.md is made of these cells: UNFOLD_WRITE_DOCS=1 pytest tests/data/test_formats.py
"""

import io
import os
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import pyvips
import tifffile
from PIL import Image, ImageCms

from pipeline.data import images
from pipeline.errors import ItemError
from pipeline.records import white

Array = npt.NDArray[Any]
DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "formats.md"
H, W = 48, 70
KEPT = "restored"


def photo(channels: int, dtype: npt.DTypeLike = np.uint8, bits: int | None = None) -> Array:
    """Smooth colours that use every bit: (h, w, channels), (h, w) for one."""
    y, x, c = np.ogrid[:H, :W, :channels]
    unit = 0.5 + 0.3 * np.sin(x / 9 + c / 2) * np.cos(y / 7 - c / 3) + 0.004 * ((x * 7 + y * 13 + c * 3) % 17) / 17
    if np.dtype(dtype).kind == "f":
        return np.squeeze(unit.astype(dtype))
    peak = white(dtype) if bits is None else 2**bits - 1
    return np.squeeze(np.rint(unit * peak).astype(dtype))


def full(array: Array, bits: int) -> Array:
    """As it must be read: stretched to 8 or 16 bits."""
    wide = np.uint8 if bits <= 8 else np.uint16
    return np.rint(array.astype(np.float64) * white(wide) / (2**bits - 1)).astype(wide)


# --- makers


def vips(array: Array, kind: str | None = None, **set_fields: Any) -> pyvips.Image:
    pixels = array.reshape(*array.shape[:2], -1)
    formats = {"uint8": "uchar", "uint16": "ushort", "float32": "float", "int16": "short"}
    bands = pixels.shape[2]
    image = pyvips.Image.new_from_memory(pixels.tobytes(), W, H, bands, formats[array.dtype.name])
    deep = array.dtype == np.uint16
    kind = kind or ("grey16" if deep else "b-w") if bands < 3 else kind or ("rgb16" if deep else "srgb")
    return image.copy(interpretation=kind)


def vips_file(suffix: str, array: Array, kind: str | None = None, **options: Any) -> bytes:
    return bytes(vips(array, kind).write_to_buffer(suffix, **options))


def vips_avif(array: Array, bits: int) -> bytes:
    shifted = array if bits == 8 else (array.astype(np.uint32) << (16 - bits)).astype(np.uint16)
    return bytes(vips(shifted).heifsave_buffer(compression="av1", bitdepth=bits, lossless=True))


def pillow(format: str, mode: str, array: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(array)
    (image if mode == "I;16" else image.convert(mode)).save(file, format, **options)
    return file.getvalue()


def tiff(array: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def by_hand_png(depth: int, colour: int, samples: Array, *chunks: tuple[bytes, bytes]) -> bytes:
    """Samples packed into bytes by numpy: no encoder of these packages writes every depth."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    bits = np.unpackbits(samples.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - depth :].reshape(H, -1)
    rows = np.packbits(bits, axis=1)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", W, H, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))


def lab() -> Array:
    """(h, w, 3) uint8 as Pillow holds it: a and b in two's complement."""
    image = ImageCms.profileToProfile(Image.fromarray(photo(3)), SRGB, LAB, outputMode="LAB")
    return np.asarray(image)


def cmyk(depth: int = 8) -> pyvips.Image:
    """With libvips' own ink profile embedded."""
    image = vips(photo(3)).icc_export(output_profile="cmyk", depth=depth)
    return image.copy(interpretation="cmyk")


def inks_by_littlecms() -> Array:
    """The same inks in sRGB by another binding of LittleCMS, relative colorimetric, black kept black."""
    image = Image.open(io.BytesIO(bytes(cmyk().tiffsave_buffer())))
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    way = {"renderingIntent": ImageCms.Intent.RELATIVE_COLORIMETRIC, "flags": ImageCms.Flags.BLACKPOINTCOMPENSATION}
    return np.asarray(ImageCms.profileToProfile(image, profile, SRGB, outputMode="RGB", **way))


def bare_cmyk(suffix: str) -> bytes:
    return bytes(cmyk().write_to_buffer(suffix, keep="none"))


def premultiplied(dtype: npt.DTypeLike) -> Array:
    straight, alpha = photo(4, dtype), photo(4, dtype)[:, :, 3:]
    colours = np.rint(straight[:, :, :3].astype(np.float64) * alpha / white(dtype))
    return np.concatenate([colours.astype(dtype), alpha], axis=2)


# --- cells


@dataclass(frozen=True)
class Cell:
    """One row of the table. truth: (h, w[, c]) that must be read, within `within` levels on average."""

    format: str
    samples: str
    bits: str
    made_by: str
    make: Callable[[], bytes]
    truth: Callable[[], Array] | None = None
    within: float = 0.0
    becomes: str = KEPT
    refused: str = ""

    @property
    def name(self) -> str:
        return f"{self.format} {self.samples} {self.bits}"


def png_cells() -> list[Cell]:
    cells = [
        Cell("PNG", mode, str(8 * np.dtype(t).itemsize), "libvips", lambda c=c, t=t: vips_file(".png", photo(c, t)),
             lambda c=c, t=t: photo(c, t))
        for c, mode in ((1, "gray"), (2, "gray+alpha"), (3, "RGB"), (4, "RGBA"))
        for t in (np.uint8, np.uint16)
    ]  # fmt: skip
    cells += [
        Cell("PNG", "gray", str(n), "by hand", lambda n=n: by_hand_png(n, 0, photo(1, bits=n)),
             lambda n=n: full(photo(1, bits=n), n), becomes="converted to 8 bits")
        for n in (1, 2, 4)
    ]  # fmt: skip
    palette = bytes(range(0, 255, 3)) * 10
    colours = np.frombuffer(palette[:768], np.uint8).reshape(-1, 3)
    cells += [
        Cell("PNG", "palette", str(n), "by hand",
             lambda n=n: by_hand_png(n, 3, photo(1, bits=n), (b"PLTE", palette[: 3 * 2**n])),
             lambda n=n: colours[photo(1, bits=n)], becomes="converted to RGB")
        for n in (1, 2, 4, 8)
    ]  # fmt: skip
    cells.append(
        Cell("PNG", "RGB, interlaced", "16", "libvips", lambda: vips_file(".png", photo(3, np.uint16), interlace=True),
             lambda: photo(3, np.uint16))
    )  # fmt: skip
    key = int(photo(1)[0, 0])
    cells.append(
        Cell("PNG", "gray with a transparent key", "8", "by hand",
             lambda: by_hand_png(8, 0, photo(1), (b"tRNS", struct.pack(">H", key))),
             lambda: np.stack([photo(1), np.where(photo(1) == key, 0, 255).astype(np.uint8)], -1),
             becomes="converted to gray+alpha")
    )  # fmt: skip
    return cells


def jpeg_cells() -> list[Cell]:
    twelve = photo(3, np.uint16, 12)
    return [
        Cell("JPEG", "gray", "8", "libvips", lambda: vips_file(".jpg", photo(1), Q=98), lambda: photo(1), 1.5),
        Cell("JPEG", "RGB", "8", "libvips", lambda: vips_file(".jpg", photo(3), Q=98), lambda: photo(3), 1.5),
        Cell("JPEG", "RGB, progressive, 4:2:0", "8", "libvips",
             lambda: vips_file(".jpg", photo(3), Q=98, interlace=True, subsample_mode="on"), lambda: photo(3), 1.5),
        Cell("JPEG", "CMYK with a profile", "8", "libvips", lambda: bytes(cmyk().jpegsave_buffer(Q=98)),
             inks_by_littlecms, 2.0, becomes="converted to sRGB"),
        Cell("JPEG", "CMYK without a profile", "8", "libvips", lambda: bare_cmyk(".jpg"),
             refused="CMYK without a profile"),
        Cell("JPEG", "gray", "12", "imagecodecs",
             lambda: imagecodecs.jpeg8_encode(twelve[:, :, 0].copy(), 98, bitspersample=12),
             lambda: full(twelve[:, :, 0], 12), 64, becomes="converted to 16 bits"),
        Cell("JPEG", "RGB", "12", "imagecodecs", lambda: imagecodecs.jpeg8_encode(twelve, 98, bitspersample=12),
             lambda: full(twelve, 12), 300, becomes="converted to 16 bits"),
    ]  # fmt: skip


def tiff_cells() -> list[Cell]:
    def cell(samples: str, bits: str, by: str, make: Callable[[], bytes], *rest: Any, **more: Any) -> Cell:
        return Cell("TIFF", samples, bits, by, make, *rest, **more)

    cells = []
    for c, mode in ((1, "gray"), (2, "gray+alpha"), (3, "RGB"), (4, "RGBA")):
        for t in (np.uint8, np.uint16, np.float32):
            bits, truth = str(8 * np.dtype(t).itemsize), lambda c=c, t=t: photo(c, t)
            if t != np.float32 or c % 2:
                save = lambda c=c, t=t: vips_file(".tif", photo(c, t), compression="lzw")  # noqa: E731
                by = "libvips"
            else:
                kinds = {"photometric": "rgb" if c > 2 else "minisblack", "extrasamples": ["unassalpha"]}
                save = lambda c=c, k=kinds: tiff(photo(c, np.float32), planarconfig="contig", **k)  # noqa: E731
                by = "tifffile"
            if t == np.float32 and c == 3:
                save, by = (lambda: tiff(photo(3, np.float32), photometric="rgb")), "tifffile"
            cells.append(cell(f"{mode}", f"{bits}{' float' if t == np.float32 else ''}", by, save, truth))
    for compression in ("none", "deflate", "packbits"):
        cells.append(
            cell(f"RGB, {compression}, tiled", "16", "libvips",
                 lambda k=compression: vips_file(".tif", photo(3, np.uint16), compression=k, tile=True,
                                                 tile_width=16, tile_height=16),
                 lambda: photo(3, np.uint16))
        )  # fmt: skip
    for t in (np.uint8, np.uint16, np.float32):
        bits = f"{8 * np.dtype(t).itemsize}{' float' if t == np.float32 else ''}"
        cells.append(
            cell("RGB, zstd with predictor", bits, "tifffile",
                 lambda t=t: tiff(photo(3, t), photometric="rgb", compression="zstd", predictor=True),
                 lambda t=t: photo(3, t))
        )  # fmt: skip
        cells.append(
            cell("RGB, planar", bits, "tifffile",
                 lambda t=t: tiff(photo(3, t).transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
                 lambda t=t: photo(3, t))
        )  # fmt: skip
    for t in (np.uint8, np.uint16):
        bits = str(8 * np.dtype(t).itemsize)
        cells += [
            cell("RGB, BigTIFF", bits, "libvips", lambda t=t: vips_file(".tif", photo(3, t), bigtiff=True),
                 lambda t=t: photo(3, t)),
            cell("gray, white is 0", bits, "tifffile",
                 lambda t=t: tiff((white(t) - photo(1, t)).astype(t), photometric="miniswhite"),
                 lambda t=t: photo(1, t), becomes="converted to black is 0"),
            cell("RGBA, associated alpha", bits, "tifffile",
                 lambda t=t: tiff(premultiplied(t), photometric="rgb", extrasamples=["assocalpha"]),
                 lambda t=t: photo(4, t), 1.0, becomes="converted to unassociated alpha"),
            cell("CMYK with a profile", bits, "libvips", lambda b=bits: bytes(cmyk(int(b)).tiffsave_buffer()),
                 lambda t=t: inks_by_littlecms() if t == np.uint8 else inks_by_littlecms().astype(np.uint16) * 257,
                 2.0 * (1 if t == np.uint8 else 257), becomes="converted to sRGB"),
            cell("Lab", bits, "Pillow" if t == np.uint8 else "tifffile", lambda t=t: lab_tiff(t),
                 lambda t=t: photo(3) if t == np.uint8 else photo(3).astype(np.uint16) * 257,
                 2.0 * (1 if t == np.uint8 else 257), becomes="converted to sRGB"),
        ]  # fmt: skip
    return cells + odd_tiff_cells()


def lab_tiff(dtype: npt.DTypeLike) -> bytes:
    if dtype == np.uint8:
        file = io.BytesIO()
        ImageCms.profileToProfile(Image.fromarray(photo(3)), SRGB, LAB, outputMode="LAB").save(file, "TIFF")
        return file.getvalue()
    wide = lab().astype(np.int32)
    wide[:, :, 0] *= 257
    wide[:, :, 1:] *= 256
    return tiff(wide.astype(np.uint16), photometric="cielab")


def odd_tiff_cells() -> list[Cell]:
    mono = photo(1) > 127
    five = np.concatenate([photo(4), photo(1)[:, :, None]], axis=2)

    def refused(samples: str, bits: str, make: Callable[[], bytes], says: str) -> Cell:
        return Cell("TIFF", samples, bits, "tifffile", make, refused=says)

    return [
        Cell("TIFF", "gray, CCITT G4", "1", "Pillow", lambda: pillow("TIFF", "1", mono, compression="group4"),
             lambda: mono.astype(np.uint8) * 255, becomes="converted to 8 bits"),
        Cell("TIFF", "palette", "8", "Pillow", lambda: pillow("TIFF", "P", photo(3)),
             lambda: np.asarray(Image.fromarray(photo(3)).convert("P").convert("RGB")), becomes="converted to RGB"),
        Cell("TIFF", "RGB, JPEG", "8", "tifffile", lambda: tiff(photo(3), photometric="rgb", compression="jpeg",
             compressionargs={"level": 98}), lambda: photo(3), 3.0),
        Cell("TIFF", "RGB, WebP", "8", "tifffile",
             lambda: tiff(photo(3), photometric="rgb", compression="webp", compressionargs={"level": 0}),
             lambda: photo(3), 4.0),
        Cell("TIFF", "gray", "12", "by hand",
             lambda: packed_tiff(photo(1, np.uint16, 12)), lambda: full(photo(1, np.uint16, 12), 12),
             becomes="converted to 16 bits"),
        Cell("TIFF", "RGB, big-endian", "16", "tifffile",
             lambda: tiff(photo(3, np.uint16), photometric="rgb", byteorder=">"), lambda: photo(3, np.uint16)),
        Cell("TIFF", "second page", "16", "tifffile", lambda: two_pages(), lambda: photo(3, np.uint16)),
        Cell("TIFF", "CMYK without a profile", "8", "libvips", lambda: bare_cmyk(".tif"),
             refused="CMYK without a profile"),
        refused("RGB, BigTIFF, big-endian", "8",
                lambda: tiff(photo(3), photometric="rgb", bigtiff=True, byteorder=">"), "rewrite it little-endian"),
        refused("gray, signed", "16", lambda: tiff(photo(1).astype(np.int16)), "neither unsigned integers nor floats"),
        refused("gray", "32", lambda: tiff(photo(1).astype(np.uint32)), "at most 16 can be kept"),
        refused("gray", "64 float", lambda: tiff(photo(1).astype(np.float64)), "only 32 can be kept"),
        refused("gray", "16 float", lambda: tiff(photo(1).astype(np.float16)), "only 32 can be kept"),
        refused("gray, beyond 0 to 1", "32 float", lambda: tiff(photo(1).astype(np.float32)), "divide them by their"),
        refused("gray, complex", "64", lambda: tiff(photo(1).astype(np.complex64)), "neither unsigned integers"),
        refused("RGB and two channels", "8",
                lambda: tiff(five, photometric="rgb", planarconfig="contig"), "2 more channels than colours"),
        refused("RGB and an unnamed channel", "8",
                lambda: tiff(photo(4), photometric="rgb", extrasamples=["unspecified"]), "1 more channels"),
    ]  # fmt: skip


def packed_tiff(array: Array) -> bytes:
    """Two samples in three bytes, as scanners write them."""
    high, low = array.reshape(-1, 2).T.astype(np.uint32)
    pairs = high << 12 | low
    packed = np.stack([pairs >> 16, pairs >> 8, pairs], -1).astype(np.uint8).tobytes()
    entries = [(256, 4, W), (257, 4, H), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
               (278, 4, H), (279, 4, len(packed))]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    return struct.pack("<2sHI", b"II", 42, 8 + len(packed)) + packed + directory + bytes(4)


def two_pages() -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(photo(1), photometric="minisblack")
        writer.write(photo(3, np.uint16), photometric="rgb")
    return file.getvalue()


def other_cells() -> list[Cell]:
    twelve, deep = photo(3, np.uint16, 12), photo(3, np.uint16)
    cells = [
        Cell("WebP", "RGB, lossy", "8", "libvips", lambda: vips_file(".webp", photo(3), Q=95), lambda: photo(3), 4.0),
        Cell("WebP", "RGB, lossless", "8", "libvips", lambda: vips_file(".webp", photo(3), lossless=True),
             lambda: photo(3)),
        Cell("WebP", "RGBA, lossless", "8", "libvips", lambda: vips_file(".webp", photo(4), lossless=True),
             lambda: photo(4)),
        Cell("BMP", "gray", "8", "imagecodecs", lambda: imagecodecs.bmp_encode(photo(1)), lambda: photo(1)),
        Cell("BMP", "RGB", "8", "imagecodecs", lambda: imagecodecs.bmp_encode(photo(3)), lambda: photo(3)),
        Cell("BMP", "gray", "1", "Pillow", lambda: pillow("BMP", "1", photo(1) > 127),
             lambda: (photo(1) > 127).astype(np.uint8) * 255, becomes="converted to 8 bits"),
        Cell("BMP", "palette", "8", "Pillow", lambda: pillow("BMP", "P", photo(3)),
             lambda: np.asarray(Image.fromarray(photo(3)).convert("P").convert("RGB")), becomes="converted to RGB"),
        Cell("JPEG 2000", "gray", "16", "Pillow", lambda: pillow("JPEG2000", "I;16", photo(1, np.uint16)),
             lambda: photo(1, np.uint16)),
        Cell("JPEG 2000", "RGB", "12", "imagecodecs",
             lambda: imagecodecs.jpeg2k_encode(twelve, reversible=True, level=0, bitspersample=12),
             lambda: full(twelve, 12), becomes="converted to 16 bits"),
        Cell("JPEG 2000", "RGB", "16", "imagecodecs",
             lambda: imagecodecs.jpeg2k_encode(deep, reversible=True, level=0), lambda: deep),
        Cell("JPEG 2000", "RGB, bare codestream", "8", "Pillow",
             lambda: pillow("JPEG2000", "RGB", photo(3), no_jp2=True), lambda: photo(3)),
        Cell("GIF", "palette", "8", "Pillow", lambda: pillow("GIF", "P", photo(3)), refused="not one of png"),
        Cell("JPEG XL", "RGB", "8", "imagecodecs", lambda: imagecodecs.jpegxl_encode(photo(3)),
             refused="not one of png"),
    ]  # fmt: skip
    for c, mode, name in ((1, "L", "gray"), (2, "LA", "gray+alpha"), (3, "RGB", "RGB"), (4, "RGBA", "RGBA")):
        cells.append(
            Cell("JPEG 2000", name, "8", "Pillow", lambda c=c, m=mode: pillow("JPEG2000", m, photo(c)),
                 lambda c=c: photo(c))
        )  # fmt: skip
    for bits in (8, 10, 12):
        t = np.uint8 if bits == 8 else np.uint16
        how = KEPT if bits == 8 else "converted to 16 bits"
        for c, name in ((1, "gray"), (3, "RGB"), (4, "RGBA")):
            if c == 1 and bits > 8:
                continue
            cells.append(
                Cell("AVIF", name, str(bits), "libvips" if c > 1 else "imagecodecs",
                     lambda c=c, b=bits, t=t: vips_avif(photo(c, t, b), b) if c > 1 else
                     imagecodecs.avif_encode(photo(1), 100),
                     lambda c=c, b=bits, t=t: full(photo(c, t, b), b), 1.0, becomes=how)
            )  # fmt: skip
    return cells


CELLS = [*png_cells(), *jpeg_cells(), *tiff_cells(), *other_cells()]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_cell_of_the_table_is_true(cell: Cell) -> None:
    data, page = cell.make(), 1 if cell.samples == "second page" else 0
    if cell.refused:
        with pytest.raises(ItemError, match=re.escape(cell.refused)) as caught:
            images.decode(data, page=page, max_pixels=10**6)
        assert caught.value.code in ("unsupported-mode", "not-an-image")
        return
    assert cell.truth is not None
    picture = images.decode(data, page=page, max_pixels=10**6)
    truth = cell.truth().reshape(H, W, -1)
    assert picture.pixels_hwc.dtype == truth.dtype
    read = np.dstack([picture.pixels_hwc] + ([] if picture.alpha_hw is None else [picture.alpha_hw]))
    assert read.shape == truth.shape, "gray stays gray, and alpha is there where it was"
    assert np.abs(read.astype(np.float64) - truth).mean() <= cell.within
    assert str(picture.bits) == cell.bits.split()[0] or "palette" in cell.name or cell.format == "BMP"
    assert images.dimensions(data, page=page) == (W, H)
    assert (picture.converted is not None) == ("sRGB" in cell.becomes)
    written = tifffile.imread(io.BytesIO(images.encode(picture, "tiff")))
    np.testing.assert_array_equal(written.reshape(read.shape), read)


def test_the_names_of_the_cells_differ_and_there_are_enough() -> None:
    assert len({cell.name for cell in CELLS}) == len(CELLS) >= 60


def test_the_table_in_the_docs_is_made_of_these_cells() -> None:
    head = "| format | samples | bits | file made by | what becomes of it |\n|---|---|---|---|---|\n"
    rows = (
        f"| {cell.format} | {cell.samples} | {cell.bits} | {cell.made_by} | "
        + (f"refused: *{cell.refused}*" if cell.refused else cell.becomes)
        + " |\n"
        for cell in CELLS
    )
    table = head + "".join(rows)
    text = DOCS.read_text(encoding="utf-8")
    start, end = text.index("<!-- cells -->\n") + len("<!-- cells -->\n"), text.index("<!-- end of cells -->")
    if os.environ.get("UNFOLD_WRITE_DOCS"):
        DOCS.write_text(text[:start] + table + text[end:], encoding="utf-8")
    else:
        assert text[start:end] == table
