"""Compare catalog, manifest and objects of an archive, and tidy the manifest up.

    python jobs/check_archive.py catalog=s3://in/catalog.csv output=s3://out/run
    python jobs/check_archive.py --compact ...    merge small manifest parts, abort uploads left behind

Compares names and sizes; what is in the objects is verified by `jobs/upscale_archive.py --verify`.
Exit codes: 0 every item has one outcome and every done output is there, 3 not so, 2 bad config or
catalog, 4 the storage failed, 5 (--compact) a run holds the lease.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.program import OK, TOO_MANY_FAILED, run
from pipeline.audit import audit
from pipeline.config.check import CheckConfig
from pipeline.config.load import command_line, load_config
from pipeline.data import lease, upkeep, uploads
from pipeline.measure.findings import findings_words

VERBS = {"compact": "merge small manifest parts into few sorted ones, abort uploads left behind"}


def main(argv: Sequence[str]) -> int:
    line = command_line(argv, __file__, about=__doc__, verbs=VERBS)
    config = load_config(CheckConfig, line.config, line.overrides)
    if "compact" in line.verbs:
        compact(config)
    found = audit(config.catalog, config.output, root=config.catalog_root)
    print(findings_words(found, show=config.show))
    return OK if found.in_order else TOO_MANY_FAILED


def compact(config: CheckConfig) -> None:
    name = f"compaction-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    with lease.held(config.output, name, seconds=config.lease_seconds):
        before, after = upkeep.compact(config.output)
        aborted = uploads.abort(config.output)
    print(f"manifest: {before} parts before, {after} now; {aborted} unfinished uploads aborted")


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
