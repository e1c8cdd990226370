"""The exploring job as a person runs it; and on the demo's archive, whose settings are known."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.explore_settings import main
from jobs.make_demo import KERNELS, SIGMAS, make_archive, write_catalog
from pipeline.errors import ConfigError, WeightsError
from pipeline.model.checkpoint import save_safetensors
from pipeline.model.usrnet import Architecture
from pipeline.training.loop import initial_usrnet

ROOT = Path(__file__).resolve().parents[2]
OTHERS = ("delta", "gaussian(0.8)", "gaussian(1.6)", "gaussian(2.2)", "disk(1.5)", "motion(5, 20)")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    small = Architecture(iterations=1, hidden=4, widths=(4, 4, 4, 4), blocks=1)
    save_safetensors(initial_usrnet(small, seed=0).state_dict(), path, {})
    return str(path)


def arguments(folder: Path, weights: str, *more: str) -> list[str]:
    if not (folder / "catalog.csv").exists():
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(folder / "a.png")
        (folder / "catalog.csv").write_text("uri\na.png\ngone.png\n")
    return [f"catalog={folder / 'catalog.csv'}", f"page={folder / 'sheet.html'}", f"model.weights={weights}", *more]


def test_neither_kernel_nor_sigma_need_be_known(
    tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("defaults.scale=2", "grid.kernels=[delta, disk(1.5)]", "grid.sigmas=[0, 5]")
    assert main(arguments(tmp_path, weights, *more)) == 0
    shown = capsys.readouterr()
    assert "not shown: input-missing" in shown.err
    assert len(re.findall(r"^  [123]\. ", shown.out, re.MULTILINE)) == 3
    html = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert html.count('class="open"') == 4
    assert "input-missing" in html


def test_no_item_at_all_still_gives_a_page_and_its_own_exit_code(tmp_path: Path, weights: str) -> None:
    assert main(arguments(tmp_path, weights, "defaults.scale=2", "items=[gone.png]")) == 3
    assert "No item could be shown" in (tmp_path / "sheet.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("grid.kernels=[box(3)]", "grid.kernels"),
        ("grid.sigmas=[300]", "less than or equal to 255"),
        ("grid.sigmas=[]", "at least 1 item"),
        ("items=a.png", "list"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_key(tmp_path: Path, weights: str, setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        main(arguments(tmp_path, weights, setting))


def test_weights_that_are_not_there_are_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such object"):
        main(arguments(tmp_path, str(tmp_path / "gone.pth")))


def test_as_a_process_from_another_folder(tmp_path: Path, weights: str) -> None:
    job = [sys.executable, str(ROOT / "jobs" / "explore_settings.py")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    line = [*job, *arguments(tmp_path, weights, "grid.kernels=[box(3)]")]
    shown = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert shown.returncode == 2
    assert shown.stderr.startswith("error: command line: grid.kernels")


@pytest.mark.slow
def test_on_the_demo_the_true_setting_is_among_the_first_three_of_eight_in_ten(tmp_path: Path, weights: str) -> None:
    samples = make_archive(tmp_path)[::3]
    write_catalog(tmp_path, samples)
    kernels = ", ".join(f'"{kernel}"' for kernel in OTHERS + KERNELS)
    names = ", ".join(Path(sample.uri).name for sample in samples)
    more = (f"items=[{names}]", f"grid.kernels=[{kernels}]", f"grid.sigmas={list(SIGMAS)}", "side=64")
    assert main(arguments(tmp_path, weights, *more)) == 0
    html = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    ranks = [int(rank) for rank in re.findall(r'data-facts="Rank (\d+) of 30, [^"]*given in the catalog"', html)]
    assert len(ranks) == 10
    assert sum(rank <= 3 for rank in ranks) >= 8, ranks
    assert len(html) < 5_000_000
