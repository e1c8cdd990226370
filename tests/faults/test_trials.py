"""The short form of `tests/faults/trials.py`: every fault twice, all items done once in the end."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import trials
from bench import Bench

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)  # the bench puts its proxy there; undone at the end
        patch.setattr(trials, "DOWN_S", 10.0)
        made = Bench(endpoint, s3.removeprefix("s3://"), tmp_path_factory.mktemp("bench"))
        yield made
        made.close()


@pytest.mark.parametrize("name", trials.FAULTS)
def test_nothing_is_lost_doubled_or_half_written(name: str, bench: Bench) -> None:
    if name == "disk full" and not trials.may_mount():
        pytest.skip("there is no right to mount a small disk here")
    results = trials.try_fault(bench, name, 2)
    assert all(trials.spotless(result) for result in results), trials.table({name: results})
    assert max(result.again for result in results) <= trials.ITEMS / 2
