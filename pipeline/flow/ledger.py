"""Crash accounting: what was being worked on when a worker died.

A stage call tells the ledger which unit it begins and when it is through. A unit that begins again
though it never ended was in the hands of a worker that died. It is then worked on item by item, so
that the one that kills its worker is found, and the others are not blamed:

    together     the whole unit in one step, as long as nothing happened
    alone        each item by itself, suspects first, after the unit's worker died
    condemned    an item that killed `crash_tries` workers while alone, or took too long alone once

A worker that went with its node is nobody's fault. The ledger is one actor; Ray repeats a task or
restarts an actor, and what it repeats is decided here. Knows no Ray Data.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from faulthandler import cancel_dump_traceback_later, dump_traceback_later
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.errors import ItemError
from pipeline.plan import digest
from pipeline.records import STOPPED, Work
from pipeline.stages.guard import fail

LAST_STAGE = "write"  # what comes so far is finished even when the run stops
_MOST_DELIVERIES = 20  # of one unit's result; then its worker dies where no item is at hand
_BACKSTOP_S = 10.0  # a hang that keeps Python from running is ended from C, so much later


@dataclass(frozen=True)
class Verdict:
    """How a unit is to be worked on. suspects: items to begin with, most suspect first."""

    stop: bool = False
    alone: bool = False
    suspects: tuple[str, ...] = ()


@dataclass
class _Unit:
    node: str
    since: float
    items: int
    alone: bool = False
    running: bool = True
    undelivered: int = 0


def node_is_alive(node: str) -> bool:
    return any(entry["NodeID"] == node and entry["Alive"] for entry in ray.nodes())  # type: ignore[no-untyped-call]


class Ledger:
    """The accounts of one run. crash_tries: workers an item may kill before it fails."""

    def __init__(
        self,
        crash_tries: int,
        clock: Callable[[], float] = time.monotonic,
        is_alive: Callable[[str], bool] = node_is_alive,
    ) -> None:
        self._crash_tries, self._clock, self._is_alive = crash_tries, clock, is_alive
        self._units: dict[tuple[str, str], _Unit] = {}
        self._alone: dict[tuple[str, str], str] = {}  # item at hand -> node
        self._crashes: Counter[tuple[str, str]] = Counter()
        self._overdue: dict[tuple[str, str], float] = {}
        self._stopping = False

    def begin(self, stage: str, unit: str, item_ids: Sequence[str], node: str) -> Verdict:
        """A worker on `node` takes up a unit."""
        if self._stopping and stage != LAST_STAGE:
            return Verdict(stop=True)
        key = (stage, unit)
        account = self._units.get(key)
        if account is None:
            self._units[key] = _Unit(node, self._clock(), len(item_ids))
            return Verdict()
        if not account.running:
            account.undelivered += 1
        elif self._is_alive(account.node):
            account.alone = True
        account.node, account.since, account.running = node, self._clock(), True
        for item in item_ids:
            if (at_hand := self._alone.pop((stage, item), None)) is not None and self._is_alive(at_hand):
                self._crashes[stage, item] += 1
        blamed = sorted(item_ids, key=lambda item: -self._crashes[stage, item])
        return Verdict(alone=account.alone or account.undelivered >= _MOST_DELIVERIES, suspects=tuple(blamed))

    def end(self, stage: str, unit: str) -> None:
        """The unit is through; what follows is its delivery."""
        if (account := self._units.get((stage, unit))) is not None:
            account.running = False

    def begin_item(self, stage: str, unit: str, item: str, node: str) -> ItemError | None:
        """A worker takes up an item alone; the error if it must not."""
        key = (stage, item)
        if key in self._overdue:
            limit = f"`{stage}.seconds` allows {self._overdue[key]:g}"
            return ItemError("time-limit", f"the item was not through in time, also alone; {limit}")
        if self._crashes[key] >= self._crash_tries:
            died = f"the worker died {self._crashes[key]} times while it worked on this item alone"
            return ItemError("worker-crash", f"{died} ({stage})")
        if (account := self._units.get((stage, unit))) and account.undelivered >= _MOST_DELIVERIES:
            return ItemError("worker-crash", f"the worker died {_MOST_DELIVERIES} times handing over this item's unit")
        self._alone[key] = node
        return None

    def end_item(self, stage: str, item: str) -> None:
        self._alone.pop((stage, item), None)

    def overdue(self, stage: str, item: str, seconds: float) -> None:
        """An item alone took longer than `seconds`; its worker ends itself."""
        self._overdue[stage, item] = seconds
        self._alone.pop((stage, item), None)

    def stop(self) -> None:
        """From now on no stage takes up anything but what is ready to be written."""
        self._stopping = True

    def at_work(self) -> list[str]:
        """What is in the hands of workers now, for a person, longest first; what went with a node is not."""
        now = self._clock()
        running = [
            (now - account.since, *key, account.items) for key, account in self._units.items() if account.running
        ]
        return [f"{stage}: {count} items for {age:.0f} s" for age, stage, _, count in sorted(running, reverse=True)]


def open_ledger(crash_tries: int) -> Any:
    """A ledger on the driver's node, which the run needs anyhow, as an actor that takes no CPU."""
    # Not soft: Ray 2.60 then puts an actor without CPUs anywhere, and it would die with a spot node.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(**options)(Ledger).remote(crash_tries)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Watch:
    """What accounts for the calls of one stage.

    ledger: handle of the actor; None keeps no accounts. seconds: what a unit may take together, and
    then each of its items alone; the worker ends itself beyond. None: any time.
    """

    ledger: Any
    stage: str
    seconds: float | None = None

    def __call__(self, works: list[Work], step: Callable[[list[Work]], list[Work]]) -> list[Work]:
        """`step(works)`, or what the ledger says instead; one work for each, in order."""
        ready = [work for work in works if not work.failed]
        if self.ledger is None:
            return step(works)
        if not ready:
            return works
        items = [work.item.item_id for work in ready]
        unit = digest(*items)
        node = ray.get_runtime_context().get_node_id()
        verdict: Verdict = ray.get(self.ledger.begin.remote(self.stage, unit, items, node))
        if verdict.stop:
            return [stopped(work) for work in works]
        if not verdict.alone:
            with self._limited(None):
                done = step(works)
        else:
            done = self._one_by_one(works, step, verdict.suspects, unit, node)
        self.ledger.end.remote(self.stage, unit)
        return done

    def _one_by_one(
        self,
        works: list[Work],
        step: Callable[[list[Work]], list[Work]],
        suspects: Sequence[str],
        unit: str,
        node: str,
    ) -> list[Work]:
        """Suspects first: if one kills this worker too, less of the others' work is lost with it."""
        place = {item: number for number, item in enumerate(suspects)}
        done: dict[int, Work] = {}
        for number, work in sorted(enumerate(works), key=lambda pair: place.get(pair[1].item.item_id, -1)):
            done[number] = work if work.failed else self._alone(work, step, unit, node)
        return [done[number] for number in range(len(works))]

    def _alone(self, work: Work, step: Callable[[list[Work]], list[Work]], unit: str, node: str) -> Work:
        item = work.item.item_id
        refusal: ItemError | None = ray.get(self.ledger.begin_item.remote(self.stage, unit, item, node))
        if refusal is not None:
            return fail(work, refusal, self.stage)
        with self._limited(item):
            (done,) = step([work])
        ray.get(self.ledger.end_item.remote(self.stage, item))  # before the next one may kill this worker
        return done

    @contextmanager
    def _limited(self, item: str | None) -> Iterator[None]:
        """Ends this process when the time is up: nothing else ends a library that hangs."""
        if self.seconds is None:
            yield
            return
        timer = threading.Timer(self.seconds, self._give_up, [item])
        timer.daemon = True
        timer.start()
        dump_traceback_later(self.seconds + _BACKSTOP_S, exit=True)
        try:
            yield
        finally:
            cancel_dump_traceback_later()
            timer.cancel()

    def _give_up(self, item: str | None) -> None:
        if item is not None:
            ray.get(self.ledger.overdue.remote(self.stage, item, self.seconds), timeout=_BACKSTOP_S)
        os._exit(1)


def stopped(work: Work) -> Work:
    """`work` as left for the next run: it passes all stages untouched and into no manifest."""
    if work.failed:
        return work
    return replace(work, outcome=replace(work.outcome, status=STOPPED), picture=None, degradation=None)
