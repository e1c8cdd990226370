"""Peak memory of planning, by items and waves: each in a process of its own, above what the imports take.

The catalog is a folder as `jobs/index_archive.py` writes it, with sizes and etags. The process does what a
run's driver does with it, without Ray: it counts all waves, then plans one after the other and cuts units.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.data import catalog_parts, manifest
from pipeline.plan import cut_units
from pipeline.records import DONE, Outcome
from pipeline.resolve import Defaults, Limits
from pipeline.survey import survey
from pipeline.waves import Waves

CASES = ((20_000, 1), (200_000, 1), (200_000, 10))  # items, waves
_PART_ROWS = 50_000


def measured(folder: Path, items: int, waves: int, done: float = 0.0) -> dict[str, Any]:
    """Peak MiB above the imports, seconds, and what was counted. done: share of the items in the manifest."""
    catalog = str(folder / f"catalog-{items}")
    if not Path(catalog).exists():
        catalog_parts.write(catalog, _rows(items), before=None, about={"version": 1})
    output = str(folder / f"out-{items}-{done}")
    if done and not Path(output).exists():
        _record(catalog, output, int(items * done))
    arguments = [sys.executable, "-m", __name__, catalog, output, str(-(-items // waves))]
    shown = subprocess.run(arguments, capture_output=True, text=True, check=True)
    return {"items": items, "done": done, **json.loads(shown.stdout)}


def _rows(items: int) -> Iterator[catalog_parts.Row]:
    empty = dict.fromkeys(catalog_parts.SCHEMA.names)
    for n in range(items):
        uri = f"s3://archive/scans/{n // 1000:04}/plate-{n:08}.png"
        yield {**empty, "uri": uri, "etag": f"{n:032x}", "size": 100_000 + n, "width": 640, "height": 480}


def _record(catalog: str, output: str, count: int) -> None:
    """The first rows as done, in a manifest of compacted parts."""
    todo = _plans(catalog, output, sys.maxsize).plan(0).todo[:count]
    for begin in range(0, len(todo), _PART_ROWS):
        now = datetime.now(UTC)
        rows = [Outcome(i.item_id, i.work_id, "r", DONE, written_at=now) for i in todo[begin : begin + _PART_ROWS]]
        manifest.write_part(output, f"run-{begin:09}", rows)


def _plans(catalog: str, output: str, wave_items: int) -> Waves:
    return survey(
        catalog,
        output,
        root=None,
        defaults=Defaults(kernel="gaussian(1.6)", sigma=2.55, scale=2),
        limits=Limits(scale=16, kernel=512, lr_pixels=2**30, bytes=2**34),
        key_template=None,
        encode={"format": "png"},
        model_id="m",
        retry_failed="transient",
        wave_items=wave_items,
        warn=print,
    )


def _child(catalog: str, output: str, wave_items: int) -> dict[str, Any]:
    before, begin = _peak_mib(), time.monotonic()
    waves = _plans(catalog, output, wave_items)
    counted = time.monotonic() - begin
    units = sum(
        len(list(cut_units(waves.plan(wave).todo, megapixels=4, most_items=64))) for wave in range(waves.number)
    )
    return {
        "waves": waves.number,
        "mib": round(_peak_mib() - before, 1),
        "imports_mib": round(before, 1),
        "disk_mib": round(waves.bytes_on_disk / 2**20, 1),
        "seconds_to_count": round(counted, 1),
        "seconds": round(time.monotonic() - begin, 1),
        "todo": waves.counts.todo,
        "units": units,
    }


def _peak_mib() -> float:
    """Of this program alone: `ru_maxrss` would begin with what the process had before it became it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    print(json.dumps(_child(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
