"""The report job as a person runs it, on a folder and on S3, and at the end of a run by config."""

import csv
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.report import main
from pipeline.data import manifest, storage
from pipeline.errors import ConfigError, ItemError
from pipeline.model.checkpoint import save_safetensors
from pipeline.model.usrnet import Architecture
from pipeline.records import FAILED, Outcome
from pipeline.training.loop import initial_usrnet

ROOT = Path(__file__).resolve().parents[2]


def failed() -> Outcome:
    return Outcome("a", work_id="w", run_id="r", status=FAILED, error_code="input-missing", error="gone", uri="/a.png",
                   written_at=datetime(2026, 1, 1, tzinfo=UTC))  # fmt: skip


@pytest.mark.parametrize("page", [None, "elsewhere/page.html"])
def test_it_says_where_the_page_is(tmp_path: Path, capsys: pytest.CaptureFixture[str], page: str | None) -> None:
    output = tmp_path / "out"
    manifest.write_part(str(output), "r", [failed()])
    file = tmp_path / page if page else output / "report.html"
    assert main([f"output={output}", *([f"page={file}"] if page else [])]) == 0
    assert f"look at {file} (" in capsys.readouterr().out
    assert "None of 1 items could be restored" in file.read_text(encoding="utf-8")


def test_a_page_beside_results_on_s3(s3_prefix: str) -> None:
    manifest.write_part(s3_prefix, "r", [failed()])
    assert main([f"output={s3_prefix}"]) == 0
    assert b"input-missing" in storage.read_bytes(f"{s3_prefix}/report.html")


def test_a_run_that_is_not_there_and_a_missing_key_are_said(tmp_path: Path) -> None:
    with pytest.raises(ItemError, match="no record of the run 'x'"):
        main([f"output={tmp_path}", "run_id=x"])
    with pytest.raises(ConfigError, match="output is missing"):
        main([])


def test_as_a_process_from_another_folder(tmp_path: Path) -> None:
    job = [sys.executable, str(ROOT / "jobs" / "report.py"), f"output={tmp_path}"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    shown = subprocess.run(job, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_a_run_writes_its_report_when_the_config_says_so(tmp_path: Path) -> None:
    weights = tmp_path / "small.safetensors"
    small = Architecture(iterations=1, hidden=4, widths=(4, 4, 4, 4), blocks=1)
    save_safetensors(initial_usrnet(small, seed=0).state_dict(), weights, {})
    Image.fromarray(np.full((20, 20, 3), 99, np.uint8)).save(tmp_path / "a.png")
    with (tmp_path / "catalog.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("uri", "scale", "sigma", "kernel"), ("a.png", 2, 1, "delta"), ("b.png", 2, 1, "delta")]
        )
    output = tmp_path / "out"
    job = [sys.executable, str(ROOT / "jobs" / "upscale_archive.py"), f"catalog={tmp_path / 'catalog.csv'}",
           f"output={output}", f"model.weights={weights}", "run.report=true"]  # fmt: skip
    shown = subprocess.run(job, capture_output=True, text=True, check=False)
    assert shown.returncode == 3, shown.stderr
    assert f"report    {output / 'report.html'}" in shown.stdout
    html = (output / "report.html").read_text(encoding="utf-8")
    assert "1 of 2 items restored, 1 failed." in html
    assert html.count('class="compare"') == 3, "worst, best and random show the one that is done"
