"""Items that kill their worker each time fail as worker-crash; nobody else is blamed, in one run of the job."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data import manifest
from pipeline.model.checkpoint import save_safetensors
from pipeline.model.usrnet import Architecture
from pipeline.training.loop import initial_usrnet

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KILLERS = {17: (250, 0, 250), 48: (250, 60, 250), 83: None}
HANGS: dict[int, tuple[int, int, int] | None] = {31: (250, 180, 250)}

pytestmark = pytest.mark.slow


# A colour marks an item for the hooks in killers/sitecustomize.py; None: it is marked by its size.
def archive(folder: Path, count: int, marked: dict[int, tuple[int, int, int] | None]) -> Path:
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(("uri", "id", "scale", "sigma", "kernel", "width", "height"))
    for number in range(count):
        colour = marked.get(number, "any")
        side = 26 if colour is None else 24  # twice 26 is the height that kills who encodes it
        pixels = np.random.default_rng(number).integers(0, 200, (side, side, 3), dtype=np.uint8)
        if isinstance(colour, tuple):
            pixels[:] = colour
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.writerow((f"{number}.png", number, 2, 0, "delta", side, side))
    (folder / "catalog.csv").write_text(table.getvalue())
    return folder / "catalog.csv"


def job(catalog: Path, *more: str) -> subprocess.CompletedProcess[str]:
    weights = catalog.parent / "small.safetensors"
    small = Architecture(iterations=1, hidden=8, widths=(8, 8, 8, 8), blocks=1)
    save_safetensors(initial_usrnet(small, seed=0).state_dict(), weights, {})
    settings = [
        f"catalog={catalog}",
        f"output={catalog.parent}/out",
        f"model.weights={weights}",
        "restore.unit_items=16",
    ]
    environment = {**os.environ, "PYTHONPATH": f"{HERE / 'killers'}:{ROOT}"}
    return subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "upscale_archive.py"), *settings, "restore.unit_items=16", *more],
        capture_output=True,
        text=True,
        timeout=280,
        env=environment,
        check=False,
    )


def test_of_a_hundred_items_three_killers_fail_and_97_are_done(tmp_path: Path) -> None:
    shown = job(archive(tmp_path, 100, KILLERS))
    assert shown.returncode == 3, shown.stdout + shown.stderr
    rows = {row["item_id"]: row for row in manifest.read(f"{tmp_path}/out").to_pylist()}
    assert len(rows) == 100
    failed = {item: row for item, row in rows.items() if row["status"] == "failed"}
    assert {item: (row["error_code"], row["stage"]) for item, row in failed.items()} == {
        "17": ("worker-crash", "read"),
        "48": ("worker-crash", "restore"),
        "83": ("worker-crash", "write"),
    }
    assert all("the worker died 2 times while it worked on this item alone" in row["error"] for row in failed.values())
    done = [row for row in rows.values() if row["status"] == "done"]
    assert len(done) == 97
    assert all(row["error_code"] is None and row["attempts"] == 1 for row in done), "nobody else is blamed"
    assert all(Path(row["sr_uri"]).stat().st_size == row["output_bytes"] for row in done)


def test_an_item_that_hangs_fails_by_its_time_limit(tmp_path: Path) -> None:
    shown = job(archive(tmp_path, 40, HANGS), "read.seconds=5")
    assert shown.returncode == 3, shown.stdout + shown.stderr
    rows = manifest.read(f"{tmp_path}/out").to_pylist()
    failed = [(row["item_id"], row["error_code"], row["stage"]) for row in rows if row["status"] == "failed"]
    assert (len(rows), failed) == (40, [("31", "time-limit", "read")])
