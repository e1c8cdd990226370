"""The run in one page: what its record keeps and what the job says at its end."""

from dataclasses import dataclass, field

from pipeline.errors import ERROR_CODES
from pipeline.measure.progress import duration


@dataclass
class Summary:
    """What a run did. Counts are items; `missing` are planned items that came to no outcome.

    flagged: of the done items, those whose result does not explain its input (consistency_flagged).
    """

    run_id: str
    output: str
    catalog_items: int = 0
    already_done: int = 0
    waiting: int = 0
    done: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    flagged: int = 0
    missing: int = 0
    lr_megapixels: float = 0.0
    hr_megapixels: float = 0.0
    seconds: float = 0.0
    model_id: str = ""
    finished: bool = False

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def attempted(self) -> int:
        """Items this run had to give an outcome."""
        return self.done + self.failed + self.missing


def closing_words(summary: Summary) -> str:
    """What a person reads when the run is over."""
    rate = summary.hr_megapixels / summary.seconds if summary.seconds else 0.0
    lines = [
        "",
        f"run {summary.run_id}: {_finish(summary)} in {duration(summary.seconds)}",
        f"  items     {_balance(summary)}",
        f"  done      {summary.done}",
        *([f"  flagged   {summary.flagged} of them: {_FLAGGED}"] if summary.flagged else []),
        f"  failed    {summary.failed}",
        *(_failure(code, count) for code, count in sorted(summary.failures.items())),
        f"  pixels    {summary.lr_megapixels:.2f} MP in, {summary.hr_megapixels:.2f} MP out, {rate:.3f} MP/s",
        f"  images    {summary.output}/images",
        f"  manifest  {summary.output}/manifest",
    ]
    return "\n".join(lines)


_FLAGGED = "the result does not explain its input, check kernel, phase and sigma (consistency_flagged)"


def _finish(summary: Summary) -> str:
    return "finished" if summary.finished and not summary.missing else "not finished, run again to go on"


def _balance(summary: Summary) -> str:
    """Items in = done + failed, spelled out."""
    total = (
        f"{summary.catalog_items} in the catalog = {summary.already_done} done before"
        f" + {summary.waiting} failed before + {summary.done} done now + {summary.failed} failed now"
    )
    return total + (f" + {summary.missing} missing" if summary.missing else "")


def _failure(code: str, count: int) -> str:
    return f"    {count:>6} {code} ({ERROR_CODES[code].error_class}): {ERROR_CODES[code].mend}"
