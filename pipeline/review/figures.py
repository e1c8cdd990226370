"""What is kept of an archive's manifest: figures that do not grow with it. Plain dataclasses."""

from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ERROR_CODES
from pipeline.measure.distribution import Distribution

Row = dict[str, Any]

STAGES = ("read", "restore", "write")

_MOST_STEPS = 4096  # of a timeline; a longer run gets coarser ones


@dataclass
class Failure:
    """All failed items of one error code. examples: (uri, message, attempts)."""

    code: str
    count: int = 0
    examples: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def about(self) -> Any:
        """The row of the error table: class, meaning, mend."""
        return ERROR_CODES.get(self.code, ERROR_CODES["internal"])


@dataclass
class Setting:
    """Items restored alike. Sums over items: HR megapixels, seconds in the restore stage."""

    scale: int
    kernel: str
    sigma: float
    items: int = 0
    hr_megapixels: float = 0.0
    seconds: float = 0.0
    flagged: int = 0
    consistency: float = 0.0
    psnr_items: int = 0
    psnr_db: float = 0.0

    def __iadd__(self, other: "Setting") -> "Setting":
        for name in ("items", "hr_megapixels", "seconds", "flagged", "consistency", "psnr_items", "psnr_db"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


@dataclass
class Timeline:
    """One run's results over time: HR megapixels and items by steps of `step` seconds since 1970."""

    run_id: str = ""
    step: int = 1
    megapixels: dict[int, float] = field(default_factory=dict)
    items: dict[int, int] = field(default_factory=dict)

    def add(self, second: int, megapixels: float) -> None:
        key = second // self.step
        self.megapixels[key] = self.megapixels.get(key, 0.0) + megapixels
        self.items[key] = self.items.get(key, 0) + 1
        if len(self.items) > _MOST_STEPS:
            self._coarsen()

    def _coarsen(self) -> None:
        steps = [(key // 2, self.megapixels[key], self.items[key]) for key in self.items]
        self.step, self.megapixels, self.items = 2 * self.step, {}, {}
        for key, megapixels, items in steps:
            self.megapixels[key] = self.megapixels.get(key, 0.0) + megapixels
            self.items[key] = self.items.get(key, 0) + items


@dataclass
class Review:
    """The archive's current state. Counts are items, megapixels HR unless they say LR.

    runs: the newest records of run_count. drawn_run: the one of the timeline, which may be older.
    """

    output: str
    done: int = 0
    failed: int = 0
    lr_megapixels: float = 0.0
    hr_megapixels: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    flagged: int = 0
    flag_rule: str = ""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    failures: dict[str, Failure] = field(default_factory=dict)
    settings: dict[tuple[int, str, float], Setting] = field(default_factory=dict)
    other_settings: Setting = field(default_factory=lambda: Setting(0, "others", 0.0))
    consistency: Distribution = field(default_factory=lambda: Distribution(1e-3, 255, logarithmic=True))
    psnr: Distribution = field(default_factory=lambda: Distribution(0, 100))
    ssim: Distribution = field(default_factory=lambda: Distribution(-1, 1))
    seconds_per_mp: Distribution = field(default_factory=lambda: Distribution(1e-4, 1e4, logarithmic=True))
    timeline: Timeline = field(default_factory=Timeline)
    models: dict[str, int] = field(default_factory=dict)
    showcase: dict[str, list[Row]] = field(default_factory=dict)
    ranked_by: str = "consistency"
    runs: list[Row] = field(default_factory=list)
    run_count: int = 0
    drawn_run: Row | None = None

    @property
    def items(self) -> int:
        return self.done + self.failed
