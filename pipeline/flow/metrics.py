"""The run's own metrics beside Ray's, through `ray.util.metrics`: scraped from every node's exporter.

    ray_unfold_items_total{outcome, code}     items that came to an outcome
    ray_unfold_hr_megapixels_total            HR megapixels written
    ray_unfold_stage_seconds_total{stage}     work in read, restore, write
    ray_unfold_queue_items                    items without an outcome yet
    ray_unfold_replicas                       replicas at most
    ray_unfold_busy_share                     share of their time that the replicas restored lately: GPU
                                              busy where they have GPUs; 0 when no unit has come for 15 s
                                              and thrice the longest unit's time
    ray_unfold_gpu_busy_share                 the same, only where they have GPUs

deploy/watch/ holds a dashboard and a scrape configuration for them. Counters start at 0 with a run.
"""

import time
from collections.abc import Callable, Sequence

from ray.util.metrics import Counter, Gauge

from pipeline.flow.cluster import Placement
from pipeline.measure.stages import STAGES
from pipeline.records import DONE, Outcome

_WINDOW_S = 15.0  # of the busy share; units of a large archive come in every few seconds
_LONGEST_UNITS = 3.0  # so long nothing comes, and the replicas count as idle: a unit at work is not seen
_AGAIN_S = 5.0  # after which gauges are set again: Ray forgets one that was not set for 20 s


class Metrics:
    """Reports outcomes as they come in. Made once Ray is there. todo: items of the run.

    busy_share: what is told of it; None before the first time.
    """

    def __init__(self, todo: int, placement: Placement, clock: Callable[[], float] = time.monotonic) -> None:
        self._items = Counter("unfold_items_total", "Items that came to an outcome.", ("outcome", "code"))
        self._pixels = Counter("unfold_hr_megapixels_total", "HR megapixels written.")
        self._seconds = Counter("unfold_stage_seconds_total", "Seconds of work by stage.", ("stage",))
        self._queue = Gauge("unfold_queue_items", "Items without an outcome yet.")
        self._replicas = Gauge("unfold_replicas", "Replicas at most.")
        self._busy = Gauge("unfold_busy_share", "Share of their time that the replicas restored lately.")
        self._gpu_busy = Gauge("unfold_gpu_busy_share", "The same, only where replicas have GPUs.")
        self._left, self._placement, self._clock = todo, placement, clock
        self.busy_share: float | None = None
        self._since = self._last = clock()
        self._worked = self._longest = 0.0
        self._tell(self._last)

    def add(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._count(outcome)
        self._left -= len(outcomes)
        seconds = sum(outcome.seconds_restore or 0.0 for outcome in outcomes)
        self._worked += seconds
        self._longest = max(self._longest, seconds)
        now = self._last = self._clock()
        if now - self._since >= _WINDOW_S:
            self._set_share(self._worked / ((now - self._since) * self._placement.largest), now)
        self._tell(now)

    def look(self) -> None:
        """To be called while nothing comes: then gauges are forgotten, and the replicas may be idle."""
        now = self._clock()
        told, quiet = self.busy_share, now - self._last
        if told is not None and quiet >= max(_WINDOW_S, _LONGEST_UNITS * self._longest):
            self._set_share(0.0, now)
        if self.busy_share != told or now - self._told >= _AGAIN_S:
            self._tell(now)

    def end(self) -> None:
        """Nothing is at work any more."""
        now = self._clock()
        self._set_share(0.0, now)
        self._tell(now)

    def _count(self, outcome: Outcome) -> None:
        self._items.inc(1, tags={"outcome": outcome.status, "code": outcome.error_code or ""})
        if outcome.status == DONE:
            self._pixels.inc((outcome.sr_width or 0) * (outcome.sr_height or 0) / 1e6)
        for stage in STAGES:
            if seconds := getattr(outcome, f"seconds_{stage}"):
                self._seconds.inc(seconds, tags={"stage": stage})

    def _set_share(self, share: float, now: float) -> None:
        self.busy_share = min(1.0, share)
        self._since, self._worked = now, 0.0

    def _tell(self, now: float) -> None:
        self._told = now
        self._queue.set(self._left)
        self._replicas.set(self._placement.largest)
        if self.busy_share is not None:
            self._busy.set(self.busy_share)
            if self._placement.gpus:
                self._gpu_busy.set(self.busy_share)
