"""Bicubic enlargement on the grid that the degradation's phase means; colours under transparency. Pure numpy."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.physics.kernels import keys_cubic, phase_shift

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.floating]


def upscale_bicubic(lr: Pixels, scale: int, phase: str) -> npt.NDArray[np.float64]:
    """Bicubic enlargement (Keys, a = -1/2), edges repeated.

    lr: (h, w) or (h, w, c), integer or float, in any unit. phase: `corner` puts LR pixel (i, j)
    exactly at (scale·i, scale·j); `center` puts it at the centre of its block, as image editors do.
    Returns (h·scale, w·scale[, c]) float64 in the unit of `lr`, neither clipped nor rounded.
    """
    columns = _interpolate(np.asarray(lr, np.float64), scale, phase)
    return np.swapaxes(_interpolate(np.swapaxes(columns, 0, 1), scale, phase), 0, 1)


def fill_transparent(pixels: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`pixels` (h, w, c) with the colours around it wherever `alpha` (h, w) is 0.

    What a file stores under full transparency is often black, and a deconvolution would carry it
    into the edges. Filled from 2×2 means of what is visible, then means of those, and so on.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    filled = _filled(pixels.astype(np.float64), ~hidden)
    return np.where(hidden[:, :, None], np.rint(filled) if pixels.dtype.kind != "f" else filled, pixels).astype(
        pixels.dtype
    )


def _filled(pixels: npt.NDArray[np.float64], known: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Unknown pixels from the next coarser level; at least one pixel must be known."""
    if known.all():
        return pixels
    h, w = known.shape
    weight = np.pad(known.astype(np.float64), ((0, h % 2), (0, w % 2)))[:, :, None]
    colour = np.pad(pixels, ((0, h % 2), (0, w % 2), (0, 0))) * weight
    total, count = (
        array[::2, ::2] + array[1::2, ::2] + array[::2, 1::2] + array[1::2, 1::2] for array in (colour, weight)
    )
    coarse = _filled(total / np.maximum(count, 1), count[:, :, 0] > 0)
    return np.where(known[:, :, None], pixels, coarse.repeat(2, 0).repeat(2, 1)[:h, :w])


def _interpolate(image: npt.NDArray[np.float64], scale: int, phase: str) -> npt.NDArray[np.float64]:
    """Enlarge the first axis: output pixel j lies at (j - shift)/scale of the input."""
    at = (np.arange(image.shape[0] * scale) - phase_shift(scale, phase)) / scale
    first = np.floor(at).astype(int) - 1
    out = np.zeros((at.size, *image.shape[1:]))
    for tap in range(4):
        source = first + tap
        weight = keys_cubic(at - source).reshape(-1, *[1] * (image.ndim - 1))
        out += weight * image[source.clip(0, image.shape[0] - 1)]
    return out
