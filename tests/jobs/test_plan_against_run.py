"""What `--plan` says against the run that follows it, side by side. By hand, for it needs a quiet machine:

python -m pytest -s -m nodes tests/jobs/test_plan_against_run.py
"""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.make_demo import KERNELS, SIGMAS, SUBJECTS, photograph
from pipeline.data import manifest

JOB = str(Path(__file__).resolve().parents[2] / "jobs" / "upscale_archive.py")
COUNT = 208
FORMATS = ("png", "jpg", "tif", "webp")


def write_mixed(folder: Path) -> str:
    """Parts of photographs in four formats at four scales, one in three with its size in the catalog, and
    two rows that cannot work. Returns the catalog's path."""
    folder.mkdir()
    rng, rows = np.random.default_rng(7), [("uri", "scale", "sigma", "kernel", "width", "height", "size")]
    names = [name for subject in SUBJECTS.values() for name in subject]
    for n in range(COUNT):
        height, width = (int(side) for side in rng.integers(24, 180, 2))
        file = folder / f"{n}.{FORMATS[n % 4]}"
        photo = photograph(names[n % len(names)])
        top, left = (
            int(rng.integers(0, whole - part)) for whole, part in zip(photo.shape[:2], (height, width), strict=True)
        )
        Image.fromarray(photo[top : top + height, left : left + width]).save(file)
        known = (str(width), str(height), str(file.stat().st_size)) if n % 3 == 0 else ("", "", "")
        rows.append((file.name, str(1 + n // 4 % 4), str(SIGMAS[n % 3]), KERNELS[n // 16 % 4], *known))
    rows += [("gone.png", "2", "0", "delta", "", "", ""), ("bad.png", "2", "-1", "delta", "", "", "")]
    with (folder / "catalog.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return str(folder / "catalog.csv")


def job(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, JOB, *arguments], capture_output=True, text=True, timeout=1800, check=False)


@pytest.mark.nodes
@pytest.mark.timeout(3600)
def test_two_hundred_mixed_items_take_what_was_planned(tmp_path: Path) -> None:
    """Packaged weights. Counts exact, bytes within a quarter, time within a fifth."""
    settings = (f"catalog={write_mixed(tmp_path / 'in')}", f"output={tmp_path / 'out'}", "encode.format=same")
    planned = job("--plan", "--json", *settings, "plan.seconds=8")
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert job(*settings).returncode == 3
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "out" / "run").glob("*.json"))
    rows = manifest.current(str(tmp_path / "out")).to_pylist()
    compared = beside(plan, record, rows)
    print("\n" + "\n".join(f"{name:<28}{said:>14.6g}{found:>14.6g}" for name, (said, found) in compared.items()))
    print(f"{plan['measured']}; {plan['units']} units, {plan['replicas_busy']:.2f} replicas at work in the mean")
    assert plan["invalid"] | plan["unreadable"] == record["failures"] == {"bad-sigma": 1, "input-missing": 1}
    for name in ("items", "to restore", "invalid", "unreadable", "HR megapixels"):
        assert compared[name][0] == pytest.approx(compared[name][1]), name
    assert compared["bytes in"][0] == pytest.approx(compared["bytes in"][1], rel=0.25)
    assert compared["bytes out"][0] == pytest.approx(compared["bytes out"][1], rel=0.25)
    assert compared["seconds"][0] == pytest.approx(compared["seconds"][1], rel=0.2)


def beside(plan: dict[str, Any], record: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """What the plan says and what the run gave, by name."""
    done = [row for row in rows if row["status"] == "done"]
    failed = [row["error_code"] for row in rows if row["status"] == "failed"]
    return {
        "items": (plan["catalog_items"], len(rows)),
        "to restore": (plan["todo"] - sum(plan["unreadable"].values()), len(done)),
        "invalid": (sum(plan["invalid"].values()), failed.count("bad-sigma")),
        "unreadable": (sum(plan["unreadable"].values()), failed.count("input-missing")),
        "HR megapixels": (plan["hr_megapixels"], record["hr_megapixels"]),
        "bytes in": (plan["bytes_in"], sum(row["input_bytes"] for row in done)),
        "bytes out": (plan["bytes_out"], sum(row["output_bytes"] for row in done)),
        "seconds of restoring": (plan["seconds_restore"], sum(row["seconds_restore"] for row in done)),
        "seconds": (plan["seconds"], record["seconds"]),
    }
