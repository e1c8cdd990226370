"""The write stage: SR image -> an object under `<output>/images`, and the outcome that says so.

Output first, manifest after: a `done` row never names an object that is not there. Knows no Ray,
no torch.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import perf_counter

from pipeline import uris
from pipeline.data import images, metadata, storage
from pipeline.data.colour import of_depth
from pipeline.errors import ItemError
from pipeline.measure.metrics import psnr, ssim_y
from pipeline.plan import SAME, named_format, output_key
from pipeline.records import DONE, Item, Picture, Work, white
from pipeline.stages.guard import guarded


@dataclass(frozen=True)
class Encoding:
    """How results are written. format: a key of `images.EXTENSIONS`, or same: as the item's name ends.

    note: whether the metadata tells what made the image.
    """

    format: str
    options: images.Options = field(default_factory=images.Options)
    note: bool = True

    def format_of(self, item: Item) -> str:
        """The format of one item's result."""
        return named_format(item.key) if self.format == SAME else self.format


def write(
    works: list[Work],
    *,
    output: str,
    encoding: Encoding,
    software: str = "unfold",
    clock: Callable[[], float] = perf_counter,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Work]:
    """Encode and put each restored image, in order; every outcome leaves here final, without pixels."""

    def step(work: Work) -> Work:
        return _write(work, output, encoding, software, clock)

    return [_dated(guarded("write", step, work), now()) for work in works]


def _write(work: Work, output: str, encoding: Encoding, software: str, clock: Callable[[], float]) -> Work:
    begin = clock()
    if work.picture is None:
        raise ItemError("internal", "no picture reached the write stage")
    format = encoding.format_of(work.item)
    note = {"software": software, "model": str(work.outcome.model_id), "scale": str(work.item.scale)}
    picture = metadata.enlarged(work.picture, work.item.scale, note if encoding.note else None)
    data = images.encode(picture, format, encoding.options)
    uri = uris.join(output, "images", output_key(work.item, images.EXTENSIONS[format]))
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
    sr, border, peak = restored.pixels_hwc, work.item.scale**2, white(restored.pixels_hwc.dtype)
    hr = of_depth(truth.pixels_hwc, sr.dtype)
    psnr_db, ssim = (metric(sr, hr, border=border, peak=peak) for metric in (psnr, ssim_y))
    return replace(work, outcome=replace(work.outcome, psnr_db=psnr_db, ssim=ssim))


def _noted(work: Work, note: str) -> Work:
    return replace(work, outcome=replace(work.outcome, error=note))


def _dated(work: Work, written_at: datetime) -> Work:
    outcome = replace(work.outcome, written_at=written_at)
    return replace(work, outcome=outcome, picture=None, degradation=None)
