"""What ends a run early: signals, a lost lease, one error everywhere, no progress."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import LeaseHeld, NotFinished
from pipeline.flow import cluster
from pipeline.flow.oversee import Breaker, Overseer, Stop, listening
from pipeline.records import DONE, FAILED, STOPPED, Outcome


def outcomes(*codes: str | None) -> list[Outcome]:
    return [Outcome("x", status=DONE if code is None else FAILED, error_code=code) for code in codes]


class FakeLedger:
    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.stop = SimpleNamespace(remote=self.stopped.set)


def overseer(stop: Stop | None = None, lost: str | None = None, **settings: Any) -> Overseer:
    given = {"breaker": Breaker(0.5, 4), "drain_seconds": 0.3, "stall_seconds": 60.0} | settings
    return Overseer(stop=stop or Stop(), lease=SimpleNamespace(lost=lost), **given)  # type: ignore[arg-type]


def flow(ledger: FakeLedger, units: list[list[Outcome]], then: float = 0.0) -> Iterator[list[Outcome]]:
    yield from units
    ledger.stopped.wait(then)


def test_units_come_through_and_the_end_is_the_end() -> None:
    units = [outcomes(None), outcomes("not-an-image"), outcomes(None, None)]
    ledger = FakeLedger()
    assert list(overseer().units(flow(ledger, units), ledger)) == units
    assert not ledger.stopped.is_set()


def test_an_error_of_the_flow_is_raised_where_the_units_are_taken() -> None:
    def broken() -> Iterator[list[Outcome]]:
        yield outcomes(None)
        raise ZeroDivisionError

    units = overseer().units(broken(), FakeLedger())
    assert next(units) == outcomes(None)
    with pytest.raises(ZeroDivisionError):
        next(units)


def test_a_signal_drains_what_is_at_work_and_ends_the_run() -> None:
    """What was at work still comes out, what was stopped does not count, and then it is not finished."""

    def one_more(ledger: FakeLedger) -> Iterator[list[Outcome]]:
        os.kill(os.getpid(), signal.SIGTERM)
        assert ledger.stopped.wait(5)
        yield [*outcomes(None), Outcome("y", status=STOPPED)]

    ledger = FakeLedger()
    with listening() as stop:
        stop.listen(draining=True)
        units = overseer(stop).units(one_more(ledger), ledger)
        assert next(units) == outcomes(None)
        with pytest.raises(NotFinished, match="SIGTERM came; run again"):
            next(units)


def test_what_takes_longer_than_the_draining_is_abandoned() -> None:
    with listening() as stop:
        stop.listen(draining=True)
        os.kill(os.getpid(), signal.SIGTERM)
        begin = time.monotonic()
        hangs = (outcomes(None) for _ in iter(lambda: time.sleep(30), 0))
        with pytest.raises(NotFinished, match="SIGTERM"):
            next(overseer(stop).units(hangs, FakeLedger()))
        assert 0.2 < time.monotonic() - begin < 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_before_anything_is_at_work_a_signal_ends_the_run_at_once(number: int) -> None:
    before = signal.getsignal(number)
    timer = threading.Timer(0.2, os.kill, [os.getpid(), number])
    timer.start()
    with pytest.raises(NotFinished, match=signal.Signals(number).name), listening():
        time.sleep(5)
    assert signal.getsignal(number) is before


def test_a_lost_lease_ends_the_run() -> None:
    def slow() -> Iterator[list[Outcome]]:
        yield outcomes(None)
        time.sleep(1)
        yield outcomes(None)

    with pytest.raises(LeaseHeld, match="run other on host took over"):
        list(overseer(lost="run other on host").units(slow(), FakeLedger()))


def test_between_two_waves_nothing_new_is_begun_after_a_signal_or_without_the_lease() -> None:
    overseer().check()
    with pytest.raises(LeaseHeld, match="run other on host took over"):
        overseer(lost="run other on host").check()
    with listening() as stop:
        stop.listen(draining=True)
        between = overseer(stop)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(NotFinished, match="SIGTERM came; run again"):
            between.check()


def test_a_run_without_progress_gives_up_and_says_what_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = SimpleNamespace(at_work=SimpleNamespace(remote=lambda: ["restore: 3 items for 99 s"]))
    monkeypatch.setattr("pipeline.flow.oversee.ray.get", lambda value, timeout: value)
    hangs = (outcomes(None) for _ in iter(lambda: time.sleep(30), 0))
    waited: list[None] = []
    with pytest.raises(NotFinished, match=r"no unit came out for 0\.3 s \(restore: 3 items for 99 s\)"):
        next(overseer(stall_seconds=0.3).units(hangs, ledger, waiting=lambda: waited.append(None)))
    assert len(waited) >= 2


@pytest.mark.parametrize(
    ("codes", "trips"),
    [
        (["storage-denied"] * 4, "storage-denied"),
        (["storage-denied", None, "storage-denied", "storage-denied"], "storage-denied"),
        (["storage-denied", None, "storage-denied", None], None),
        (["storage-denied"] * 3, None),
        (["not-an-image"] * 9, None),
        (["storage-denied", "storage-transient"] * 2, None),
        (["credentials-expired"], "credentials-expired"),
        ([None] * 9 + ["storage-transient"] * 3, "storage-transient"),
    ],
)
def test_the_breaker_trips_on_one_error_of_the_surroundings(codes: list[str | None], trips: str | None) -> None:
    breaker = Breaker(0.5, 4)
    for code in codes:
        breaker.add(outcomes(code))
    assert breaker.tripped == trips


def test_a_tripped_breaker_ends_the_run_with_the_mend() -> None:
    ledger = FakeLedger()
    units = flow(ledger, [outcomes(*["storage-transient"] * 4)], then=5)
    with pytest.raises(NotFinished, match=r"too many .* storage-transient .*; .* look at the storage's health"):
        list(overseer().units(units, ledger))
    assert ledger.stopped.is_set()


def test_a_manifest_that_cannot_be_written_ends_the_run() -> None:
    ledger = FakeLedger()
    unrecorded = [Outcome("x", status=STOPPED, error_code="storage-denied", error="s3://b/x: refused")]
    with pytest.raises(NotFinished, match=r"the manifest cannot be written \(s3://b/x: refused\); run again"):
        list(overseer().units(flow(ledger, [unrecorded], then=5), ledger))
    assert ledger.stopped.is_set()


@pytest.mark.parametrize(("at_work", "ends"), [([], True), (["restore: 1 items for 9 s"], False)])
def test_a_cluster_too_small_for_its_replicas_and_a_task_ends_the_run(
    at_work: list[str], ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.flow.oversee._STARVED_S", 0.1)
    monkeypatch.setattr("pipeline.flow.oversee.ray.get", lambda value, timeout: value)
    ledger = SimpleNamespace(at_work=SimpleNamespace(remote=lambda: at_work))
    hangs = (outcomes(None) for _ in iter(lambda: time.sleep(30), 0))
    with pytest.raises(NotFinished, match="nodes went" if ends else "no unit came out"):
        next(overseer(stall_seconds=1.5).units(hangs, ledger, lambda: True))


def test_crowding_is_a_cluster_that_shrank_below_its_replicas_and_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = [0.0]
    monkeypatch.setattr(cluster, "_cpus", lambda: cpus[0])
    crowding = cluster.Crowding(cluster.Placement(0.0, 1.0, 2, 2, 2, 0.5, 0.25, 1, 1))
    seen = []
    for cpus[0] in (0.0, 1.0, 4.0, 3.0, 2.0, 4.0):
        seen.append(crowding())
    assert seen == [False, False, False, False, True, False], "one that has not come up yet is not crowded"
