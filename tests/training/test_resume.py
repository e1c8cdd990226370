"""A training goes on where it stopped, however it stopped: its curve does not show it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.model.checkpoint import load_usrnet
from pipeline.model.usrnet import Architecture
from pipeline.training.loop import Progress, Training, initial_usrnet, validation_pairs
from pipeline.training.output import LocalFolder, States
from pipeline.training.pack import Pack, read_pack, write_pack
from pipeline.training.pairs import Source
from pipeline.training.recipe import Gan, Recipe
from pipeline.training.resume import Pace, go_on, keep, words

ROOT = Path(__file__).resolve().parents[2]
SMALL = Architecture(iterations=1, hidden=4, widths=(4, 4, 4, 4), blocks=1)
RECIPE = Recipe(40, batch=2, patch=48, learning_rate=1e-3, warmup=5)

EVERY_FOUR = Pace(4)


def photograph(seed: int, side: int = 96) -> np.ndarray:
    """Smooth blobs with edges between them, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    blobs = sum(
        np.sign(np.sin(rng.uniform(2, 25, 3) * x[..., None] + rng.uniform(2, 25, 3) * y[..., None])) for _ in range(3)
    )
    return np.rint(127.5 + 35 * blobs).clip(0, 255).astype(np.uint8)


PACK = Pack(RECIPE, initial_usrnet(SMALL, 0), None, {}, [photograph(0), photograph(1)], [photograph(2)])


def run(
    output: Path, recipe: Recipe = RECIPE, pace: Pace = EVERY_FOUR, said: list[str] | None = None
) -> list[Progress]:
    training = Training(initial_usrnet(SMALL, 0), recipe)
    held_out = validation_pairs(PACK.validation, recipe, batch=2)
    notice = (said if said is not None else []).append
    return list(go_on(training, Source(PACK.photographs, recipe), held_out, LocalFolder(output), pace, notice))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("unbroken")
    run(output)
    return output


def curve(output: Path) -> np.ndarray:
    """(lines, columns) of history.csv; nan where nothing was measured."""
    return np.genfromtxt(output / "history.csv", delimiter=",", skip_header=1)


def test_a_state_with_weights_that_are_no_numbers_is_never_written(tmp_path: Path) -> None:
    run(tmp_path, pace=Pace(4, seconds=0.0))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    training = Training(initial_usrnet(SMALL, 0), RECIPE)
    training.net.h.mlp[0].get_parameter("bias").data.fill_(float("nan"))
    with pytest.raises(ConfigError, match="not finite at step 0"):
        keep(training, States(LocalFolder(tmp_path), 3))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_killed_at_step_30_and_gone_on_with_the_curve_is_the_same(unbroken: Path, tmp_path: Path) -> None:
    write_pack(tmp_path / "pack.zip", PACK, side=96, most_bytes=10**6)
    script = (
        "import os, signal, sys; from jobs.train_packed import Training, main\n"
        "learn = Training.update\n"
        "def update(self, pairs):\n"
        "    learn(self, pairs)\n"
        "    if self.step == 30: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Training.update = update\n"
        "main(sys.argv[1:])"
    )
    arguments = [str(tmp_path / "pack.zip"), str(tmp_path / "out"), "--every", "4", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    assert [f.name for f in sorted((tmp_path / "out" / "state").iterdir())] == [f"000000{n}.pt" for n in (20, 24, 28)]
    program = [sys.executable, str(ROOT / "jobs" / "train_packed.py")]
    again = subprocess.run([*program, *arguments], env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "step 32/40" in again.stdout
    assert "step 28/40" not in again.stdout

    whole = read_pack(tmp_path / "pack.zip")  # the same crops in the same order
    training = Training(whole.start, whole.recipe)
    held_out = validation_pairs(whole.validation, whole.recipe)
    store = LocalFolder(tmp_path / "whole")
    list(go_on(training, Source(whole.photographs, whole.recipe), held_out, store, Pace(4), print))
    np.testing.assert_allclose(curve(tmp_path / "out"), curve(tmp_path / "whole"), rtol=1e-4)
    assert len(curve(tmp_path / "out")) == 11


def test_it_learns_and_the_weights_beside_the_states_are_the_averaged_ones(unbroken: Path) -> None:
    header = (unbroken / "history.csv").read_text().splitlines()[0].split(",")
    psnr = curve(unbroken)[:, header.index("psnr_db")]
    assert psnr[-1] > psnr[0] + 0.1
    training = Training(initial_usrnet(SMALL, 0), RECIPE)
    training.restore((unbroken / "state" / "00000040.pt").read_bytes())
    net = load_usrnet(unbroken / "usrnet.safetensors")
    for key, tensor in training.averaged().state_dict().items():
        np.testing.assert_array_equal(net.state_dict()[key], tensor)
    assert (unbroken / "curves.svg").read_text().startswith("<svg")


def test_time_that_is_up_ends_it_with_everything_kept(unbroken: Path, tmp_path: Path) -> None:
    calls = 0
    while not (tmp_path / "state" / "00000040.pt").exists():
        run(tmp_path, pace=Pace(4, seconds=0.1))
        calls += 1
    assert calls > 1
    np.testing.assert_allclose(curve(tmp_path), curve(unbroken), rtol=1e-4)


def test_a_finished_training_is_left_as_it_is(unbroken: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in unbroken.rglob("*")}
    assert run(unbroken) == []
    assert {file: file.stat().st_mtime_ns for file in unbroken.rglob("*")} == before


def test_a_state_cut_short_is_passed_over_for_the_one_before(unbroken: Path, tmp_path: Path) -> None:
    for step in (24, 28):
        (tmp_path / "state").mkdir(exist_ok=True)
        recipe_until = Recipe(**{**vars(RECIPE), "steps": 40})
        training = Training(initial_usrnet(SMALL, 0), recipe_until)
        list(training.run(Source(PACK.photographs, RECIPE), every=4, until=lambda t=training, s=step: t.step == s))
        (tmp_path / "state" / f"{step:08}.pt").write_bytes(training.state())
    cut = tmp_path / "state" / "00000028.pt"
    cut.write_bytes(cut.read_bytes()[:-2000])
    said: list[str] = []
    lines = run(tmp_path, said=said)
    assert [line.step for line in lines] == [28, 32, 36, 40]
    assert said[0].startswith("state/00000028.pt cannot be read")

    for file in (tmp_path / "state").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ConfigError, match="no state in the output can be read"):
        run(tmp_path)


def test_longer_steps_are_gone_on_with_and_told(unbroken: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "00000040.pt").write_bytes((unbroken / "state" / "00000040.pt").read_bytes())
    said: list[str] = []
    lines = run(tmp_path, Recipe(**{**vars(RECIPE), "steps": 44}), said=said)
    assert [line.step for line in lines] == [44]
    assert said == ["from here on recipe.steps: 40 -> 44"]


def test_the_gan_phase_runs_fifty_steps_and_its_weights_are_a_usrgan(unbroken: Path, tmp_path: Path) -> None:
    start = load_usrnet(unbroken / "usrnet.safetensors")
    recipe = Recipe(50, batch=2, patch=48, learning_rate=1e-4, warmup=1, gan=Gan(width=8, learning_rate=1e-4))
    training = Training(start, recipe)
    lines = list(
        go_on(training, Source(PACK.photographs, recipe), [], LocalFolder(tmp_path), Pace(10), lambda line: None)
    )
    assert [line.step for line in lines] == [0, 10, 20, 30, 40, 50]
    assert set(lines[-1].losses) == {"loss", "l1", "perceptual", "adversarial", "discriminator"}
    for line in lines[1:]:
        parts = (line.losses[name] for name in ("l1", "perceptual", "adversarial"))
        assert sum(parts) == pytest.approx(line.loss, rel=1e-4)
    assert "adversarial" in (tmp_path / "history.csv").read_text()
    usrgan = load_usrnet(tmp_path / "usrgan.safetensors")
    assert usrgan.architecture == SMALL
    assert not np.array_equal(usrgan.p.m_tail.weight, load_usrnet(unbroken / "usrnet.safetensors").p.m_tail.weight)


def test_a_line_of_progress_says_what_a_person_wants_to_know() -> None:
    plain = Progress(200, 4500, {"loss": 0.0269, "l1": 0.0269}, 26.571, 23.71, 0.574, 115.0, 5e-4)
    assert words(plain) == "step 200/4500   4%  loss 0.02690  validation 26.57 dB  23.7 img/s  ETA 41m 08s"
    first = Progress(0, 4500, {}, 25.0, 0.0, 0.0, 0.0, 5e-4)
    assert words(first) == "step 0/4500   0%  validation 25.00 dB"
    gan = Progress(1, 9, {"loss": 3.0, "l1": 1.0, "perceptual": 2.0}, None, 1.0, 8.0, 8.0, 1e-5)
    assert words(gan) == "step 1/9  11%  loss 3.00000  l1 1.00000  perceptual 2.00000  1.0 img/s  ETA 1m 04s"
