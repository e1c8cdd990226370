"""Training as a person starts it: on Ray, killed in every way, fine-tuned weights put to work."""

import csv
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import uris
from pipeline.data import storage
from pipeline.model.checkpoint import load_usrnet, save_safetensors
from pipeline.model.usrnet import TINY, Architecture, USRNet
from pipeline.training.loop import initial_usrnet, validation_pairs
from pipeline.training.recipe import Degradations, Recipe

pytestmark = pytest.mark.timeout(600)  # of whole jobs, on a machine that may be busy

ROOT = Path(__file__).resolve().parents[2]
JOB = str(ROOT / "jobs" / "train_usrnet.py")
SMALL = Architecture(iterations=1, hidden=4, widths=(4, 4, 4, 4), blocks=1)
QUICK = ("recipe.steps=40", "recipe.patch=48", "recipe.batch=4", "recipe.warmup=5", "every=4", "workers.threads=1")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photographs that scikit-image ships, cut to 320 pixels."""
    import skimage

    folder = tmp_path_factory.mktemp("photographs")
    names = ("astronaut", "chelsea", "coffee", "motorcycle_left", "motorcycle_right", "ihc", "brick", "grass")
    for name in names:
        with Image.open(Path(skimage.__file__).parent / "data" / f"{name}.png") as image:
            image.convert("RGB").crop((60, 40, 380, 340)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_safetensors(initial_usrnet(SMALL, seed=0).state_dict(), path, {})
    return str(path)


def job(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, JOB, *arguments], capture_output=True, text=True, timeout=280, check=False)


def job_until(line: str, act: Callable[[int], None], *arguments: str) -> tuple[int, list[str]]:
    """Start the job, call `act(pid)` when a line begins like `line`; returns exit code and all lines."""
    process = subprocess.Popen([sys.executable, JOB, *arguments], stdout=subprocess.PIPE, text=True)
    lines, done = [], False
    assert process.stdout is not None
    for text in process.stdout:
        lines.append(text)
        if text.startswith(line) and not done:
            act(process.pid)
            done = True
    assert done, lines
    return process.wait(60), lines


def curve(output: str) -> list[dict[str, float]]:
    text = storage.read_bytes(uris.join(output, "history.csv")).decode()
    rows = csv.DictReader(io.StringIO(text))
    return [{key: float(value) for key, value in row.items() if value} for row in rows]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_a_worker(job_pid: int) -> None:
    """SIGKILL to one training worker of Ray below the job."""
    found = [pid for pid in below(job_pid) if b"TrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert found
    kill(found[0])


def below(pid: int) -> list[int]:
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [*children, *(grandchild for child in children for grandchild in below(child))]


@pytest.fixture(scope="module")
def unbroken(photographs: Path, small: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """The curve of one worker that nothing stopped."""
    output = tmp_path_factory.mktemp("unbroken")
    shown = job(f"photographs={photographs}", f"output={output}", f"weights={small}", *QUICK)
    assert shown.returncode == 0, shown.stderr
    assert "7 photographs to train on, 1 held out" in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("step 40/40 100%  loss 0.")
    files = {str(file.relative_to(output)) for file in output.rglob("*") if file.is_file()}
    states = {f"state/000000{step}.pt" for step in (32, 36, 40)}
    assert files == {"begun.json", "usrnet.safetensors", "history.csv", "curves.svg", *states}
    return curve(str(output))


def assert_same(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    assert [point["step"] for point in one] == [point["step"] for point in other] == list(range(0, 41, 4))
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=1e-3)


@pytest.mark.slow
def test_killed_and_started_again_two_workers_draw_the_curve_of_one(
    photographs: Path, small: str, s3: str, s3_prefix: str, unbroken: list[dict[str, float]]
) -> None:
    arguments = (f"photographs={photographs}", f"output={s3_prefix}", f"weights={small}", *QUICK, "workers.count=2")
    code, lines = job_until("step 28/40", kill, *arguments)
    assert code == -signal.SIGKILL
    assert not any(line.startswith("step 40") for line in lines)
    again = job(*arguments)
    assert again.returncode == 0, again.stderr
    assert "step 4/40" not in again.stdout, "it went on"
    assert_same(curve(s3_prefix), unbroken)


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_the_curve_does_not_show_it(
    photographs: Path, small: str, tmp_path: Path, unbroken: list[dict[str, float]]
) -> None:
    arguments = (f"photographs={photographs}", f"output={tmp_path}", f"weights={small}", *QUICK)
    code, _ = job_until("step 12/40", kill_a_worker, *arguments)
    assert code == 0
    assert_same(curve(str(tmp_path)), unbroken)


@pytest.mark.slow
def test_ctrl_c_ends_with_exit_code_4_and_leaves_a_state(photographs: Path, small: str, tmp_path: Path) -> None:
    arguments = (f"photographs={photographs}", f"output={tmp_path}", f"weights={small}", *QUICK, "recipe.steps=4000")
    code, _ = job_until("step 8/4000", lambda pid: os.kill(pid, signal.SIGINT), *arguments)
    assert code == 4
    assert any((tmp_path / "state").glob("*.pt"))


@pytest.mark.slow
def test_time_that_is_up_ends_with_exit_code_4(photographs: Path, small: str, tmp_path: Path) -> None:
    shown = job(f"photographs={photographs}", f"output={tmp_path}", f"weights={small}", *QUICK, "seconds=0.01")
    assert shown.returncode == 4
    assert "stopped after step 1 of 40; run again to go on" in shown.stderr
    assert (tmp_path / "state" / "00000001.pt").exists()


@pytest.mark.slow
def test_fine_tuning_on_eight_photographs_helps_and_the_main_job_takes_the_weights(
    photographs: Path, tmp_path: Path
) -> None:
    learned = Degradations(scales=(2,), sigma_min=12, sigma_max=12, noiseless=0, gray=0)
    shown = job(
        *(f"photographs={photographs}", f"output={tmp_path / 'tuned'}", "weights=packaged", "every=10"),
        *("recipe.steps=50", "recipe.learning_rate=2e-4", "recipe.warmup=5", "recipe.ema=0.9"),
        *("degradation.scales=[2]", "degradation.sigma_min=12", "degradation.sigma_max=12"),
        *("degradation.noiseless=0", "degradation.gray=0"),
    )
    assert shown.returncode == 0, shown.stderr
    tuned = str(tmp_path / "tuned" / "usrnet.safetensors")
    seen = [np.asarray(Image.open(file)) for file in sorted(photographs.iterdir())]
    assert l1(load_usrnet(tuned), seen, learned) < l1(load_usrnet(), seen, learned)

    Image.fromarray(seen[0][:60, :60]).save(tmp_path / "lr.png")
    (tmp_path / "catalog.csv").write_text("uri,scale,sigma,kernel\nlr.png,2,12,gaussian(1.2)\n")
    upscale = [sys.executable, str(ROOT / "jobs" / "upscale_archive.py")]
    restored = subprocess.run(
        [*upscale, f"catalog={tmp_path / 'catalog.csv'}", f"output={tmp_path / 'out'}", f"model.weights={tuned}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert restored.returncode == 0, restored.stderr
    with Image.open(tmp_path / "out" / "images" / "lr.png") as image:
        assert image.size == (120, 120)


def l1(net: USRNet, photographs: list[np.ndarray], degradations: Degradations) -> float:
    """Over fixed pairs that the training did not draw."""
    pairs = validation_pairs(photographs, Recipe(1, patch=96, degradations=degradations), batch=32)
    with torch.no_grad():
        return float(np.mean([(net(p.lr, p.kernel, p.scale, p.sigma) - p.hr).abs().mean() for p in pairs]))


@pytest.mark.slow
def test_the_gan_phase_on_a_cpu_makes_a_usrgan_of_the_packaged_weights(photographs: Path, tmp_path: Path) -> None:
    shown = job(
        *(f"photographs={photographs}", f"output={tmp_path}", "weights=packaged", "recipe.loss=gan", "every=10"),
        *("recipe.steps=50", "recipe.batch=2", "recipe.patch=48", "recipe.learning_rate=1e-5", "recipe.warmup=1"),
        *("gan.width=16",),
    )
    assert shown.returncode == 0, shown.stderr
    assert "the perceptual network has random filters made here" in shown.stdout
    points = curve(str(tmp_path))
    assert [point["step"] for point in points] == [0, 10, 20, 30, 40, 50]
    for point in points[1:]:
        assert {"loss", "l1", "perceptual", "adversarial", "discriminator"} < set(point)
        assert point["l1"] + point["perceptual"] + point["adversarial"] == pytest.approx(point["loss"], rel=1e-4)
    usrgan, packaged = load_usrnet(tmp_path / "usrgan.safetensors"), load_usrnet()
    assert usrgan.architecture == TINY
    assert not torch.equal(usrgan.p.m_tail.weight, packaged.p.m_tail.weight)


def test_an_output_that_cannot_be_written_is_found_before_ray_starts(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    shown = job(f"photographs={photographs}", f"output={tmp_path / 'file'}")
    assert shown.returncode == 2
    assert "error: output: " in shown.stderr
    assert str(tmp_path / "file") in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.slow
def test_an_output_goes_on_only_from_the_weights_it_began_with(photographs: Path, small: str, tmp_path: Path) -> None:
    arguments = (f"photographs={photographs}", f"output={tmp_path}", *QUICK)
    assert job(*arguments, f"weights={small}", "seconds=0.01").returncode == 4
    refused = job(*arguments, "weights=packaged")
    assert refused.returncode == 2
    assert "error: weights: the output holds a training that began from others" in refused.stderr
