"""The index job as a person runs it, and at a size where memory would tell."""

import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from jobs.index_archive import main
from pipeline.data import storage
from pipeline.data.catalog import read_catalog
from pipeline.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
FULL_SIZE = 100_000
MANY = int(os.environ.get("UNFOLD_INDEX_OBJECTS", "20000"))  # set it to 100000 to see it at full size
FEW = 1000
# A row that is held takes 400 more. At full size the part that is being made is in it: 547 were measured.
MOST_BYTES_EACH = 800 if MANY >= FULL_SIZE else 500

# Some thousand rows of a part are held before it is written, so a smaller archive has smaller parts.
SMALL_PARTS = """
import sys
from pipeline.data import catalog_parts
from jobs.index_archive import main
catalog_parts._USUAL_ROWS, catalog_parts._MOST_ROWS = 128, 512
sys.exit(main(sys.argv[1:]))
"""
# In a process of its own: what the kernel counts for a child begins with the memory of its parent.
MEASURED = """
import os, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss, flush=True)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_it_says_what_it_found_and_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data in {"a.png": b"x", "b.png": b"x", "b.json": b"{"}.items():
        storage.write_bytes(str(tmp_path / "in" / name), data)
    assert main([f"prefix={tmp_path}/in", f"catalog={tmp_path}/catalog", "exclude=[x/*]", "defaults.scale=2"]) == 0
    shown = capsys.readouterr().out
    assert "2 images in 0s: 2 new, 0 changed, 0 unchanged; 0 gone" in shown
    assert "bad       1: images fail as bad-metadata" in shown
    assert "b.json is no JSON" in shown
    assert len(list(read_catalog(f"{tmp_path}/catalog"))) == 2


@pytest.mark.parametrize("argument", ["prefix=", "defaults.sigma=300", "endings=[]", "kernel=delta"])
def test_wrong_settings_are_named(tmp_path: Path, argument: str) -> None:
    with pytest.raises(ConfigError, match=argument.split("=")[0]):
        main([f"prefix={tmp_path}", f"catalog={tmp_path}/c", argument])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_memory_does_not_grow_with_the_archive_and_ten_changes_cost_ten_reads(s3_prefix: str) -> None:
    filesystem = fsspec.filesystem("s3", use_listings_cache=False)
    peaks = {}
    for count in (FEW, MANY):
        prefix = f"{s3_prefix}/{count}"
        for start in range(0, count, 2000):
            names = range(start, min(count, start + 2000))
            filesystem.pipe({f"{prefix}/in/{n % 7}/{n:07}.png": b"%d" % n for n in names})
            filesystem.pipe({f"{prefix}/in/{n % 7}/{n:07}.json": b'{"scale": 2}' for n in names if n % 10 == 0})
        shown, peaks[count] = job(f"prefix={prefix}/in", f"catalog={prefix}/catalog")
        print(f"{count} images, peak {peaks[count] / 1e6:.1f} MB: {shown}")
        assert f"{count} new" in shown
        assert f"{-(-count // 10)} sidecars" in shown
    each = (peaks[MANY] - peaks[FEW]) / (MANY - FEW)
    print(f"{each:.0f} bytes of memory for each further object")
    filesystem.pipe({f"{prefix}/in/{n % 7}/{n:07}.json": b'{"scale": 3}' for n in range(0, 50, 10)})
    filesystem.pipe({f"{prefix}/in/3/new-{n}.png": b"new" for n in range(3)})
    filesystem.rm([f"{prefix}/in/{n % 7}/{n:07}.png" for n in (1, 2)])
    shown, again = job(f"prefix={prefix}/in", f"catalog={prefix}/catalog")
    print(f"the second time, peak {again / 1e6:.1f} MB: {shown}")
    assert f"3 new, 5 changed, {MANY - 7} unchanged; 2 gone" in shown
    assert "read      5 sidecars, 0 headers" in shown
    assert peaks[FEW] > 30e6, "a process with pyarrow in it"
    assert each < MOST_BYTES_EACH


def job(*arguments: str) -> tuple[str, float]:
    """What the job says, and the most memory it has taken, in bytes."""
    prepared = ["-c", SMALL_PARTS] if MANY < FULL_SIZE else [str(ROOT / "jobs" / "index_archive.py")]
    command = [sys.executable, "-c", MEASURED, sys.executable, *prepared, *arguments]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert shown.returncode == 0, shown.stderr
    said, _, peak = shown.stdout.rstrip().rpartition("\n")
    return said, 1024 * float(peak)
