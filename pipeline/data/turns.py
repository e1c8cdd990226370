"""EXIF orientations as flips and one transposition, of whole images and of regions in them. Pure numpy."""

from typing import Any

import numpy as np
import numpy.typing as npt

Region = tuple[int, int, int, int]

# Orientation -> flip the stored rows, flip the stored columns, then swap the two axes: row 0 and
# column 0 of the stored image are, for each orientation, where EXIF says they are.
_STEPS: dict[int, tuple[bool, bool, bool]] = {
    1: (False, False, False),
    2: (False, True, False),
    3: (True, True, False),
    4: (True, False, False),
    5: (False, False, True),
    6: (True, False, True),
    7: (True, True, True),
    8: (False, True, True),
}


def turned(stored: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """The upright image of a stored one, contiguous."""
    rows, columns, swap = _STEPS[orientation]
    flipped = stored[:: -1 if rows else 1, :: -1 if columns else 1]
    return np.ascontiguousarray(flipped.swapaxes(0, 1) if swap else flipped)


def stored_region(region: Region, orientation: int, height: int, width: int) -> Region:
    """Where (y0, y1, x0, x1) of the upright image lies in the stored one of height × width."""
    rows, columns, swap = _STEPS[orientation]
    y0, y1, x0, x1 = (*region[2:], *region[:2]) if swap else region
    if rows:
        y0, y1 = height - y1, height - y0
    if columns:
        x0, x1 = width - x1, width - x0
    return y0, y1, x0, x1
