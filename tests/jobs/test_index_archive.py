"""The index job as a person runs it, and at a size where memory would tell."""

import os
import resource
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
MANY = int(os.environ.get("UNFOLD_INDEX_OBJECTS", "4000"))  # set it to 100000 to see it at full size


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
    peaks = []
    for count in (MANY // 20, MANY):
        prefix = f"{s3_prefix}/{count}"
        for start in range(0, count, 2000):
            names = range(start, min(count, start + 2000))
            filesystem.pipe({f"{prefix}/in/{n % 7}/{n:07}.png": b"%d" % n for n in names})
            filesystem.pipe({f"{prefix}/in/{n % 7}/{n:07}.json": b'{"scale": 2}' for n in names if n % 10 == 0})
        shown, peak = job(f"prefix={prefix}/in", f"catalog={prefix}/catalog")
        peaks.append(peak)
        print(f"{count} images, peak {peak / 1e6:.0f} MB: {shown}")
        assert f"{count} new" in shown
        assert f"{-(-count // 10)} sidecars" in shown
    filesystem.pipe({f"{prefix}/in/{n % 7}/{n:07}.json": b'{"scale": 3}' for n in range(0, 50, 10)})
    filesystem.pipe({f"{prefix}/in/3/new-{n}.png": b"new" for n in range(3)})
    filesystem.rm([f"{prefix}/in/{n % 7}/{n:07}.png" for n in (1, 2)])
    shown, _ = job(f"prefix={prefix}/in", f"catalog={prefix}/catalog")
    print(shown)
    assert f"3 new, 5 changed, {MANY - 7} unchanged; 2 gone" in shown
    assert "read      5 sidecars, 0 headers" in shown
    assert peaks[1] < peaks[0] + 120e6


def job(*arguments: str) -> tuple[str, float]:
    """What the job says, and the most memory that any child of these tests has taken so far, in bytes."""
    command = [sys.executable, str(ROOT / "jobs" / "index_archive.py"), *arguments]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return shown.stdout, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
