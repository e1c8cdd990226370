"""The nightly entry point: fired three times, twice at once, on real storage with real Ray."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.restore_nightly import main
from pipeline.data import manifest
from pipeline.errors import ConfigError
from pipeline.model.checkpoint import save_safetensors
from pipeline.model.usrnet import Architecture
from pipeline.training.loop import initial_usrnet

ROOT = Path(__file__).resolve().parents[2]
JOB = str(ROOT / "jobs" / "restore_nightly.py")


@pytest.fixture
def settings(tmp_path: Path) -> list[str]:
    weights = tmp_path / "small.safetensors"
    small = Architecture(iterations=1, hidden=8, widths=(8, 8, 8, 8), blocks=1)
    save_safetensors(initial_usrnet(small, seed=0).state_dict(), weights, {})
    fixed = [f"index.prefix={tmp_path / 'lr'}", f"catalog={tmp_path / 'catalog'}", f"output={tmp_path / 'out'}"]
    defaults = ["defaults.scale=2", "defaults.sigma=0", "defaults.kernel=delta"]
    return [*fixed, *defaults, f"model.weights={weights}", "run.lease_seconds=3"]


def add_images(folder: Path, *numbers: int) -> None:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 255, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def fire(settings: list[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, JOB, *settings]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_fired_three_times_and_twice_at_once_it_restores_each_image_once(tmp_path: Path, settings: list[str]) -> None:
    add_images(tmp_path / "lr", 1, 2, 3)
    pair = [fire(settings), fire(settings)]
    said = [process.communicate(timeout=240) for process in pair]
    assert sorted(process.returncode for process in pair) == [0, 5], said
    assert "works on this output" in said[[process.returncode for process in pair].index(5)][1]
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "images").rglob("*.png")}
    assert len(first) == 3

    add_images(tmp_path / "lr", 4)
    third = fire(settings)
    out, err = third.communicate(timeout=240)
    assert third.returncode == 0, err
    assert "indexed 4 images: 1 new, 0 changed, 0 gone" in out
    assert "4 items in the catalog: 1 to restore, 3 done already" in out
    assert {path: path.stat().st_mtime_ns for path in first} == first, "what is done is not written again"
    assert manifest.current(str(tmp_path / "out"))["status"].to_pylist() == ["done"] * 4


def test_a_night_without_anything_new_starts_no_ray(
    tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.flow import cluster

    monkeypatch.setattr(cluster, "joined", lambda *_: pytest.fail("Ray was started"))
    (tmp_path / "lr").mkdir()
    assert main(settings) == 0


def test_an_unusable_sidecar_is_said_and_costs_only_its_image(
    tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    add_images(tmp_path / "lr", 1)
    (tmp_path / "lr" / "1.json").write_text("{")
    assert main(settings) == 3
    assert "1 cannot be used" in capsys.readouterr().out
    assert main([*settings, "run.max_failed_share=1.0", "run.retry_failed=all"]) == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [("catalog=items.csv", "must be a folder"), ("index.prefix=", "index.prefix"), ("prefix=a", "index.prefix")],
)
def test_wrong_settings_are_named(settings: list[str], wrong: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        main([*settings, wrong])
