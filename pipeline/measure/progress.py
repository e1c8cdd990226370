"""How far the run is: for a person a bar on a terminal, or a line every few seconds elsewhere.

For collectors of logs the line is one JSON object.
"""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO

from tqdm import tqdm

from pipeline.measure.log import json_line
from pipeline.measure.stages import Stages
from pipeline.records import DONE, Outcome


class Tally:
    """Counts outcomes as they come in."""

    def __init__(self) -> None:
        self.done = 0
        self.failures: Counter[str] = Counter()
        self.flagged = 0
        self.lr_pixels = 0
        self.hr_pixels = 0

    def add(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.status == DONE:
                self.done += 1
                self.flagged += bool(outcome.consistency_flagged)
                self.lr_pixels += (outcome.lr_width or 0) * (outcome.lr_height or 0)
                self.hr_pixels += (outcome.sr_width or 0) * (outcome.sr_height or 0)
            else:
                self.failures[outcome.error_code or "internal"] += 1

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def count(self) -> int:
        return self.done + self.failed


class Progress:
    """Shows a tally against a total. Used as a context manager.

    every: seconds between two lines where there is no terminal. log: text, or json for lines that
    are objects, on a terminal too. stages: whose workers may be told later.
    """

    def __init__(
        self,
        total: int,
        *,
        every: float,
        stream: TextIO = sys.stderr,
        clock: Callable[[], float] = time.monotonic,
        log: str = "text",
    ) -> None:
        self.total, self.every, self.stream, self.clock, self.log = total, every, stream, clock, log
        self.started = clock()
        self.tally = Tally()
        self.stages = Stages()
        self._stopped = threading.Event()
        self._bar = tqdm(total=total, unit="img", file=stream, dynamic_ncols=True) if self._has_bar() else None

    def __enter__(self) -> "Progress":
        threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._bar is not None:
            self._bar.close()
        else:
            self._print()

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Count finished items."""
        self.tally.add(outcomes)
        self.stages.add(outcomes)
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(filter(None, self._remarks())), refresh=False)
            self._bar.update(len(outcomes))

    def _tick(self) -> None:
        """The clock goes on while a unit takes long: refresh the bar, or print a line."""
        while not self._stopped.wait(1.0 if self._bar is not None else self.every):
            if self._bar is not None:
                self._bar.refresh()
            else:
                self._print()

    def _has_bar(self) -> bool:
        return self.log == "text" and self.stream.isatty()

    def _print(self) -> None:
        text = self.line() if self.log == "text" else json_line("progress", **self.facts())
        print(text, file=self.stream, flush=True)

    def facts(self) -> dict[str, Any]:
        """The same as numbers: counts of items, seconds since the start, items a second by stage."""
        return {
            "items": self.tally.count,
            "total": self.total,
            "done": self.tally.done,
            "failed": dict(self.tally.failures),
            "hr_megapixels": round(self.tally.hr_pixels / 1e6, 3),
            "seconds": round(self.clock() - self.started, 3),
            "stage_rates": {stage: round(rate, 3) for stage, rate in self.stages.rates().items()},
            "bottleneck": self.stages.bottleneck(),
        }

    def line(self) -> str:
        """`  120/4000   3%   14.2 img/s   ETA 4m 33s   2 failed   12.1 MP, 1.4 MP/s   read 80/s ...`."""
        count, seconds = self.tally.count, max(self.clock() - self.started, 1e-9)
        rate = count / seconds
        eta = duration((self.total - count) / rate) if rate else "?"
        share = 100 * count / self.total if self.total else 100
        start = f"{count:>8}/{self.total}  {share:3.0f}%  {rate:.2f} img/s  ETA {eta}"
        return "  ".join(filter(None, (start, *self._remarks())))

    def _remarks(self) -> tuple[str, str, str]:
        return f"{self.tally.failed} failed", self._megapixels(), self.stages.words()

    def _megapixels(self) -> str:
        megapixels = self.tally.hr_pixels / 1e6
        return f"{megapixels:.1f} MP, {megapixels / max(self.clock() - self.started, 1e-9):.2f} MP/s"


def duration(seconds: float) -> str:
    """`4m 33s`, `2h 05m`, `3d 04h`."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d {h:02}h"
    if hours:
        return f"{h}h {m:02}m"
    return f"{m}m {s:02}s" if minutes else f"{s}s"
