"""The few rows of a manifest that are worth a picture: flagged, worst, best and at random."""

import zlib
from operator import itemgetter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.measure.consistency import limit
from pipeline.review.figures import Row

Array = npt.NDArray[np.float64]

GROUPS = ("flagged", "worst", "best", "random")

_LARGEST_SHOWN = 2**26  # SR pixels of an image that is decoded for its preview


class Picks:
    """The few rows worth a picture, of however many go by."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[str, list[tuple[float, Row]]] = {}

    def add(self, done: pa.Table) -> None:
        shown = done.filter(pa.array(numbers(done, "sr_width") * numbers(done, "sr_height") <= _LARGEST_SHOWN))
        if not len(shown):
            return
        psnr, consistency = numbers(shown, "psnr_db"), numbers(shown, "consistency_rms_255")
        excess = consistency / _limits(shown)
        lots = np.array([zlib.crc32(name.encode()) for name in shown["item_id"].to_pylist()], float)
        self._keep("random", shown, lots)
        self._keep("flagged", shown, np.where(flagged(shown), -excess, np.nan))
        self._keep("best psnr", shown, -psnr)
        self._keep("worst psnr", shown, psnr)
        self._keep("best consistency", shown, excess)
        self._keep("worst consistency", shown, -excess)

    def chosen(self) -> tuple[dict[str, list[Row]], str]:
        """Rows of each group, and what best and worst go by: psnr where there is ground truth."""
        by = "psnr" if self._kept.get("best psnr") else "consistency"
        names = {"best": f"best {by}", "worst": f"worst {by}"}
        return {group: [row for _, row in self._kept.get(names.get(group, group), [])] for group in GROUPS}, by

    def _keep(self, name: str, rows: pa.Table, order: Array) -> None:
        """The rows with the smallest `order`, NaN never."""
        best = [int(n) for n in np.argsort(order, kind="stable")[: self._most] if not np.isnan(order[n])]
        few = rows.take(pa.array(best, pa.int64())).to_pylist()
        kept = self._kept.setdefault(name, [])
        kept += [(float(order[n]), row) for n, row in zip(best, few, strict=True)]
        kept.sort(key=itemgetter(0))  # equal ones stay in the manifest's order
        del kept[self._most :]


def flagged(done: pa.Table) -> npt.NDArray[np.bool_]:
    return np.asarray(numbers(done, "consistency_rms_255") > _limits(done))


def _limits(done: pa.Table) -> Array:
    """Of the consistency, see `measure.consistency`."""
    return np.array([limit(sigma or 0.0) for sigma in done["sigma"].to_pylist()], np.float64)


def numbers(table: pa.Table, name: str) -> Array:
    """A column as float64, nulls as NaN."""
    column = table[name].cast(pa.float64())
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy(), np.float64)
