"""Bicubic enlargement on the grid that the degradation's phase means. Pure numpy."""

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
