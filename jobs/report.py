"""The report of an archive: manifest and run records -> one self-contained HTML file.

    python jobs/report.py [--config conf/NAME.yaml] output=s3://out/restored [page=report.html]

Settings and their meaning: conf/report.yaml. May be made while a run is under way, and again at
any time. Exit codes: 0 done, 2 bad config, 4 the storage could not be read or written.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.program import OK, run
from pipeline.config.load import command_line, load_config
from pipeline.config.report import ReportConfig
from pipeline.pages.page import size
from pipeline.pages.report import write_report


def main(argv: Sequence[str]) -> int:
    line = command_line(argv, __file__, about=__doc__)
    config = load_config(ReportConfig, line.config, line.overrides)
    uri, length = write_report(config.output, config.page, pictures=config.pictures, run_id=config.run_id)
    print(f"look at {uri} ({size(length)})")
    return OK


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
