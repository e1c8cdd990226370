"""The evaluation job: one table on the terminal and in a file, from a checkout, errors in words."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.evaluate import main
from pipeline.measure.paper import bicubic_cell, table1_cell
from pipeline.model.checkpoint import save_safetensors
from pipeline.model.usrnet import Architecture
from pipeline.training.loop import initial_usrnet

JOB = Path(__file__).resolve().parents[2] / "jobs" / "evaluate.py"
SMALL = Architecture(iterations=1, hidden=4, widths=(4, 4, 4, 4), blocks=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two HR images, two kernels, the weights of an untrained network."""
    folder = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    (folder / "hr").mkdir()
    (folder / "hr" / "notes.txt").write_text("not an image")
    for name in ("a.png", "b.PNG"):
        Image.fromarray(rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(folder / "hr" / name)
    kernels = rng.random((2, 5, 5))
    np.savez(folder / "k.npz", both=kernels / kernels.sum(axis=(1, 2), keepdims=True))
    save_safetensors(initial_usrnet(SMALL, seed=0).state_dict(), folder / "first.safetensors", {})
    return folder


def arguments(folder: Path, *more: str) -> list[str]:
    weights = ["--weights", str(folder / "first.safetensors")]
    return ["--images", str(folder / "hr"), "--kernels", f"{folder / 'k.npz'}#both", *weights, *more]


def test_each_row_is_a_kernel_and_a_scale_and_each_column_a_method(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "table.md"
    more = ("--scales", "1", "2", "--sigma", "3", "--out", str(out))
    assert main(arguments(folder, "--weights", str(folder / "first.safetensors"), *more)) == 0
    printed = capsys.readouterr().out
    assert printed == out.read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines()]
    assert rows[0] == ["scale", "kernel", "bicubic", "first"]
    assert [row[:2] for row in rows[2:]] == [[s, k] for s in ("x1", "x2") for k in ("1", "2", "mean")]

    hr = [np.asarray(Image.open(folder / "hr" / name)) for name in ("a.png", "b.PNG")]
    kernel = np.load(folder / "k.npz")["both"][1]
    net = initial_usrnet(SMALL, seed=0).requires_grad_(False)
    assert float(rows[6][2]) == pytest.approx(bicubic_cell(hr, kernel, 2, 3.0), abs=0.006)
    assert float(rows[6][3]) == pytest.approx(table1_cell(net, hr, kernel, 2, 3.0), abs=0.006)
    assert float(rows[7][3]) == pytest.approx((float(rows[5][3]) + float(rows[6][3])) / 2, abs=0.011)


def test_it_runs_from_a_checkout_that_is_not_installed(folder: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(JOB), *arguments(folder, "--scales", "2")]
    shown = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("| scale | kernel | bicubic | first |")


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--images", "nowhere", "there is no image in nowhere"),
        ("--kernels", "nowhere.npz#a", "nowhere.npz#a holds no kernels"),
        ("--kernels", "{folder}/k.npz#neither", "holds no kernels"),
        ("--kernels", "{folder}/k.npz", "holds no kernels"),
        ("--weights", "nowhere.pth", "nowhere.pth cannot be read"),
        ("--weights", "{folder}/k.npz", "k.npz: "),
        ("--scales", "two", "two"),
    ],
)
def test_a_wrong_argument_is_named_and_ends_in_two(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, says: str
) -> None:
    try:
        code = main(arguments(folder, option, value.format(folder=folder)))
    except SystemExit as stopped:
        code = stopped.code  # type: ignore[assignment]
    assert code == 2
    assert says in capsys.readouterr().err
