"""Index an archive: a prefix of images and `<name>.json` sidecars becomes a catalog.

    python jobs/index_archive.py prefix=s3://in/scans catalog=s3://in/catalog [key=value ...]

Run it again after images came, changed or went: only those are read. The catalog is a folder of
Parquet files for `catalog=` of jobs/upscale_archive.py. Settings: conf/index_archive.yaml.
Exit codes: 0 done, 2 bad configuration, 4 the storage failed, run again, 5 another one writes this
catalog.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.program import OK, run
from pipeline.config.index import IndexConfig
from pipeline.config.load import command_line, load_config
from pipeline.index import Indexed, index
from pipeline.measure.progress import duration


def main(argv: Sequence[str]) -> int:
    line = command_line(argv, __file__, about=__doc__)
    config = load_config(IndexConfig, line.config, line.overrides)
    begin = time.monotonic()
    result = index(
        config.prefix,
        config.catalog,
        defaults=config.defaults.model_dump(),
        endings=config.endings,
        exclude=config.exclude,
        headers=config.headers,
        readers=config.readers,
        lease_seconds=config.lease_seconds,
        say=lambda text: print(text, file=sys.stderr, flush=True),
        seen=Ticker(config.progress_seconds),
    )
    print(words(result, time.monotonic() - begin))
    return OK


class Ticker:
    """A line every few seconds, as images go by."""

    def __init__(self, every: float) -> None:
        self.every, self.begin, self.last = every, time.monotonic(), time.monotonic()

    def __call__(self, result: Indexed) -> None:
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            rate = result.images / (now - self.begin)
            print(f"{result.images:>9} images  {rate:.0f} a second", file=sys.stderr, flush=True)


def words(result: Indexed, seconds: float) -> str:
    lines = [
        f"{result.images} images in {duration(seconds)}: {result.new} new, {result.changed} changed, "
        f"{result.unchanged} unchanged; {result.gone} gone",
        f"  read      {result.sidecars_read} sidecars, {result.headers_read} headers",
        f"  catalog   {result.rows} rows in {result.parts} parts, {result.parts_written} of them written",
    ]
    if result.bad:
        lines += [f"  bad       {result.bad}: images fail as bad-metadata if their sidecar cannot be used"]
        lines += [f"    {problem}" for problem in result.problems]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
