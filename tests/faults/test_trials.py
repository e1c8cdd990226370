"""The short form of `tests/faults/trials.py`: every fault twice, all items done once in the end."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import trials
from bench import Bench, Result

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
    results = [trials.try_fault(bench, name, number) for number in range(2)]
    assert all(trials.spotless(result) for result in results), results


def test_a_record_of_trials_is_gone_on_with(tmp_path: Path) -> None:
    record = tmp_path / "trials.jsonl"
    made = Result(0, 0, 0, 0, 1, [4, 0], 2.5, struck=1)
    trials.tell("SIGTERM", 0, made, record)
    trials.tell("disk full", 1, replace(made, again=None, lost=1), record)
    results = trials.recorded(record)
    assert results["SIGTERM"] == {0: made}
    left = list(trials.missing(results, ["SIGTERM", "disk full"], 2))
    assert left == [("disk full", 0), ("SIGTERM", 1)]
    assert "| SIGTERM | 1 | 0 | 0 | 0 | 0 | 1 | 1 | 1 | 2 |" in trials.table(results)
    assert "| disk full | 1 | 1 | 0 | 0 | 0 |  |  | 1 | 2 |" in trials.table(results)
    assert trials.spotless(made)
    assert not trials.spotless(results["disk full"][1])
    assert not trials.spotless(replace(made, struck=0))
    assert not trials.spotless(replace(made, again=trials.ITEMS))
    assert not trials.spotless(replace(made, problem="two runs at once ended with [0, 0]"))
