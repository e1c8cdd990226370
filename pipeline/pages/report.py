"""The report of an archive as one HTML file: what was done, what failed, can it be trusted, how fast.

`pipeline.review` has the numbers; here they get words, charts and pictures. Pictures are read from
the archive itself, one pair at a time; one that cannot be shown costs only its place. Whatever the
archive's size, the page has a fixed number of rows, bars and pictures.
"""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml
from markupsafe import Markup

from pipeline import uris
from pipeline.data import previews, storage
from pipeline.errors import ItemError
from pipeline.measure.consistency import is_flagged
from pipeline.measure.distribution import Distribution
from pipeline.measure.progress import duration
from pipeline.pages.charts import area, histogram, shares
from pipeline.pages.page import data_uri, number, page, size
from pipeline.review.archive import review
from pipeline.review.figures import STAGES, Review, Row, Setting
from pipeline.review.picks import GROUPS

Card = dict[str, Any]

_SIDE = 320  # of a picture, result pixels: three or four fit side by side on a screen
_LARGEST_DECODED = 2**26  # LR pixels
_LARGEST_FILE = 2**28  # bytes
_MOST_SETTINGS = 20
_MOST_RUNS = 20
_STEPS = 60  # of the throughput's chart


def write_report(
    output: str, uri: str | None = None, *, pictures: int = 6, run_id: str | None = None, now: datetime | None = None
) -> tuple[str, int]:
    """Make the report of `output` and store it at `uri` (default: `<output>/report.html`).

    Returns the absolute URI and the file's length in bytes. Raises `StorageError`.
    """
    output = uris.absolute(output)
    uri = uris.absolute(uri or uris.join(output, "report.html"))
    html = report_page(review(output, pictures=pictures, run_id=run_id), now=now or datetime.now(UTC))
    storage.write_bytes(uri, html)
    return uri, len(html)


def report_page(found: Review, *, now: datetime) -> bytes:
    """The file. now: the time it is made at, with its zone."""
    settings, hidden = _settings(found)
    return page(
        "report.html",
        now=now,
        review=found,
        balance=_balance(found),
        tiles=_tiles(found),
        failures=sorted(found.failures.values(), key=lambda failure: -failure.count),
        gallery=_gallery(found),
        quality=_quality(found),
        settings=settings,
        hidden_settings=hidden,
        stages=_stages(found),
        times=_times(found),
        runs=[_run(run) for run in found.runs[:_MOST_RUNS]],
        details=_details(found),
    )


def _balance(found: Review) -> Markup:
    parts = (("ok", found.done - found.flagged), ("warn", found.flagged), ("bad", found.failed))
    at, pieces = 0.0, ""
    for kind, count in parts:
        width = 1000 * count / max(1, found.items)
        pieces += f'<rect class="{kind}" x="{at:.2f}" width="{width:.2f}" height="10"/>'
        at += width
    return Markup(f'<svg viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true">{pieces}</svg>')


def _tiles(found: Review) -> list[tuple[str, str, str]]:
    tiles = [("Result", f"{number(found.hr_megapixels)} MP", f"from {number(found.lr_megapixels)} MP")]
    tiles.append(("Files", size(found.bytes_out), f"from {size(found.bytes_in)}"))
    if record := found.drawn_run:
        rate = record.get("hr_megapixels", 0) / record["seconds"] if record.get("seconds") else 0.0
        tiles.append(("Last run", duration(record.get("seconds", 0)), f"{number(rate)} MP / s"))
    if found.consistency.count:
        spread = f"{number(found.consistency.quantile(0.05))} to {number(found.consistency.quantile(0.95))} for 90%"
        tiles.append(("Median consistency", number(found.consistency.quantile(0.5)), f"grey levels; {spread}"))
    if found.psnr.count:
        truths = f"of {found.psnr.count:,} with ground truth"
        tiles.append(("Median PSNR", f"{number(found.psnr.quantile(0.5))} dB", truths))
    if found.ssim.count:
        tiles.append(("Median SSIM", number(found.ssim.quantile(0.5)), "on luma"))
    return tiles


def _gallery(found: Review) -> list[dict[str, Any]]:
    by_psnr = found.ranked_by == "psnr"
    measure = "PSNR against the ground truth" if by_psnr else "consistency in proportion to sigma"
    words = {
        "flagged": ("Flagged", f"The furthest beyond the limit: {found.flag_rule}.", "No result is flagged."),
        "worst": ("Worst", f"By {measure}.", ""),
        "best": ("Best", f"By {measure}.", ""),
        "random": ("At random", "Drawn by a hash of the item's id: the same ones each time.", ""),
    }
    cards: dict[str, Card] = {}
    return [
        {
            "name": group,
            "title": words[group][0],
            "about": words[group][1],
            "empty": words[group][2] or "There is none.",
            "cards": [_card(row, cards) for row in found.showcase.get(group, [])],
        }
        for group in GROUPS
    ]


def _card(row: Row, made: dict[str, Card]) -> Card:
    """What the page says of an item; its pictures are made once, whichever groups show it."""
    if row["item_id"] not in made:
        made[row["item_id"]] = _made_card(row)
    return made[row["item_id"]]


def _made_card(row: Row) -> Card:
    rms, sigma = row["consistency_rms_255"], row["sigma"] or 0.0
    card: Card = {
        "uri": row["uri"],
        "scale": row["scale"],
        "kernel": row["kernel"] or "?",
        "sigma": sigma,
        "psnr": row["psnr_db"],
        "consistency": rms,
        "flagged": rms is not None and is_flagged(rms, sigma),
        "before": None,
        "trouble": "",
    }
    try:
        pair = previews.pair(
            row["uri"],
            row["sr_uri"],
            page=row["page"] or 0,
            scale=row["scale"],
            phase=row["phase"],
            side=_SIDE,
            max_pixels=_LARGEST_DECODED,
            max_bytes=_LARGEST_FILE,
        )
    except ItemError as error:
        return {**card, "trouble": str(error)}
    shown = {"before": data_uri(pair.before), "after": data_uri(pair.after)}
    return {**card, **shown, "width": pair.width, "height": pair.height}


def _quality(found: Review) -> list[dict[str, Any]]:
    charts = [
        _histogram(found.consistency, "Consistency", "grey levels", "near sigma is right"),
        _histogram(found.psnr, "PSNR", "dB", "where the catalog names a ground truth"),
        _histogram(found.ssim, "SSIM", "", "on luma, 1 is equal"),
    ]
    return [chart for chart in charts if chart]


def _histogram(values: Distribution, title: str, unit: str, note: str) -> dict[str, Any] | None:
    edges, counts = values.bars(_bars(values.count))
    if not len(counts):
        return None
    median = values.quantile(0.5)
    label = (
        f"{title} of {values.count:,} items: {number(values.quantile(0.05))} to {number(values.quantile(0.95))} {unit} "
        f"for nine in ten, median {number(median)}"
    )
    svg = histogram(
        edges.tolist(),
        counts.tolist(),
        label=label,
        unit=f"{unit or title}, number of items",
        logarithmic=values.logarithmic,
        marks=[(median, f"median {number(median)}")],
    )
    return {"title": title, "note": note, "svg": svg}


def _bars(count: int) -> int:
    """As many as the items can fill (Rice's rule), up to what can be told apart."""
    return min(40, max(6, math.ceil(2 * math.cbrt(count))))


def _settings(found: Review) -> tuple[list[Setting], int]:
    """The most frequent settings, a line for all others, and how many there are if not all are shown."""
    ordered = sorted(found.settings.values(), key=lambda s: (-s.items, s.scale, s.kernel, s.sigma))
    rest = Setting(0, "all others", 0.0)
    for setting in [*ordered[_MOST_SETTINGS:], found.other_settings]:
        rest += setting
    shown = ordered[:_MOST_SETTINGS]
    return ([*shown, rest], len(ordered)) if rest.items else (shown, 0)


def _stages(found: Review) -> dict[str, Any]:
    total = sum(found.seconds.values()) or 1.0
    parts = [(stage, found.seconds[stage], 100 * found.seconds[stage] / total) for stage in STAGES]
    label = ", ".join(f"{name} {share:.0f}%" for name, _, share in parts)
    return {"parts": parts, "svg": shares([(name, seconds) for name, seconds, _ in parts], label=label)}


def _times(found: Review) -> list[dict[str, Any]]:
    charts = [
        _throughput(found),
        _histogram(found.seconds_per_mp, "Seconds per HR megapixel", "s / MP", "in the restore stage, item by item"),
    ]
    return [chart for chart in charts if chart]


def _throughput(found: Review) -> dict[str, Any] | None:
    line = found.timeline
    if not line.items:
        return None
    record = found.drawn_run
    begin, end = min(line.items) * line.step, (max(line.items) + 1) * line.step
    if record and record.get("started"):
        begin = min(begin, int(datetime.fromisoformat(record["started"]).timestamp()))
    width = max(line.step, -(-(end - begin) // _STEPS))
    rates = [0.0] * -(-(end - begin) // width)
    for key, megapixels in line.megapixels.items():
        rates[(key * line.step - begin) // width] += megapixels / width
    unit, seconds = next((u, s) for u, s in (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1))
                         if end - begin >= 3 * s or s == 1)  # fmt: skip
    edges = [n * width / seconds for n in range(len(rates) + 1)]
    mean = sum(rates) / len(rates)
    label = f"Throughput of run {line.run_id}: mean {number(mean)}, peak {number(max(rates))} megapixels a second"
    return {
        "title": "Throughput over time",
        "note": f"run {line.run_id}, mean {number(mean)} MP/s",
        "svg": area(edges, rates, label=label, unit="MP / s", x_unit=f"{unit} since the run began"),
    }


def _run(run: Row) -> dict[str, Any]:
    seconds, megapixels = float(run.get("seconds") or 0), float(run.get("hr_megapixels") or 0)
    return {
        "id": run["run_id"],
        "started": str(run.get("started", ""))[:19].replace("T", " "),
        "seconds": seconds,
        "done": run.get("done", 0),
        "failed": sum((run.get("failures") or {}).values()),
        "megapixels": megapixels,
        "rate": megapixels / seconds if seconds else None,
        "finished": run.get("finished", False) and not run.get("missing"),
    }


def _details(found: Review) -> Sequence[tuple[str, str]]:
    record = found.drawn_run
    if not record:
        return ()
    versions: Mapping[str, Any] = {**record.get("versions", {}), "python": record.get("python", "?")}
    rest = {key: value for key, value in record.items() if key not in ("config", "versions", "python")}
    return (
        ("Configuration", yaml.safe_dump(record.get("config", {}), sort_keys=False, allow_unicode=True)),
        ("Versions", yaml.safe_dump(dict(versions), sort_keys=False)),
        ("The whole record", json.dumps(rest, indent=2, ensure_ascii=False)),
    )
