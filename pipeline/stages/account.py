"""What the engine tells of a result, as columns of the manifest: the same for whole images and for windows."""

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.measure.consistency import is_flagged
from pipeline.records import Item, Outcome, checked_sigma

if TYPE_CHECKING:
    from pipeline.model.restore import Account


def accounted(outcome: Outcome, account: "Account", item: Item) -> Outcome:
    """The outcome with precision, code, tiles and consistency; flagged where the result does not explain its input."""
    return replace(
        outcome,
        precision=account.precision,
        backend=account.backend,
        tiles=account.tiles,
        consistency_rms_255=account.consistency_rms_255,
        consistency_flagged=is_flagged(account.consistency_rms_255, checked_sigma(item.sigma)),
    )
