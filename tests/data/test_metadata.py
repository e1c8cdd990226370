"""Metadata before and after, as exiftool reads both: what must stay stays, what changed tells the truth."""

import io
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational

from pipeline.data import images, xmp
from pipeline.data.metadata import enlarged
from pipeline.records import Picture

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
NOTE = {"software": "unfold 1.0", "model": "abc<&>123", "scale": "2"}
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    b'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    b'xmlns:xmp="http://ns.adobe.com/xap/1.0/" tiff:Orientation="%d" tiff:ImageWidth="30" tiff:ImageLength="20" '
    b'exif:PixelXDimension="30" exif:PixelYDimension="20"><dc:creator><rdf:Seq><rdf:li>A. Person</rdf:li></rdf:Seq>'
    b"</dc:creator><xmp:Thumbnails><rdf:Alt><rdf:li>AAAA</rdf:li></rdf:Alt></xmp:Thumbnails>"
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)
KEPT = ("EXIF:Make", "EXIF:Model", "EXIF:Artist", "EXIF:Copyright", "EXIF:ExposureTime", "EXIF:ISO", "EXIF:LensModel",
        "EXIF:DateTimeOriginal", "EXIF:GPSLatitude", "EXIF:GPSLongitude", "XMP:Creator",
        "ICC_Profile:ProfileDescription", "ICC_Profile:RedMatrixColumn", "ICC_Profile:RedTRC")  # fmt: skip


def exif_of(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x010F], tags[0x0110], tags[0x013B], tags[0x8298] = "Maker", "Model 7", "A. Person", "nobody"
    tags[0x0112] = orientation
    tags[0x011A], tags[0x011B], tags[0x0128] = IFDRational(300), IFDRational(150), 2
    details = {0xA002: 30, 0xA003: 20, 0x829A: IFDRational(1, 250), 0x8827: 400, 0x9003: "2020:01:02 03:04:05"}
    tags.get_ifd(0x8769).update({**details, 0xA434: "Lens 50", 0xA20E: IFDRational(5000), 0xA20F: IFDRational(5000)})
    latitude, longitude = (tuple(map(IFDRational, degrees)) for degrees in ((48, 8, 14), (11, 34, 1)))
    tags.get_ifd(0x8825).update({1: "N", 2: latitude, 3: "E", 4: longitude})
    return tags


def with_thumbnail(block: bytes) -> bytes:
    """An EXIF block of Pillow's, linked to a second directory with a JPEG thumbnail."""
    thumbnail = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(thumbnail, "JPEG")
    block = block.removeprefix(b"Exif\0\0")
    order = "little" if block[:2] == b"II" else "big"
    first = int.from_bytes(block[4:8], order)
    link = first + 2 + 12 * int.from_bytes(block[first : first + 2], order)
    second = len(block) + len(block) % 2
    start = second + 2 + 3 * 12 + 4
    entries = [(0x0103, 3, 6), (0x0201, 4, start), (0x0202, 4, len(thumbnail.getvalue()))]
    directory = (3).to_bytes(2, order) + b"".join(
        tag.to_bytes(2, order) + kind.to_bytes(2, order) + (1).to_bytes(4, order)
        + (value.to_bytes(2, order) + b"\0\0" if kind == 3 else value.to_bytes(4, order))
        for tag, kind, value in entries
    )  # fmt: skip
    linked = block[:link] + second.to_bytes(4, order) + block[link + 4 :] + bytes(len(block) % 2)
    return b"Exif\0\0" + linked + directory + bytes(4) + thumbnail.getvalue()


def stored(upright: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    turns: dict[int, Any] = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
        5: lambda a: np.swapaxes(a, 0, 1), 6: np.rot90, 7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
        8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    return np.ascontiguousarray(turns[orientation](upright))


def source(format: str, orientation: int) -> bytes:
    upright = np.zeros((30, 20, 3), np.uint8)
    upright[:15, :, 0], upright[:, :10, 1] = 255, 255
    tags = exif_of(orientation)
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", (XMP % orientation).decode())
    known: dict[str, Any] = {"pnginfo": info} if format == "PNG" else {}
    known |= {"icc_profile": ICC, "dpi": (300, 150), "xmp": XMP % orientation, "quality": 95}
    file = io.BytesIO()
    image = Image.fromarray(stored(upright, orientation))
    if format == "TIFF":
        tags = Image.Exif()
        tags.load(exif_of(orientation).tobytes())
        tags[700] = XMP % orientation
        image.save(file, format, icc_profile=ICC, dpi=(300, 150), exif=tags)
    else:
        image.save(file, format, exif=with_thumbnail(tags.tobytes()), **known)
    return file.getvalue()


def doubled(picture: Picture, note: dict[str, str] | None = NOTE) -> Picture:
    larger = picture.pixels_hwc.repeat(2, 0).repeat(2, 1)
    return enlarged(replace(picture, pixels_hwc=larger), 2, note)


def exiftool(*files: Path) -> list[dict[str, Any]]:
    tool = shutil.which("exiftool")
    if tool is None:
        pytest.skip("exiftool is not installed (Debian: libimage-exiftool-perl)")
    shown = subprocess.run([tool, "-json", "-G0", "-n", "-b", *map(str, files)], capture_output=True, check=True)
    found: list[dict[str, Any]] = json.loads(shown.stdout)
    return found


# every orientation in the commonest format, and each way from format to format
FILES = [
    *(("JPEG", orientation, "jpeg") for orientation in range(1, 9)),
    ("JPEG", 6, "tiff"), ("JPEG", 8, "png"), ("JPEG", 5, "webp"), ("JPEG", 7, "avif"),
    ("TIFF", 6, "tiff"), ("TIFF", 1, "png"), ("TIFF", 3, "jpeg"),
    ("PNG", 6, "png"), ("PNG", 1, "tiff"),
    ("WEBP", 1, "webp"), ("WEBP", 6, "png"), ("AVIF", 1, "avif"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("before", "orientation", "after"), FILES)
def test_exiftool_finds_what_was_there_and_the_truth_where_it_changed(
    before: str, orientation: int, after: str, tmp_path: Path
) -> None:
    first, second = tmp_path / f"a.{before.lower()}", tmp_path / f"b{images.EXTENSIONS[after]}"
    first.write_bytes(source(before, orientation))
    second.write_bytes(images.encode(doubled(images.decode(first.read_bytes(), max_pixels=10**6)), after))
    old, new = exiftool(first, second)
    for name in KEPT:
        assert name in old
        assert new.get(name) == old[name], name
    assert new.get("EXIF:Orientation", 1) == 1
    assert new.get("XMP:Orientation") == 1
    assert (new["EXIF:ExifImageWidth"], new["EXIF:ExifImageHeight"]) == (40, 60)
    assert (new["XMP:ImageWidth"], new["XMP:ExifImageHeight"]) == (40, 60)
    assert new["EXIF:FocalPlaneXResolution"] == 2 * old["EXIF:FocalPlaneXResolution"]
    assert not [name for name in new if "Thumbnail" in name or name == "XMP:Thumbnails"]
    assert (new["XMP:Software"], new["XMP:Model"], new["XMP:Scale"]) == ("unfold 1.0", "abc<&>123", 2)
    expected = (300.0, 600.0) if orientation > 4 else (600.0, 300.0)
    assert density(new) == pytest.approx(expected, rel=1e-3)


def density(found: dict[str, Any]) -> tuple[float, float]:
    """Dots an inch, wherever the format keeps them."""
    for group, unit in (("EXIF", 1.0), ("JFIF", 1.0)):
        if f"{group}:XResolution" in found:
            return found[f"{group}:XResolution"] * unit, found[f"{group}:YResolution"] * unit
    return found["PNG:PixelsPerUnitX"] * 0.0254, found["PNG:PixelsPerUnitY"] * 0.0254


def test_the_physical_size_stays_so_the_resolution_grows() -> None:
    picture = images.decode(source("JPEG", 6), max_pixels=10**6)
    assert picture.dpi == pytest.approx((150, 300))
    assert doubled(picture).dpi == pytest.approx((300, 600))


def test_the_note_can_be_left_out_and_is_not_repeated() -> None:
    picture = images.decode(source("JPEG", 1), max_pixels=10**6)
    bare = doubled(picture, None).xmp
    assert bare is not None
    assert b"unfold" not in bare
    once = xmp.with_note(bare, NOTE)
    assert once is not None
    assert xmp.with_note(once, NOTE) == once
    assert once.count(b"unfold:scale") == 1


def test_an_image_without_xmp_gets_a_packet_for_the_note_only() -> None:
    plain = Picture(np.zeros((4, 4, 3), np.uint8), mode="RGB", format="png")
    assert enlarged(plain, 2).xmp is None
    packet = enlarged(plain, 2, NOTE).xmp
    assert packet is not None
    assert b'unfold:model="abc&lt;&amp;&gt;123"' in packet


def test_what_is_no_rdf_is_left_as_it_is() -> None:
    assert xmp.with_note(b"rubbish", NOTE) == b"rubbish"


def test_a_word_of_the_note_in_somebody_elses_text_stays() -> None:
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" photoshop:Headline="How to unfold: a map" dc:rights="me"/>'
        b"</rdf:RDF></x:xmpmeta>"
    )
    noted = xmp.with_note(packet, NOTE)
    assert noted is not None
    assert b'photoshop:Headline="How to unfold: a map" dc:rights="me"' in noted
    merged = noted.replace(b'dc:rights="me"', b'dc:rights="me" unfold:scale="9"')
    assert xmp.with_note(merged, NOTE) == noted
