"""Which stage holds the others up: what each could do if it always had work, from its own times.

A stage with n workers that took t seconds of work for k items can do n·k/t items a second. The
least of the three is the bottleneck: more of its workers, and only of its, make the run faster.
"""

from collections.abc import Iterable, Mapping

from pipeline.records import Outcome

STAGES = ("read", "restore", "write")


class Stages:
    """Work done by stage. workers: how many of each there may be at once, by name."""

    def __init__(self, workers: Mapping[str, int] | None = None) -> None:
        self.workers = dict(workers or {})
        self.items = dict.fromkeys(STAGES, 0)
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def add(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            for stage in STAGES:
                seconds = getattr(outcome, f"seconds_{stage}")
                if seconds is not None:
                    self.items[stage] += 1
                    self.seconds[stage] += seconds

    def rates(self) -> dict[str, float]:
        """Items a second of each stage at full work; stages that did nothing yet are left out."""
        return {
            stage: self.workers.get(stage, 1) * self.items[stage] / self.seconds[stage]
            for stage in STAGES
            if self.seconds[stage] > 0
        }

    def bottleneck(self) -> str | None:
        rates = self.rates()
        return min(rates, key=lambda stage: rates[stage]) if len(rates) == len(STAGES) else None

    def words(self) -> str:
        """`read 120/s  restore 2.1/s (bottleneck)  write 60/s`; "" until all stages have worked."""
        slowest = self.bottleneck()
        if slowest is None:
            return ""
        mark = {slowest: " (bottleneck)"}
        return "  ".join(f"{stage} {rate:.3g}/s{mark.get(stage, '')}" for stage, rate in self.rates().items())
