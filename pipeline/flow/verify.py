"""Whether the done outputs are still what the manifest says: existence, size and sha256 of each.

Reads every output once, so it runs where the reading is cheap: as tasks on the cluster. Names no
Ray Data.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any

import ray

from pipeline.data import manifest, upkeep
from pipeline.data.audit import Claim, damage
from pipeline.records import DONE

_CLAIMS_PER_TASK = 64  # objects, so that a task takes seconds and its start some ms
_SHOWN = 20  # altered outputs that are named; all are counted
_TASKS_AHEAD = 256  # tasks in the driver's books; the claims of an archive may be millions


def forget_altered(
    output: str, *, cpus: float, say: Callable[[str], None], resources: Mapping[str, float] = MappingProxyType({})
) -> None:
    """Take what is missing or altered out of the manifest, so that the next plan restores it again."""
    found = altered(output, cpus=cpus, resources=resources)
    for wrong in list(found.values())[:_SHOWN]:
        say(f"altered: {wrong}")
    upkeep.forget(output, found.keys())
    say(f"verified: {len(found)} done outputs are missing or altered and will be restored again")


def altered(output: str, *, cpus: float, resources: Mapping[str, float] = MappingProxyType({})) -> dict[str, str]:
    """Item ids of done outputs that are missing or differ, with what is wrong. cpus: share of one task.
    resources: custom resources of one task.

    Needs a running Ray. Raises `StorageError` where that cannot be told.
    """
    check = ray.remote(num_cpus=cpus, resources=dict(resources))(_damages)
    found: dict[str, str] = {}
    pending: list[Any] = []
    for claims in _chunks(output):
        pending.append(check.remote(claims))
        if len(pending) >= _TASKS_AHEAD:
            found |= ray.get(pending.pop(0))
    for damages in pending:
        found |= ray.get(damages)
    return found


def _damages(claims: list[Claim]) -> dict[str, str]:
    return {claim.item_id: wrong for claim in claims if (wrong := damage(claim)) is not None}


def _chunks(output: str) -> Iterator[list[Claim]]:
    claims = _claims(output)
    while chunk := list(islice(claims, _CLAIMS_PER_TASK)):
        yield chunk


def _claims(output: str) -> Iterator[Claim]:
    for table in manifest.stream_current(output, ("status", "item_id", "sr_uri", "output_bytes", "output_sha256")):
        for status, *claim in zip(*table.to_pydict().values(), strict=True):
            if status == DONE:
                yield Claim(*claim)
