"""What a schedule calls: index a prefix, plan, restore what is new or has changed.

    python jobs/restore_nightly.py index.prefix=s3://in/scans catalog=s3://out/catalog output=s3://out/restored

Fire it as often as you like, also twice at once: one works, the other ends with 5 and has changed
nothing; what is done is not done again. Settings: conf/restore_nightly.yaml, those of the main job
and `index`. Exit codes: 0 done (or nothing to do), 1 a bug, 2 bad configuration, catalog or
weights, 3 more failed items than run.max_failed_share, 4 not finished, run again, 5 another run
works on the output.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.closing import closed
from jobs.program import run
from pipeline.config.load import command_line, load_config
from pipeline.config.nightly import NightlyConfig
from pipeline.index import Indexed, index
from pipeline.measure.log import sayer


def main(argv: Sequence[str]) -> int:
    line = command_line(argv, __file__, about=__doc__)
    config = load_config(NightlyConfig, line.config, line.overrides)

    from pipeline.flow.archive import restore_archive  # Ray takes seconds to import; a typo should not

    say = sayer(config.run.log)
    summary = restore_archive(config, say=say, prepare=lambda: _index(config, say))
    return closed(config, summary)


def _index(config: NightlyConfig, say: Callable[[str], None]) -> None:
    """Under the output's lease, so that of two firings one does nothing, and the catalog's."""
    result = index(
        config.index.prefix,
        config.catalog,
        defaults={},  # `defaults` of the run fill in what sidecars leave open
        endings=config.index.endings,
        exclude=config.index.exclude,
        headers=config.index.headers,
        readers=config.index.readers,
        lease_seconds=config.run.lease_seconds,
        say=say,
    )
    say(words(result))


def words(result: Indexed) -> str:
    found = f"indexed {result.images} images: {result.new} new, {result.changed} changed, {result.gone} gone"
    return f"{found}; {result.bad} cannot be used: {result.problems[0]}" if result.bad else found


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
