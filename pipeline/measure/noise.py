"""How noisy an image is, where nobody said: `defaults.sigma: auto`.

The median of the finest diagonal wavelet coefficients (Donoho and Johnstone 1994), by scikit-image.
Texture counts as noise, so the estimate is rather too high: on 28 blurred, shrunk photographs its
median error was +1.0 grey levels at sigma 0, +0.5 at 2.55, +0.3 at 7.65; on the most textured
tenth +5, +3.5, +2.6. JPEG compression removes noise that the estimate then misses.

Knows no file and no row; loads no torch.
"""

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.records import white

Samples = npt.NDArray[Any]  # uint8, uint16 or float32

_LEAST_SIDE = 8  # pixels; narrower images are mirrored, for scikit-image takes them for colours


def estimate_sigma(pixels_hwc: Samples) -> float:
    """Noise standard deviation in grey levels of 0-255, the mean over channels; 0 for a flat image.

    pixels_hwc: (h, w, c), white at the type's largest value, or at 1.0 for floats.
    """
    unit = pixels_hwc.astype(np.float64) * (255 / white(pixels_hwc.dtype))
    return min(255.0, float(np.mean([_of_channel(unit[:, :, c]) for c in range(unit.shape[2])])))


def _of_channel(plane: npt.NDArray[np.float64]) -> float:
    """Channels without any detail have no median; they are without noise as well."""
    from skimage.restoration import estimate_sigma as by_wavelets  # a second to import, and rarely needed

    if not np.ptp(plane):
        return 0.0
    margins = [(0, max(0, _LEAST_SIDE - n)) for n in plane.shape]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a median of nothing: no diagonal detail, so nan
        sigma = float(by_wavelets(np.pad(plane, margins, mode="symmetric")))  # type: ignore[no-untyped-call]
    return 0.0 if math.isnan(sigma) else sigma
