"""The restore stage: a work unit of LR images -> SR images, by one replica. No I/O, no Ray."""

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from pipeline.errors import ItemError
from pipeline.model.layout import BoundaryMode
from pipeline.model.restore import Restored, Restorer
from pipeline.physics.resample import fill_transparent, upscale_bicubic
from pipeline.records import Picture, Work, white
from pipeline.stages.account import accounted
from pipeline.stages.guard import fail


def restore(
    works: list[Work],
    *,
    restorer: Restorer,
    model_id: str,
    boundary: BoundaryMode,
    clock: Callable[[], float] = perf_counter,
) -> list[Work]:
    """Restore a unit together; in order, failed work untouched, one item's failure its own."""
    ready = [work for work in works if not work.failed]
    begin = clock()
    results = _results(ready, restorer, boundary)
    seconds = clock() - begin
    shares = _shares(ready)
    finished = {
        id(work): _finish(work, result, model_id, seconds * share)
        for work, result, share in zip(ready, results, shares, strict=True)
    }
    return [finished.get(id(work), work) for work in works]


def _results(ready: list[Work], restorer: Restorer, boundary: BoundaryMode) -> list[Restored | Exception]:
    images = [_network_input(work.picture) for work in ready if work.picture is not None]
    degradations = [work.degradation for work in ready if work.degradation is not None]
    try:
        return list(restorer.batch(images, degradations, boundary))
    except Exception as error:  # not foreseen per item: find the item that raises by going one by one
        if len(ready) == 1:
            return [error]
        return [result for work in ready for result in _results([work], restorer, boundary)]


def _network_input(picture: Picture) -> Any:
    pixels = picture.pixels_hwc
    if picture.alpha_hw is not None:
        pixels = fill_transparent(pixels, picture.alpha_hw)
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def _finish(work: Work, result: Restored | Exception, model_id: str, seconds: float) -> Work:
    if isinstance(result, Exception):
        return fail(work, result, "restore")
    picture = work.picture
    if picture is None:
        return fail(work, ItemError("internal", "no picture reached the restore stage"), "restore")
    height, width = result.image.shape[:2]
    outcome = replace(
        accounted(work.outcome, result, work.item),
        sr_height=height,
        sr_width=width,
        model_id=model_id,
        seconds_restore=seconds,
    )
    restored = replace(
        picture,
        pixels_hwc=result.image.reshape(height, width, -1),
        alpha_hw=_upscaled_alpha(work, picture),
    )
    return replace(work, outcome=outcome, picture=restored, degradation=None)


def _upscaled_alpha(work: Work, picture: Picture) -> Any:
    """Alpha is no photograph: it is resampled, on the grid that the item's phase means."""
    alpha = picture.alpha_hw
    if alpha is None:
        return None
    peak = white(alpha.dtype)
    upscaled = upscale_bicubic(alpha, work.item.scale, work.item.phase)
    within = np.clip(upscaled, 0, peak)
    return (within if alpha.dtype.kind == "f" else np.rint(within)).astype(alpha.dtype)


def _shares(works: list[Work]) -> list[float]:
    """Each item's part of the unit's time, by HR pixels."""
    pixels = [float(w.picture.pixels_hwc[:, :, 0].size) if w.picture is not None else 0.0 for w in works]
    total = sum(pixels) or 1.0
    return [p / total for p in pixels]
