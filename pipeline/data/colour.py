"""Samples as files store them -> gray or RGB over the full scale of uint8, uint16 or float32.

    gray, RGB       kept as stored, in the file's own profile and transfer curve: the authors' network
                    was trained on stored values, and going to linear light and back costs precision
    9 to 15 bits    stretched to 16, one value for one value
    floats          must lie in [0, 1]: sigma is a share of white, so white must be known
    CMYK            to sRGB by the embedded profile; without one the colours are anybody's guess: refused
    Lab             to sRGB; colours beyond its gamut are cut, which the outcome says
    associated      divided by alpha, so that resampling mixes no black into the edges

Pointwise, so windows of an image give the same as the whole. Knows no file format.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import ImageCms

from pipeline.errors import ItemError
from pipeline.records import white

Samples = npt.NDArray[Any]

_RELATIVE_COLORIMETRIC, _BLACK_POINT_COMPENSATION = 1, 0x2000
_OUT_OF_GAMUT = "colours beyond sRGB are cut"


@dataclass(frozen=True)
class Stored:
    """colours: (h, w, c). alpha: (h, w) of the same dtype, or None. converted: what was done, if anything."""

    colours: Samples
    alpha: Samples | None = None
    icc: bytes | None = None
    converted: str | None = None


def full_scale(colours: Samples, alpha: Samples | None, bits: int) -> Stored:
    """uint8, uint16 or float32 samples whose white is the type's own. Raises `ItemError` unsupported-mode."""
    if colours.dtype.kind == "f":
        _refuse_beyond_white(colours)
    return Stored(_widened(colours, bits), None if alpha is None else _widened(alpha, bits))


def _widened(samples: Samples, bits: int) -> Samples:
    if samples.dtype.kind == "f":
        return samples.astype(np.float32, copy=False)
    if bits in (8, 16):
        return samples.astype(np.uint8 if bits == 8 else np.uint16, copy=False)
    peak, wide = 2**bits - 1, np.uint8 if bits < 8 else np.uint16
    stretched: Samples = (samples.astype(np.uint32) * int(white(wide)) + peak // 2) // peak
    return stretched.astype(wide)


def _refuse_beyond_white(samples: Samples) -> None:
    if samples.size == 0:
        return
    low, high = float(samples.min()), float(samples.max())
    if not (low >= 0.0 and high <= 1.0):  # false for nan too
        message = f"the floats reach from {low:g} to {high:g}; divide them by their white so that they lie in 0 to 1"
        raise ItemError("unsupported-mode", message)


def from_map(indices: Samples, colour_map: tuple[int, ...] | None) -> Samples:
    """RGB of palette indices; 16-bit colour maps whose entries are 8-bit values give uint8."""
    if not colour_map or len(colour_map) % 3 or int(indices.max(initial=0)) >= len(colour_map) // 3:
        raise ItemError("corrupt-image", "the TIFF is damaged: its colour map does not fit its pixels")
    table = np.asarray(colour_map, np.uint16).reshape(3, -1).T
    return (table >> 8).astype(np.uint8)[indices]


def plain_lab(lab: Samples) -> Samples:
    """ICC Lab (a and b offset, 16-bit white at 0xFF00) as v4 encodes it; 8 bits are alike."""
    if lab.dtype == np.uint8:
        return lab
    return np.minimum((lab.astype(np.uint32) * 257 + 128) // 256, 65535).astype(np.uint16)


def from_lab(stored: Stored, *, signed: bool) -> Stored:
    """sRGB of CIE L*a*b* (D50). signed: a and b are two's complement, as in TIFF's CIELab."""
    lab = stored.colours
    if signed:
        offset = lab.copy()
        offset[:, :, 1:] ^= 0x80 if lab.dtype == np.uint8 else 0x8000  # now 0 is the middle
        if lab.dtype == np.uint16:  # v4: a = value/257 - 128
            offset[:, :, 1:] = np.minimum((offset[:, :, 1:].astype(np.uint32) * 257 + 128) // 256, 65535)
        lab = offset
    rgb = _transformed(lab, _profile("LAB"), "lab")
    return Stored(rgb, stored.alpha, _profile("sRGB"), f"Lab to sRGB; {_OUT_OF_GAMUT}")


def from_cmyk(stored: Stored, icc: bytes | None, format: str) -> Stored:
    """sRGB of ink shares (all bits set: full ink) by their profile. Raises `ItemError` unsupported-mode."""
    if not icc:
        mend = "embed its profile or convert it to RGB"
        raise ItemError("unsupported-mode", f"the {format} is CMYK without a profile: its colours are unknown; {mend}")
    rgb = _transformed(stored.colours, icc, "cmyk")
    return Stored(rgb, stored.alpha, _profile("sRGB"), f"CMYK to sRGB by the embedded profile; {_OUT_OF_GAMUT}")


def unmultiplied(stored: Stored) -> Stored:
    """Colours divided by alpha, rounded; where alpha is 0 they are unknown and stay 0."""
    alpha = stored.alpha
    if alpha is None:
        return stored
    peak, share = white(alpha.dtype), alpha[:, :, None].astype(np.float64)
    divided = np.divide(stored.colours * peak, share, out=np.zeros(stored.colours.shape), where=share > 0)
    if alpha.dtype.kind != "f":
        divided = np.rint(divided)
    return replace(stored, colours=np.minimum(divided, peak).astype(alpha.dtype))


def of_depth(samples: Samples, dtype: npt.DTypeLike) -> Samples:
    """The same picture in another sample type, rounded to its nearest level."""
    if samples.dtype == dtype:
        return samples
    if np.dtype(dtype).kind == "f":
        return (samples / white(samples.dtype)).astype(dtype)
    scaled = samples.astype(np.float64) * (white(dtype) / white(samples.dtype))
    return np.rint(scaled).astype(dtype)


@cache
def _profile(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()  # type: ignore[arg-type]


def _transformed(samples: Samples, profile: bytes, space: str) -> Samples:
    try:
        rgb = imagecodecs.cms_transform(
            np.ascontiguousarray(samples),
            profile,
            _profile("sRGB"),
            colorspace=space,
            outcolorspace="rgb",
            outdtype=samples.dtype,
            intent=_RELATIVE_COLORIMETRIC,
            flags=_BLACK_POINT_COMPENSATION,
        )
    except (RuntimeError, ValueError) as error:  # cmsOpenProfileFromMem and its like
        raise ItemError("unsupported-mode", f"the embedded profile cannot be used: {error}") from None
    return np.asarray(rgb)
