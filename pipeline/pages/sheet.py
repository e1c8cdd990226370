"""The contact sheet of an exploration as one HTML file: look, compare, copy the setting.

Each picture is in the file once; the viewer shows it again at full size.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import yaml

from pipeline.data import previews
from pipeline.explore import Exploration, Trial, Verdict
from pipeline.pages.page import data_uri, number, page

_OWN = "values"  # what a kernel is called that the catalog gives as numbers
_MOST_VERDICTS = 10
_MOST_COLUMNS = 6  # of the grid; with more sigmas, pictures flow on


def sheet_page(
    explorations: Sequence[Exploration],
    verdicts: Sequence[Verdict],
    troubles: Sequence[str],
    *,
    catalog: str,
    now: datetime,
) -> bytes:
    """The file. verdicts: best first. troubles: items that could not be shown, and why."""
    items = [_item(exploration, place) for place, exploration in enumerate(explorations, start=1)]
    return page(
        "sheet.html",
        now=now,
        catalog=catalog,
        items=items,
        verdicts=[_verdict(v, verdicts[0], explorations) for v in verdicts[:_MOST_VERDICTS]],
        tried=len(verdicts),
        agreed=bool(verdicts) and 2 * verdicts[0].first_three > len(explorations),
        troubles=troubles,
    )


def kernel_name(kernel: str) -> str:
    return "own kernel_values" if kernel == _OWN else kernel


def defaults_yaml(kernel: str, sigma: float, scale: int | None, phase: str | None) -> str:
    """The section `defaults` of conf/upscale_archive.yaml; scale and phase only where all items agree."""
    own = kernel == _OWN
    values: dict[str, Any] = {"kernel": None if own else kernel, "sigma": sigma, "scale": scale, "phase": phase}
    known = {key: value for key, value in values.items() if value is not None}
    note = "# the kernel is the item's own kernel_values: no default for others\n" if own else ""
    return note + yaml.safe_dump({"defaults": known}, sort_keys=False, allow_unicode=True)


def _item(exploration: Exploration, place: int) -> dict[str, Any]:
    item, window = exploration.item, exploration.window
    lr = previews.eight_bits(exploration.lr)
    whole = previews.Window(0, 0, *lr.shape[:2])
    bicubic = previews.enlarged(lr, whole, item.scale, item.phase)
    height, width = exploration.size
    part = "" if (window.height, window.width) == exploration.size else "; its busiest part is shown"
    best = max((trial.evidence for trial in exploration.trials), default=0.0)
    return {
        "anchor": f"item-{place}",
        "uri": item.uri if not item.page else f"{item.uri}, page {item.page}",
        "about": f"{width} × {height} pixels, scale {item.scale}, phase {item.phase}{part}",
        "scale": item.scale,
        "lr": data_uri(previews.webp(lr, lossless=True)),
        "bicubic": data_uri(previews.webp(bicubic)),
        "width": bicubic.shape[1],
        "height": bicubic.shape[0],
        "columns": min(_MOST_COLUMNS, len({trial.sigma for trial in exploration.trials})),
        "trials": [_trial(trial, n, best, exploration) for n, trial in enumerate(exploration.trials)],
        "troubles": exploration.troubles,
    }


def _trial(trial: Trial, place: int, best: float, exploration: Exploration) -> dict[str, Any]:
    item = exploration.item
    return {
        "setting": f"{kernel_name(trial.kernel)}, σ {number(trial.sigma)}",
        "picture": data_uri(previews.webp(previews.eight_bits(trial.image))),
        "rank": trial.rank,
        "place": place,
        "given": trial.given,
        "score": score(trial.evidence, best),
        "consistency": number(trial.consistency_rms_255),
        "yaml": defaults_yaml(trial.kernel, trial.sigma, item.scale, item.phase),
    }


def _verdict(verdict: Verdict, best: Verdict, explorations: Sequence[Exploration]) -> dict[str, Any]:
    scales, phases = ({getattr(e.item, name) for e in explorations} for name in ("scale", "phase"))
    return {
        "rank": verdict.rank,
        "kernel": kernel_name(verdict.kernel),
        "sigma": verdict.sigma,
        "score": score(verdict.evidence, best.evidence),
        "consistency": verdict.consistency_rms_255,
        "first_three": verdict.first_three,
        "yaml": defaults_yaml(
            verdict.kernel,
            verdict.sigma,
            scales.pop() if len(scales) == 1 else None,
            phases.pop() if len(phases) == 1 else None,
        ),
    }


def score(evidence: float, best: float) -> str:
    """How far behind the best, in thousandths of a nat per sample: `0`, `-3.2`, `-1,240`."""
    behind = 1000 * (evidence - best)
    return number(behind) if np.isfinite(behind) and behind < -0.05 else "0"
