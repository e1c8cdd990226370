"""Restore an archive: catalog in, super-resolved images and a Parquet manifest out.

    python jobs/upscale_archive.py [--config conf/NAME.yaml] [key=value ...]
    python jobs/upscale_archive.py catalog=s3://in/catalog.csv output=s3://out/run defaults.scale=2
    python jobs/upscale_archive.py --verify ...    first read all outputs; restore again what is gone or altered

The same file serves `ray job submit -- python jobs/upscale_archive.py ...`. Settings and their
meaning: conf/upscale_archive.yaml. A second run restores only what is missing or has changed.
Exit codes: 0 done, 2 bad config, catalog or weights, 3 more failed items than
run.max_failed_share allows, 4 not finished, run again, 5 another run works on the output.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.program import OK, TOO_MANY_FAILED, run
from pipeline.config.load import command_line, load_config
from pipeline.config.upscale import UpscaleConfig
from pipeline.measure.summary import closing_words

VERBS = {
    "verify": "read all done outputs first, and restore again what is gone or altered",
}


def main(argv: Sequence[str]) -> int:
    line = command_line(argv, __file__, about=__doc__, verbs=VERBS)
    config = load_config(UpscaleConfig, line.config, line.overrides)

    from pipeline.flow.archive import restore_archive  # Ray takes seconds to import; a typo should not

    summary = restore_archive(config, verify="verify" in line.verbs)
    print(closing_words(summary))
    allowed = round(config.run.max_failed_share * summary.attempted, 6)  # 0.29 of 100 are 29
    return TOO_MANY_FAILED if summary.failed > allowed else OK


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
