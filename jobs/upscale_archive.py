"""Restore an archive: catalog in, super-resolved images and a Parquet manifest out.

    python jobs/upscale_archive.py [--config conf/NAME.yaml] [key=value ...]
    python jobs/upscale_archive.py catalog=s3://in/catalog.csv output=s3://out/run defaults.scale=2
    python jobs/upscale_archive.py --verify ...    first read all outputs; restore again what is gone or altered
    python jobs/upscale_archive.py --plan [--json] ...    what it would cost; writes nothing

The same file serves `ray job submit -- python jobs/upscale_archive.py ...`. Settings and their
meaning: conf/upscale_archive.yaml. A second run restores only what is missing or has changed.
Exit codes: 0 done, 2 bad config, catalog or weights, 3 more failed items than
run.max_failed_share allows, 4 not finished, run again, 5 another run works on the output.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.closing import closed
from jobs.program import OK, run
from pipeline.config.load import command_line, load_config
from pipeline.config.upscale import UpscaleConfig
from pipeline.errors import ConfigError
from pipeline.measure.log import sayer

VERBS = {
    "verify": "read all done outputs first, and restore again what is gone or altered",
    "plan": "say what there is to do and what it would cost, and write nothing",
    "json": "with --plan: as JSON, for programs",
}


def main(argv: Sequence[str]) -> int:
    line = command_line(argv, __file__, about=__doc__, verbs=VERBS)
    if "json" in line.verbs and "plan" not in line.verbs:
        raise ConfigError("command line: --json goes with --plan; what a run did stands in its record and manifest")
    config = load_config(UpscaleConfig, line.config, line.overrides)
    if "plan" in line.verbs:
        return plan(config, as_json="json" in line.verbs)

    from pipeline.flow.archive import restore_archive  # Ray takes seconds to import; a typo should not

    summary = restore_archive(config, say=sayer(config.run.log), verify="verify" in line.verbs)
    return closed(config, summary)


def plan(config: UpscaleConfig, *, as_json: bool) -> int:
    from pipeline.flow import forecast
    from pipeline.measure.forecast import forecast_words

    result = forecast.forecast_archive(config, say=lambda text: print(text, file=sys.stderr))
    print(forecast.as_json(result) if as_json else forecast_words(result))
    return OK


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
