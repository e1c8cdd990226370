"""How a run over an archive ends for whoever started it: words or JSON, the page, the exit code."""

import sys
from dataclasses import asdict

from jobs.program import OK, TOO_MANY_FAILED
from pipeline.config.upscale import UpscaleConfig
from pipeline.errors import UnfoldError
from pipeline.measure.log import json_line
from pipeline.measure.summary import Summary, closing_words


def closed(config: UpscaleConfig, summary: Summary) -> int:
    """Tell what a run came to, write its page where asked, and give its exit code."""
    print(closing_words(summary) if config.run.log == "text" else json_line("summary", **asdict(summary)))
    if config.run.report:
        _report(config.output, config.run.log)
    allowed = round(config.run.max_failed_share * summary.attempted, 6)  # 0.29 of 100 are 29
    return TOO_MANY_FAILED if summary.failed > allowed else OK


def _report(output: str, log: str) -> None:
    """The images and the manifest are what counts: a report that cannot be made is said, and no failure."""
    from pipeline.pages.report import write_report

    try:
        uri, _ = write_report(output)
    except UnfoldError as error:
        print(f"  report    not made: {error}; make it later with jobs/report.py", file=sys.stderr)
    else:
        print(f"  report    {uri}" if log == "text" else json_line("report", uri=uri))
