"""The write stage: SR image -> an object under `<output>/images`, and the outcome that says so.

Output first, manifest after: a `done` row never names an object that is not there. Knows no Ray,
no torch.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from pipeline import uris
from pipeline.data import images, storage
from pipeline.errors import ItemError
from pipeline.measure.metrics import psnr, ssim_y
from pipeline.plan import output_key
from pipeline.records import DONE, Picture, Work
from pipeline.stages.guard import guarded


@dataclass(frozen=True)
class Encoding:
    """How results are written. format: a key of `images.EXTENSIONS`; options: for its encoder."""

    format: str
    options: Mapping[str, Any]


def write(
    works: list[Work],
    *,
    output: str,
    encoding: Encoding,
    clock: Callable[[], float] = perf_counter,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Work]:
    """Encode and put each restored image, in order; every outcome leaves here final, without pixels."""
    return [_dated(guarded("write", lambda w: _write(w, output, encoding, clock), work), now()) for work in works]


def _write(work: Work, output: str, encoding: Encoding, clock: Callable[[], float]) -> Work:
    begin = clock()
    if work.picture is None:
        raise ItemError("internal", "no picture reached the write stage")
    data = images.encode(work.picture, encoding.format, **encoding.options)
    uri = uris.join(output, "images", output_key(work.item, images.EXTENSIONS[encoding.format]))
    storage.write_bytes(uri, data)
    outcome = replace(
        work.outcome,
        status=DONE,
        sr_uri=uri,
        output_bytes=len(data),
        output_sha256=hashlib.sha256(data).hexdigest(),
        seconds_write=clock() - begin,
    )
    return _measured(replace(work, outcome=outcome), work.picture)


def _measured(work: Work, restored: Picture) -> Work:
    """PSNR and SSIM where the catalog names a ground truth; one that cannot be used costs only these."""
    if work.item.hr_uri is None:
        return work
    try:
        truth = images.decode(storage.read_bytes(work.item.hr_uri), max_pixels=restored.pixels_hwc[:, :, 0].size)
    except ItemError as error:
        return _noted(work, f"hr_uri: {error}")
    if truth.pixels_hwc.shape != restored.pixels_hwc.shape:
        return _noted(work, f"hr_uri: {truth.pixels_hwc.shape} does not fit {restored.pixels_hwc.shape}")
    border = work.item.scale**2
    measured = (metric(restored.pixels_hwc, truth.pixels_hwc, border=border) for metric in (psnr, ssim_y))
    psnr_db, ssim = measured
    return replace(work, outcome=replace(work.outcome, psnr_db=psnr_db, ssim=ssim))


def _noted(work: Work, note: str) -> Work:
    return replace(work, outcome=replace(work.outcome, error=note))


def _dated(work: Work, written_at: datetime) -> Work:
    outcome = replace(work.outcome, written_at=written_at)
    return replace(work, outcome=outcome, picture=None, degradation=None)
