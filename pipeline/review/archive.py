"""What an archive's manifest says, in numbers and examples: what a report is made of.

One pass over the current rows, part by part. What is kept does not grow with the archive: counts,
fine histograms, a few examples of each failure, the rows worth a picture. No HTML, no pictures, no
Ray, no torch.
"""

import json
from collections.abc import Mapping
from itertools import chain, islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import uris
from pipeline.data import manifest, storage
from pipeline.errors import ItemError
from pipeline.measure.consistency import limit
from pipeline.records import DONE, KERNEL_VALUES
from pipeline.review.figures import STAGES, Failure, Review, Row, Setting, Timeline
from pipeline.review.picks import Array, Picks, flagged, numbers

COLUMNS = (
    "item_id", "run_id", "status", "error_code", "error", "stage", "attempts", "uri", "sr_uri", "page",
    "input_bytes", "output_bytes", "lr_width", "lr_height", "sr_width", "sr_height", "scale", "sigma", "kernel",
    "kernel_digest", "phase", "model_id", "precision", "seconds_read", "seconds_restore", "seconds_write",
    "consistency_rms_255", "psnr_db", "ssim", "software", "written_at",
)  # fmt: skip
FLAG_RULE = "consistency above {:.3g} grey levels at sigma 0, {:.3g} at 2.55 and {:.3g} at 7.65".format(
    *map(limit, (0, 2.55, 7.65))
)

_EXAMPLES = 5  # of each failure
_MOST_SETTINGS = 2000  # kept apart; an archive with a PSF an image has as many as images
_SHOWN_RUNS = 50


def review(output: str, *, pictures: int, run_id: str | None = None) -> Review:
    """Read the manifest and run records below `output`.

    pictures: rows picked for each of `GROUPS`. run_id: the run whose throughput is drawn; None
    takes the newest. Raises `StorageError`, `ItemError` for a run that is not there.
    """
    runs, drawn, count = _runs(output, run_id)
    timeline = Timeline(str(drawn["run_id"]) if drawn else "")
    found = Review(output, runs=runs, run_count=count, drawn_run=drawn, timeline=timeline, flag_rule=FLAG_RULE)
    picks = Picks(pictures)
    for table in manifest.stream_current(output, COLUMNS):
        done = table.filter(pc.equal(table["status"], DONE))
        _count_failures(found, table.filter(pc.not_equal(table["status"], DONE)))
        _count_done(found, done)
        picks.add(done)
    found.showcase, found.ranked_by = picks.chosen()
    return found


def _runs(output: str, wanted: str | None) -> tuple[list[Row], Row | None, int]:
    """The newest records, newest first; the one that is drawn; how many there are.

    Drawn is the one that is wanted, else the newest with results, else the newest: however many runs
    came after it. One that cannot be read is left out.
    """
    folder = uris.join(output, "run")
    names = [uri for uri in storage.list_files(folder, (".json",)) if "/" not in uri.removeprefix(f"{folder}/")]
    records = filter(None, map(_record, sorted(names, reverse=True)))  # read one by one, as far as needed
    runs = list(islice(records, _SHOWN_RUNS))
    is_drawn = _has_results if wanted is None else lambda run: str(run["run_id"]) == wanted
    drawn = next(filter(is_drawn, chain(runs, records)), None)
    if wanted is not None and drawn is None:
        known = [str(run["run_id"]) for run in runs[:5]]
        raise ItemError("input-missing", f"{output} has no record of the run {wanted!r}; there are {known}")
    return runs, drawn or next(iter(runs), None), len(names)


def _has_results(run: Row) -> bool:
    return bool(run.get("done") or run.get("failures"))


def _record(uri: str) -> Row | None:
    try:
        record = json.loads(storage.read_bytes(uri))
    except (ItemError, ValueError):
        return None
    return record if isinstance(record, dict) and "run_id" in record else None


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
    lr, hr = (numbers(done, f"{kind}_width") * numbers(done, f"{kind}_height") / 1e6 for kind in ("lr", "sr"))
    found.lr_megapixels += float(np.nansum(lr))
    found.hr_megapixels += float(np.nansum(hr))
    found.bytes_in += int(np.nansum(numbers(done, "input_bytes")))
    found.bytes_out += int(np.nansum(numbers(done, "output_bytes")))
    for stage in STAGES:
        found.seconds[stage] += float(np.nansum(numbers(done, f"seconds_{stage}")))
    found.consistency.add(numbers(done, "consistency_rms_255"))
    found.psnr.add(numbers(done, "psnr_db"))
    found.ssim.add(numbers(done, "ssim"))
    with np.errstate(divide="ignore", invalid="ignore"):
        found.seconds_per_mp.add(numbers(done, "seconds_restore") / hr)
    found.flagged += int(flagged(done).sum())
    for model, n in _value_counts(done["model_id"].fill_null("unknown")).items():
        found.models[model] = found.models.get(model, 0) + n
    _add_settings(found, done, hr)
    _add_to_timeline(found.timeline, done, hr)


def _add_settings(found: Review, done: pa.Table, hr: Array) -> None:
    columns = (done[name].to_pylist() for name in ("scale", "kernel", "kernel_digest", "sigma"))
    keys = ((scale, _kernel(name, digest), sigma) for scale, name, digest, sigma in zip(*columns, strict=True))
    psnr = numbers(done, "psnr_db")
    measured = np.isfinite(psnr)
    sums = (hr, numbers(done, "seconds_restore"), flagged(done), numbers(done, "consistency_rms_255"))
    rows = zip(*(np.nan_to_num(np.asarray(s, float)).tolist() for s in (*sums, measured, psnr * measured)), strict=True)
    for (scale, kernel, sigma), (mp, seconds, wrong, rms, with_psnr, db) in zip(keys, rows, strict=True):
        one = Setting(
            scale or 0, kernel, float(f"{sigma or 0:.3g}"), 1, mp, seconds, int(wrong), rms, int(with_psnr), db
        )
        key = (one.scale, one.kernel, one.sigma)
        if key in found.settings:
            found.settings[key] += one
        elif len(found.settings) < _MOST_SETTINGS:
            found.settings[key] = one
        else:
            found.other_settings += one


def _kernel(name: str | None, digest: str | None) -> str:
    """Kernels that a catalog gives as numbers all have one name; what they are tells their digest."""
    return f"values {(digest or '')[:8]}".rstrip() if name == KERNEL_VALUES else name or "?"


def _add_to_timeline(timeline: Timeline, done: pa.Table, hr: Array) -> None:
    of_run = pc.equal(done["run_id"], timeline.run_id).to_numpy(zero_copy_only=False)
    when = done["written_at"].cast(pa.int64()).fill_null(0).to_numpy()[of_run] // 1_000_000
    for second, mp in zip(when.tolist(), hr[of_run].tolist(), strict=True):
        timeline.add(second, mp)


def _value_counts(column: pa.ChunkedArray) -> Mapping[str, int]:
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(column).to_pylist()}
