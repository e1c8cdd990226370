"""Keeping an eye on a run while its units come out: who asks it to end, and what makes it pointless.

    a signal                 the job was stopped, or the machine is about to go
    the lease is lost        another run took this one for dead
    no row can be written    an outcome that is not in the manifest is none
    one error everywhere     the storage is down, the credentials are no longer good
    no unit for a long time  the cluster never came up, has shrunk, or hangs

The units are taken in a thread of their own, so that this thread can answer at any time. Knows no
Ray Data; the ledger is all it knows of Ray.
"""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

import ray

from pipeline.data.lease import Lease
from pipeline.errors import ERROR_CODES, LeaseHeld, NotFinished
from pipeline.records import STOPPED, Outcome

_LOOK_EVERY_S = 0.2
_STARVED_S = 60.0  # without a unit, after which it is asked whether any can come
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Failures that say more of the surroundings than of the item; those of the store say nothing of it.
OF_THE_STORE = {"storage-transient", "storage-denied", "credentials-expired"}
_SURROUNDINGS = OF_THE_STORE | {"worker-crash", "time-limit", "out-of-memory", "internal"}
_HOPELESS = {"credentials-expired"}  # one is enough: the next item's request is signed with the same


class Stop:
    """Whether the run was asked to end. `reason` says by what."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._draining = False

    def listen(self, *, draining: bool) -> None:
        """Answer signals from now on: by draining, or (nothing is at work yet) at once.

        Ray installs handlers of its own when it starts, so this is called after.
        """
        self._draining = draining
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._answer)

    def _answer(self, number: int, frame: object) -> None:
        again = self.reason is not None
        self.reason = f"{signal.Signals(number).name} came"
        if not self._draining or (again and number == signal.SIGINT):
            raise NotFinished(f"{self.reason}; what is done is recorded, run again to go on")


@contextmanager
def listening() -> Iterator[Stop]:
    """Inside, SIGTERM and SIGINT end the run with `NotFinished`."""
    stop = Stop()
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    stop.listen(draining=False)
    try:
        yield stop
    finally:
        for number, handler in before.items() if main else ():
            signal.signal(number, handler)


class Breaker:
    """Trips when of the last `items` outcomes more than `share` failed by one error of the surroundings.

    `tripped` is that error's code.
    """

    def __init__(self, share: float, items: int) -> None:
        self._share, self._recent = share, deque[str | None](maxlen=items)
        self.tripped: str | None = None

    def add(self, outcomes: Sequence[Outcome]) -> None:
        self._recent.extend(outcome.error_code for outcome in outcomes)
        for code in {outcome.error_code for outcome in outcomes} & _SURROUNDINGS:
            full = len(self._recent) == self._recent.maxlen
            if code in _HOPELESS or (full and self._recent.count(code) > self._share * len(self._recent)):
                self.tripped = code


class Overseer:
    """What may end a run early, and how. drain_seconds: for what is at work to finish.

    stall_seconds: without any unit, after which the run gives up.
    """

    def __init__(
        self,
        *,
        stop: Stop,
        lease: Lease,
        breaker: Breaker,
        drain_seconds: float,
        stall_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stop, self.lease, self.breaker = stop, lease, breaker
        self._drain_seconds, self._stall_seconds, self._clock = drain_seconds, stall_seconds, clock
        self._last, self._next_count = clock(), _STARVED_S
        self._end: float | None = None
        self._unrecorded: str | None = None

    def units(
        self,
        flow: Iterator[list[Outcome]],
        ledger: Any,
        is_crowded: Callable[[], bool] = lambda: False,
        waiting: Callable[[], None] = lambda: None,
    ) -> Iterator[list[Outcome]]:
        """What comes out of `flow`, without items left for the next run.

        is_crowded: True when the cluster has shrunk so far that replicas leave no CPU to other stages.
        waiting: called again and again while no unit comes.

        Raises `NotFinished` when the run had to end early, `LeaseHeld` when another run took over.
        """
        box: SimpleQueue[list[Outcome] | BaseException | None] = SimpleQueue()
        threading.Thread(target=_fill, args=(flow, box), name="units", daemon=True).start()
        self._last = self._clock()
        while True:
            try:
                unit = box.get(timeout=_LOOK_EVERY_S)
            except Empty:
                waiting()
                self._look(ledger, is_crowded)
                continue
            if unit is None:
                break
            if isinstance(unit, BaseException):
                raise unit
            yield self._counted(unit)
            self._look(ledger, is_crowded)
        self.check()

    def check(self) -> None:
        """Raises `NotFinished` or `LeaseHeld` where nothing new may be begun."""
        self._refuse_without_lease()
        if self._reason is not None:
            raise NotFinished(f"{self._reason}; run again to go on")

    def _refuse_without_lease(self) -> None:
        if self.lease.lost is not None:
            raise LeaseHeld(f"{self.lease.lost} took over this output; this run stops")

    def _counted(self, unit: list[Outcome]) -> list[Outcome]:
        outcomes = [outcome for outcome in unit if outcome.status != STOPPED]
        for left in unit:
            if left.status == STOPPED and left.error is not None:
                self._unrecorded = f"the manifest cannot be written ({left.error})"
        self.breaker.add(outcomes)
        self._last, self._next_count = self._clock(), _STARVED_S
        return outcomes

    @property
    def _reason(self) -> str | None:
        if self.breaker.tripped is None:
            return self._unrecorded or self.stop.reason
        row = ERROR_CODES[self.breaker.tripped]
        return f"stopped early: too many items fail as {row.code} ({row.meaning}); {row.mend}"

    def _look(self, ledger: Any, is_crowded: Callable[[], bool]) -> None:
        self._refuse_without_lease()
        now = self._clock()
        idle = now - self._last
        if self._reason is not None:
            if self._end is None:
                ledger.stop.remote()
                self._end = now + self._drain_seconds
            if now >= self._end:
                raise NotFinished(f"{self._reason}; run again to go on")
        elif idle > self._stall_seconds:
            at_work = "; ".join(_at_work(ledger)[:5]) or "nothing is at work"
            raise NotFinished(f"no unit came out for {self._stall_seconds:g} s ({at_work}); run again to go on")
        elif idle > self._next_count:
            self._next_count = idle + _STARVED_S
            if is_crowded() and not _at_work(ledger):
                raise NotFinished("nodes went and the replicas hold all CPUs that are left; run again to go on")


def _at_work(ledger: Any) -> list[str]:
    working: list[str] = ray.get(ledger.at_work.remote(), timeout=30)
    return working


def _fill(flow: Iterator[list[Outcome]], box: "SimpleQueue[list[Outcome] | BaseException | None]") -> None:
    try:
        for unit in flow:
            box.put(unit)
    except BaseException as error:  # it is raised again where the units are taken
        box.put(error)
    else:
        box.put(None)
