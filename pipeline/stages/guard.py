"""One item's error becomes that item's failed row, never a failed job. Knows no Ray, no torch."""

import traceback
from collections.abc import Callable
from dataclasses import replace

from pipeline.errors import ItemError
from pipeline.records import Work, failed


def guarded(stage: str, step: Callable[[Work], Work], work: Work) -> Work:
    """`step(work)`; failed work passes through untouched, an exception makes the work failed."""
    if work.failed:
        return work
    try:
        return step(work)
    except Exception as error:  # the item ends here, so anything it raised must become its row
        return fail(work, error, stage)


def fail(work: Work, error: Exception, stage: str) -> Work:
    """`work` as failed by `error`, its pixels dropped. Unforeseen errors get the code `internal`."""
    outcome = failed(work.outcome, as_item_error(error), stage)
    return replace(work, outcome=outcome, picture=None, degradation=None)


def as_item_error(error: Exception) -> ItemError:
    if isinstance(error, ItemError):
        return error
    if isinstance(error, MemoryError):
        return ItemError("out-of-memory", f"not enough memory: {error}")
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" at {frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in place)
    return ItemError("internal", f"{type(error).__name__}: {error}{where}")
