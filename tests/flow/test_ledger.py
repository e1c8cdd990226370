"""Crash accounting: an item that kills its worker is found, and nobody else is blamed."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow import ledger as module
from pipeline.flow.ledger import Ledger, Watch
from pipeline.records import STOPPED, Item, Outcome, Work


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def new_ledger(tries: int = 2, dead: tuple[str, ...] = ()) -> Ledger:
    return Ledger(tries, Clock(), lambda node: node not in dead)


def work(name: str) -> Work:
    return Work(Item(name, name, name, 2, 0.0, "delta", "center"), Outcome(name))


def test_a_unit_that_ended_may_begin_again_together() -> None:
    """Its result was lost with a node; that is nobody's fault."""
    ledger = new_ledger()
    for _ in range(3):
        assert not ledger.begin("read", "u", ["a", "b"], "n").alone
        ledger.end("read", "u")


def test_a_unit_whose_worker_died_is_worked_on_alone() -> None:
    ledger = new_ledger()
    assert not ledger.begin("read", "u", ["a", "b"], "n").alone
    assert ledger.begin("read", "u", ["a", "b"], "n").alone


def test_a_worker_that_went_with_its_node_blames_nobody() -> None:
    ledger = new_ledger(dead=("gone",))
    ledger.begin("read", "u", ["a", "b"], "gone")
    assert not ledger.begin("read", "u", ["a", "b"], "n").alone
    for _ in range(3):
        ledger.begin("read", "u", ["a", "b"], "gone")
        assert ledger.begin_item("read", "u", "a", "gone") is None


def test_an_item_is_condemned_after_as_many_workers_as_allowed() -> None:
    ledger = new_ledger(tries=3)
    ledger.begin("read", "u", ["a", "b"], "n")
    for _ in range(3):
        assert ledger.begin("read", "u", ["a", "b"], "n")
        assert ledger.begin_item("read", "u", "b", "n") is None
    verdict = ledger.begin("read", "u", ["a", "b"], "n")
    error = ledger.begin_item("read", "u", "b", "n")
    assert error is not None
    assert (error.code, str(error)) == (
        "worker-crash",
        "the worker died 3 times while it worked on this item alone (read)",
    )
    assert verdict.suspects == ("b", "a"), "suspects come first"
    assert ledger.begin_item("read", "u", "a", "n") is None


def test_an_item_that_was_too_slow_alone_is_condemned_at_once() -> None:
    ledger = new_ledger()
    ledger.begin("restore", "u", ["a"], "n")
    ledger.begin("restore", "u", ["a"], "n")
    ledger.begin_item("restore", "u", "a", "n")
    ledger.overdue("restore", "a", 7.0)
    error = ledger.begin_item("restore", "u", "a", "n")
    assert error is not None
    assert error.code == "time-limit"
    assert "`restore.seconds` allows 7" in str(error)


def test_a_unit_that_cannot_be_delivered_fails_in_the_end() -> None:
    ledger = new_ledger()
    for _ in range(module._MOST_DELIVERIES):
        ledger.begin("read", "u", ["a"], "n")
        ledger.end("read", "u")
    assert ledger.begin("read", "u", ["a"], "n").alone
    error = ledger.begin_item("read", "u", "a", "n")
    assert error is not None
    assert error.code == "worker-crash"


def test_when_the_run_stops_only_what_is_ready_to_be_written_goes_on() -> None:
    ledger = new_ledger()
    ledger.stop()
    assert ledger.begin("read", "u", ["a"], "n").stop
    assert ledger.begin("restore", "u", ["a"], "n").stop
    assert not ledger.begin("write", "u", ["a"], "n").stop


def test_what_is_at_work_is_told_longest_first() -> None:
    clock = Clock()
    ledger = Ledger(2, clock, lambda _: True)
    ledger.begin("read", "old", ["a", "b"], "n")
    clock.now = 60
    ledger.begin("restore", "new", ["c"], "n")
    ledger.begin("write", "done", ["d"], "n")
    ledger.end("write", "done")
    assert ledger.at_work() == ["read: 2 items for 60 s", "restore: 1 items for 0 s"]


# --- a stage call, with workers that die


class Death(BaseException):
    """The process is gone."""


class Remote:
    """A ledger as an actor is called."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return type("Method", (), {"remote": staticmethod(getattr(self._ledger, name))})


@contextmanager
def no_limit(self: Watch, item: str | None) -> Iterator[None]:
    yield


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Ledger], Watch]:
    context = type("Context", (), {"get_node_id": staticmethod(lambda: "n")})
    monkeypatch.setattr(module.ray, "get", lambda value, timeout=None: value)
    monkeypatch.setattr(module.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(Watch, "_limited", no_limit)
    return lambda ledger: Watch(Remote(ledger), "read", 60)


def repeated(watch: Watch, works: list[Work], killers: set[str]) -> tuple[list[Work], list[str]]:
    """What comes out when the worker dies of `killers` and Ray repeats the task; and what was worked on, in order."""
    log: list[str] = []

    def step(part: list[Work]) -> list[Work]:
        for one in part:
            log.append(one.item.item_id)
            if one.item.item_id in killers:
                raise Death
        return part

    for _ in range(100):
        try:
            return watch(works, step), log
        except Death:
            continue
    raise AssertionError("the task is repeated for ever")


@given(st.integers(1, 12), st.integers(0, 2**12), st.integers(1, 3))
def test_exactly_the_killers_fail_and_the_order_stays(count: int, bits: int, tries: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        context = type("Context", (), {"get_node_id": staticmethod(lambda: "n")})
        patch.setattr(module.ray, "get", lambda value, timeout=None: value)
        patch.setattr(module.ray, "get_runtime_context", lambda: context)
        patch.setattr(Watch, "_limited", no_limit)
        works = [work(f"i{n}") for n in range(count)]
        random.Random(bits).shuffle(works)
        killers = {f"i{n}" for n in range(count) if bits >> n & 1}
        done, log = repeated(Watch(Remote(Ledger(tries, Clock(), lambda _: True)), "read", 60), works, killers)
    assert [w.item.item_id for w in done] == [w.item.item_id for w in works]
    assert {w.item.item_id for w in done if w.outcome.error_code == "worker-crash"} == killers
    assert all(w.failed == (w.item.item_id in killers) for w in done)
    for name in {w.item.item_id for w in works} - killers:
        assert log.count(name) <= 2 + len(killers), "an innocent item is repeated once for each killer at most"


def test_a_stopped_run_leaves_items_without_an_outcome(watch: Callable[[Ledger], Watch]) -> None:
    ledger = new_ledger()
    ledger.stop()
    done, log = repeated(watch(ledger), [work("a"), work("b")], set())
    assert [w.outcome.status for w in done] == [STOPPED, STOPPED]
    assert log == []
