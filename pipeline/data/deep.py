"""Decoders for what Pillow would cut to 8 bits or cannot read: samples as the file holds them.

    png    16 bits                      imagecodecs (libpng)
    jpeg   12 bits                      imagecodecs (libjpeg-turbo)
    avif   10 and 12 bits               imagecodecs (libavif)
    jp2    8 to 16 bits                 imagecodecs (OpenJPEG)
    tiff   above 8 bits, floats, CMYK, Lab   tifffile

Sizes are checked by the caller before. Knows bytes only.
"""

import logging
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from pipeline.data import boxes, colour
from pipeline.data.colour import Stored
from pipeline.data.tiff_layout import Layout, interpret
from pipeline.errors import ItemError

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what matters about a file is raised here

_JPEG_END = b"\xff\xd9"


def png(data: bytes) -> Stored:
    """Gray or RGB of 16 bits; a transparent key becomes alpha."""
    return _split(imagecodecs.png_decode(data), 16)


def jpeg(data: bytes, bits: int, components: int) -> Stored:
    """Gray or RGB of 12 bits, stretched to 16."""
    if components == 4:
        raise ItemError("unsupported-mode", f"the JPEG is CMYK of {bits} bits; convert it to 8 bits or to TIFF")
    if _JPEG_END not in data[-64:]:  # the codec would fill what is missing with gray
        raise ItemError("corrupt-image", "the jpeg is damaged: the file is cut short")
    return _split(imagecodecs.jpeg8_decode(data), bits)


def avif(data: bytes, bits: int, frame: int) -> Stored:
    """Gray or RGB of 10 or 12 bits, stretched to 16."""
    samples = imagecodecs.avif_decode(data)
    return _split(samples if samples.ndim < 4 else samples[frame], bits)


def jp2(data: bytes, facts: boxes.J2kFacts) -> Stored:
    """Gray, RGB or CMYK of up to 16 bits."""
    if facts.signed or facts.subsampled or len(set(facts.bits)) > 1 or max(facts.bits) > 16:
        what = "signed or subsampled components, or of unequal depth or above 16 bits"
        raise ItemError("unsupported-mode", f"the jp2 has {what}")
    if not facts.whole:
        raise ItemError("corrupt-image", "the jp2 is damaged: the file is cut short")
    samples = imagecodecs.jpeg2k_decode(data)
    samples = samples.reshape(*samples.shape[:2], -1)
    if samples.shape[2] > 4 or (samples.shape[2] == 4 and not (facts.cmyk or facts.alpha)):
        raise ItemError("unsupported-mode", f"the jp2 has {samples.shape[2]} channels, and not only colours and alpha")
    if facts.cmyk:
        return colour.from_cmyk(colour.full_scale(samples, None, facts.bits[0]), facts.icc, "jp2")
    stored = _split(samples, facts.bits[0])
    stored = colour.unmultiplied(stored) if facts.alpha == "associated" else stored
    return Stored(stored.colours, stored.alpha, facts.icc)


def tiff(data: bytes, page: int, layout: Layout) -> Stored:
    """Any page that `tiff_layout` accepts."""
    with tifffile.TiffFile(BytesIO(data)) as file:
        found = file.pages[page]
        assert isinstance(found, tifffile.TiffPage)
        ends = (start + length for start, length in zip(found.dataoffsets, found.databytecounts, strict=True))
        if max(ends, default=0) > len(data):
            raise ItemError("corrupt-image", "the tiff is damaged: the file is cut short")
        return interpret(_interleaved(found), layout)


def _interleaved(page: tifffile.TiffPage) -> npt.NDArray[Any]:
    """(h, w, c) whatever the planar configuration; cut strips are errors."""
    samples = page.asarray()
    separate = page.planarconfig == 2 and page.samplesperpixel > 1
    samples = np.moveaxis(samples, 0, -1) if separate else samples
    return samples.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)


def _split(samples: npt.NDArray[Any], bits: int) -> Stored:
    """Colours and alpha of 1 to 4 interleaved channels."""
    samples = samples.reshape(*samples.shape[:2], -1)
    if samples.shape[2] % 2:
        return colour.full_scale(samples, None, bits)
    return colour.full_scale(samples[:, :, :-1], samples[:, :, -1], bits)
