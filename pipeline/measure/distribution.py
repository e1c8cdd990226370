"""A distribution counted in one pass and bounded memory: fine bins, quantiles, and a few bars to draw.

Pure numpy: knows no row and no picture.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass
class Distribution:
    """Counts of values between `low` and `high`; what lies outside is counted in the outermost bins.

    logarithmic: bins of equal ratio, for values over several decades. Values that are not finite
    are counted in `left_out` only.
    """

    low: float
    high: float
    logarithmic: bool = False
    bins: int = 4000
    left_out: int = 0
    smallest: float = np.inf
    largest: float = -np.inf
    _counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        self._counts = np.zeros(self.bins, np.int64)

    @property
    def count(self) -> int:
        return int(self._counts.sum())

    def add(self, values: Array) -> None:
        """Count values; nulls come as NaN."""
        finite = values[np.isfinite(values)]
        self.left_out += len(values) - len(finite)
        if not len(finite):
            return
        self.smallest = min(self.smallest, float(finite.min()))
        self.largest = max(self.largest, float(finite.max()))
        position = (self._place(finite.clip(self.low, self.high)) * self.bins).astype(int)
        self._counts += np.bincount(position.clip(0, self.bins - 1), minlength=self.bins)

    def quantile(self, share: float) -> float:
        """The value that `share` of all values lie below, to a bin's width; NaN if there are none."""
        if not self.count:
            return float("nan")
        position = int(np.searchsorted(np.cumsum(self._counts), share * self.count, side="left"))
        middle = float(self._value((min(position, self.bins - 1) + 0.5) / self.bins))
        return min(max(middle, self.smallest), self.largest)

    def bars(self, most: int = 32) -> tuple[Array, npt.NDArray[np.int64]]:
        """Edges (n + 1) and counts (n) of at most `most` bars over the bins that hold something."""
        filled = np.flatnonzero(self._counts)
        if not len(filled):
            return np.zeros(1), np.zeros(0, np.int64)
        begin, end = int(filled[0]), int(filled[-1]) + 1
        step = max(1, -(-(end - begin) // most))
        starts = np.arange(begin, end, step)
        counts = np.add.reduceat(self._counts[:end], starts)
        return self._value(np.append(starts, starts[-1] + step) / self.bins), counts

    def _place(self, values: Array) -> Array:
        """0 at `low`, 1 at `high`."""
        if self.logarithmic:
            return np.asarray(np.log(values / self.low) / np.log(self.high / self.low))
        return np.asarray((values - self.low) / (self.high - self.low))

    def _value(self, place: Array | float) -> Array:
        if self.logarithmic:
            return np.asarray(self.low * (self.high / self.low) ** np.asarray(place))
        return np.asarray(self.low + np.asarray(place) * (self.high - self.low))
