"""What an archive's manifest says, in numbers and examples: what a report is made of.

One pass over the current rows, part by part. What is kept does not grow with the archive: counts,
fine histograms, a few examples of each failure, the rows worth a picture. No HTML, no pictures, no
Ray, no torch.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import uris
from pipeline.data import manifest, storage
from pipeline.errors import ERROR_CODES, ItemError
from pipeline.measure.consistency import limit
from pipeline.measure.distribution import Distribution
from pipeline.records import DONE

Row = dict[str, Any]
Array = npt.NDArray[np.float64]

COLUMNS = (
    "item_id", "run_id", "status", "error_code", "error", "stage", "attempts", "uri", "sr_uri", "page",
    "input_bytes", "output_bytes", "lr_width", "lr_height", "sr_width", "sr_height", "scale", "sigma", "kernel",
    "kernel_digest", "phase", "model_id", "precision", "seconds_read", "seconds_restore", "seconds_write",
    "consistency_rms_255", "psnr_db", "ssim", "software", "written_at",
)  # fmt: skip
GROUPS = ("flagged", "worst", "best", "random")
STAGES = ("read", "restore", "write")

_EXAMPLES = 5  # of each failure
_MOST_SETTINGS = 2000  # kept apart; an archive with a PSF an image has as many as images
_MOST_STEPS = 4096  # of a timeline; a longer run gets coarser ones
_SHOWN_RUNS = 50
_LARGEST_SHOWN = 2**26  # SR pixels of an image that is decoded for its preview


@dataclass
class Failure:
    """All failed items of one error code. examples: (uri, message, attempts)."""

    code: str
    count: int = 0
    examples: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def about(self) -> Any:
        """The row of the error table: class, meaning, mend."""
        return ERROR_CODES.get(self.code, ERROR_CODES["internal"])


@dataclass
class Setting:
    """Items restored alike. Sums over items: HR megapixels, seconds in the restore stage."""

    scale: int
    kernel: str
    sigma: float
    items: int = 0
    hr_megapixels: float = 0.0
    seconds: float = 0.0
    flagged: int = 0
    consistency: float = 0.0
    psnr_items: int = 0
    psnr_db: float = 0.0

    def __iadd__(self, other: "Setting") -> "Setting":
        for name in ("items", "hr_megapixels", "seconds", "flagged", "consistency", "psnr_items", "psnr_db"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


@dataclass
class Timeline:
    """One run's results over time: HR megapixels and items by steps of `step` seconds since 1970."""

    run_id: str = ""
    step: int = 1
    megapixels: dict[int, float] = field(default_factory=dict)
    items: dict[int, int] = field(default_factory=dict)

    def add(self, second: int, megapixels: float) -> None:
        key = second // self.step
        self.megapixels[key] = self.megapixels.get(key, 0.0) + megapixels
        self.items[key] = self.items.get(key, 0) + 1
        if len(self.items) > _MOST_STEPS:
            self._coarsen()

    def _coarsen(self) -> None:
        steps = [(key // 2, self.megapixels[key], self.items[key]) for key in self.items]
        self.step, self.megapixels, self.items = 2 * self.step, {}, {}
        for key, megapixels, items in steps:
            self.megapixels[key] = self.megapixels.get(key, 0.0) + megapixels
            self.items[key] = self.items.get(key, 0) + items


@dataclass
class Review:
    """The archive's current state. Counts are items, megapixels HR unless they say LR."""

    output: str
    done: int = 0
    failed: int = 0
    lr_megapixels: float = 0.0
    hr_megapixels: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    flagged: int = 0
    flag_rule: str = ""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    failures: dict[str, Failure] = field(default_factory=dict)
    settings: dict[tuple[int, str, float], Setting] = field(default_factory=dict)
    other_settings: Setting = field(default_factory=lambda: Setting(0, "others", 0.0))
    consistency: Distribution = field(default_factory=lambda: Distribution(1e-3, 255, logarithmic=True))
    psnr: Distribution = field(default_factory=lambda: Distribution(0, 100))
    ssim: Distribution = field(default_factory=lambda: Distribution(-1, 1))
    seconds_per_mp: Distribution = field(default_factory=lambda: Distribution(1e-4, 1e4, logarithmic=True))
    timeline: Timeline = field(default_factory=Timeline)
    models: dict[str, int] = field(default_factory=dict)
    showcase: dict[str, list[Row]] = field(default_factory=dict)
    ranked_by: str = "consistency"
    runs: list[Row] = field(default_factory=list)

    @property
    def items(self) -> int:
        return self.done + self.failed


def review(output: str, *, pictures: int, run_id: str | None = None) -> Review:
    """Read the manifest and run records below `output`.

    pictures: rows picked for each of `GROUPS`. run_id: the run whose throughput is drawn; None
    takes the newest. Raises `StorageError`, `ItemError` for a run that is not there.
    """
    runs = _run_records(output)
    newest = _newest(runs, run_id, output)
    found = Review(output, runs=runs, timeline=Timeline(newest), flag_rule=FLAG_RULE)
    picks = _Picks(pictures)
    for table in manifest.stream_current(output, COLUMNS):
        done = table.filter(pc.equal(table["status"], DONE))
        _count_failures(found, table.filter(pc.not_equal(table["status"], DONE)))
        _count_done(found, done)
        picks.add(done)
    found.showcase, found.ranked_by = picks.chosen()
    return found


FLAG_RULE = "consistency above {:.3g} grey levels at sigma 0, {:.3g} at 2.55 and {:.3g} at 7.65".format(
    *map(limit, (0, 2.55, 7.65))
)


def _run_records(output: str) -> list[Row]:
    """The newest records, newest first; one that cannot be read is left out."""
    folder = uris.join(output, "run")
    names = [uri for uri in storage.list_files(folder, (".json",)) if "/" not in uri.removeprefix(f"{folder}/")]
    records = [_record(uri) for uri in sorted(names, reverse=True)[:_SHOWN_RUNS]]
    return [record for record in records if record is not None]


def _record(uri: str) -> Row | None:
    try:
        record = json.loads(storage.read_bytes(uri))
    except (ItemError, ValueError):
        return None
    return record if isinstance(record, dict) and "run_id" in record else None


def _newest(runs: list[Row], wanted: str | None, output: str) -> str:
    known = [str(run["run_id"]) for run in runs]
    if wanted is not None and wanted not in known:
        raise ItemError("input-missing", f"{output} has no record of the run {wanted!r}; there are {known[:5]}")
    with_results = [str(run["run_id"]) for run in runs if run.get("done") or run.get("failures")]
    return wanted or next(iter(with_results or known), "")


def _count_failures(found: Review, failed: pa.Table) -> None:
    found.failed += len(failed)
    for code, n in _value_counts(failed["error_code"].fill_null("internal")).items():
        failure = found.failures.setdefault(code, Failure(code))
        failure.count += n
        if (missing := _EXAMPLES - len(failure.examples)) > 0:
            rows = failed.filter(pc.equal(failed["error_code"].fill_null("internal"), code)).slice(0, missing)
            for row in rows.select(["item_id", "uri", "error", "attempts"]).to_pylist():
                failure.examples.append((row["uri"] or row["item_id"], row["error"] or "", row["attempts"] or 1))


def _count_done(found: Review, done: pa.Table) -> None:
    found.done += len(done)
    lr, hr = (_numbers(done, f"{kind}_width") * _numbers(done, f"{kind}_height") / 1e6 for kind in ("lr", "sr"))
    found.lr_megapixels += float(np.nansum(lr))
    found.hr_megapixels += float(np.nansum(hr))
    found.bytes_in += int(np.nansum(_numbers(done, "input_bytes")))
    found.bytes_out += int(np.nansum(_numbers(done, "output_bytes")))
    for stage in STAGES:
        found.seconds[stage] += float(np.nansum(_numbers(done, f"seconds_{stage}")))
    found.consistency.add(_numbers(done, "consistency_rms_255"))
    found.psnr.add(_numbers(done, "psnr_db"))
    found.ssim.add(_numbers(done, "ssim"))
    with np.errstate(divide="ignore", invalid="ignore"):
        found.seconds_per_mp.add(_numbers(done, "seconds_restore") / hr)
    found.flagged += int(_flagged(done).sum())
    for model, n in _value_counts(done["model_id"].fill_null("unknown")).items():
        found.models[model] = found.models.get(model, 0) + n
    _add_settings(found, done, hr)
    _add_to_timeline(found.timeline, done, hr)


def _add_settings(found: Review, done: pa.Table, hr: Array) -> None:
    keys = zip(*(done[name].to_pylist() for name in ("scale", "kernel", "sigma")), strict=True)
    psnr = _numbers(done, "psnr_db")
    measured = np.isfinite(psnr)
    sums = (hr, _numbers(done, "seconds_restore"), _flagged(done), _numbers(done, "consistency_rms_255"))
    rows = zip(*(np.nan_to_num(np.asarray(s, float)).tolist() for s in (*sums, measured, psnr * measured)), strict=True)
    for (scale, kernel, sigma), (mp, seconds, flagged, rms, with_psnr, db) in zip(keys, rows, strict=True):
        one = Setting(
            scale or 0, kernel or "?", float(f"{sigma or 0:.3g}"), 1, mp, seconds, int(flagged), rms, int(with_psnr), db
        )
        key = (one.scale, one.kernel, one.sigma)
        if key in found.settings:
            found.settings[key] += one
        elif len(found.settings) < _MOST_SETTINGS:
            found.settings[key] = one
        else:
            found.other_settings += one


def _add_to_timeline(timeline: Timeline, done: pa.Table, hr: Array) -> None:
    of_run = pc.equal(done["run_id"], timeline.run_id).to_numpy(zero_copy_only=False)
    when = done["written_at"].cast(pa.int64()).fill_null(0).to_numpy()[of_run] // 1_000_000
    for second, mp in zip(when.tolist(), hr[of_run].tolist(), strict=True):
        timeline.add(second, mp)


class _Picks:
    """The few rows worth a picture, of however many go by."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[str, list[tuple[float, Row]]] = {}

    def add(self, done: pa.Table) -> None:
        shown = done.filter(pa.array(_numbers(done, "sr_width") * _numbers(done, "sr_height") <= _LARGEST_SHOWN))
        if not len(shown):
            return
        psnr, consistency = _numbers(shown, "psnr_db"), _numbers(shown, "consistency_rms_255")
        excess = consistency / _limits(shown)
        lots = np.array([zlib.crc32(name.encode()) for name in shown["item_id"].to_pylist()], float)
        self._keep("random", shown, lots)
        self._keep("flagged", shown, np.where(_flagged(shown), -excess, np.nan))
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


def _flagged(done: pa.Table) -> npt.NDArray[np.bool_]:
    return np.asarray(_numbers(done, "consistency_rms_255") > _limits(done))


def _limits(done: pa.Table) -> Array:
    """Of the consistency, see `measure.consistency`."""
    return np.array([limit(sigma or 0.0) for sigma in done["sigma"].to_pylist()], np.float64)


def _numbers(table: pa.Table, name: str) -> Array:
    """A column as float64, nulls as NaN."""
    column = table[name].cast(pa.float64())
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy(), np.float64)


def _value_counts(column: pa.ChunkedArray) -> Mapping[str, int]:
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(column).to_pylist()}
