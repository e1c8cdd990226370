"""The evaluation job as a person runs it: errors in words, the published figures."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

JOB = Path(__file__).resolve().parents[2] / "jobs" / "evaluate.py"


def job(folder: Path, *settings: str, limit: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(JOB), *settings]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=limit, check=False)


@pytest.mark.slow
def test_it_prints_the_tables_and_paths_are_relative_to_where_it_runs(tmp_path: Path) -> None:
    (tmp_path / "hr").mkdir()
    Image.fromarray(np.zeros((24, 24, 3), np.uint8)).save(tmp_path / "hr" / "a.png")
    shown = job(tmp_path, "images=hr", "output=out", "table2.scales=[2]")
    assert shown.returncode == 0, shown.stderr
    assert "## Table 2" in shown.stdout
    assert "| scale | bicubic PSNR | packaged PSNR |" in shown.stdout


def test_a_wrong_setting_ends_in_two_without_a_traceback(tmp_path: Path) -> None:
    shown = job(tmp_path, "images=nowhere", "output=out")
    assert shown.returncode == 2
    assert "nowhere" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_set5_with_the_official_tiny_weights_gives_the_authors_figures(reference: Path, tmp_path: Path) -> None:
    """Two kernels a scale here; all twelve by tests/measure/test_paper.py, which computes the same cells."""
    published = json.loads((reference / "set5_psnr_usrnet_tiny.json").read_text())["psnr_db"]
    chosen = np.load(reference / "paper_kernels.npz")["table1"][[0, 8]]
    np.savez(tmp_path / "k.npz", two=chosen)
    settings = (f"images={reference}/set5", f"output={tmp_path}", f"weights=[{reference}/usrnet_tiny.pth]")
    shown = job(
        tmp_path, *settings, f"table1.kernels={tmp_path}/k.npz#two", "table1.scales=[2, 3]", "table1.sigmas=[0]",
        "table2.scales=[4]", "baseline=none", f"published={reference}/paper_tables.json", limit=3000,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.stdout.splitlines()]
    found = {(line[0], line[2]): float(line[3]) for line in lines if len(line) == 6 and line[2] in ("1", "2")}
    for (scale, number), measured in found.items():
        assert measured == pytest.approx(published[scale][(0, 8)[int(number) - 1]], abs=0.015)
    assert len(found) == 4
