"""How far the run is, for a person: a bar on a terminal, a line every few seconds elsewhere."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from tqdm import tqdm

from pipeline.records import DONE, Outcome


class Tally:
    """Counts outcomes as they come in."""

    def __init__(self) -> None:
        self.done = 0
        self.failures: Counter[str] = Counter()
        self.lr_pixels = 0
        self.hr_pixels = 0

    def add(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.status == DONE:
                self.done += 1
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

    every: seconds between two lines where there is no terminal.
    """

    def __init__(
        self,
        total: int,
        *,
        every: float,
        stream: TextIO = sys.stderr,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.every, self.stream, self.clock = total, every, stream, clock
        self.started = clock()
        self.tally = Tally()
        self._stopped = threading.Event()
        self._bar = tqdm(total=total, unit="img", file=stream, dynamic_ncols=True) if stream.isatty() else None

    def __enter__(self) -> "Progress":
        threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._bar is not None:
            self._bar.close()
        else:
            print(self.line(), file=self.stream, flush=True)

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Count finished items."""
        self.tally.add(outcomes)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self.tally.failed} failed, {self._megapixels()}", refresh=False)
            self._bar.update(len(outcomes))

    def _tick(self) -> None:
        """The clock goes on while a unit takes long: refresh the bar, or print a line."""
        while not self._stopped.wait(1.0 if self._bar is not None else self.every):
            if self._bar is not None:
                self._bar.refresh()
            else:
                print(self.line(), file=self.stream, flush=True)

    def line(self) -> str:
        """`  120/4000   3%   14.2 img/s   ETA 4m 33s   2 failed   12.1 MP, 1.4 MP/s`."""
        count, seconds = self.tally.count, max(self.clock() - self.started, 1e-9)
        rate = count / seconds
        eta = duration((self.total - count) / rate) if rate else "?"
        share = 100 * count / self.total if self.total else 100
        return (
            f"{count:>8}/{self.total}  {share:3.0f}%  {rate:.2f} img/s  ETA {eta}"
            f"  {self.tally.failed} failed  {self._megapixels()}"
        )

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
