"""The yardstick gives the authors' numbers, or a ratio against it would mean nothing."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs import benchmark
from pipeline.bench import clients, context, engine, feeding, prior
from pipeline.bench.baseline import plain_usrnet, restored_plainly
from pipeline.bench.memory import peak_rss_mib
from pipeline.bench.pictures import Gradient, drawn
from pipeline.errors import ConfigError
from pipeline.model.checkpoint import load_usrnet
from pipeline.model.usrnet import Architecture
from pipeline.physics.kernels import parse_kernel
from pipeline.records import Degradation
from pipeline.training.loop import initial_usrnet

ROOT = Path(__file__).resolve().parents[2]
SMALL = Architecture(iterations=2, hidden=8, widths=(8, 8, 8, 8), blocks=1)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_baseline_is_the_same_network(scale: int) -> None:
    net = load_usrnet()
    rng = torch.Generator().manual_seed(0)
    lr = torch.rand(1, 3, 24, 20, generator=rng)
    kernel = torch.from_numpy(parse_kernel("gaussian(2.0, 0.8, 30)"))[None, None].float()
    sigma = torch.full((1, 1, 1, 1), 2.55 / 255)
    with torch.inference_mode():
        ours, plain = net(lr, kernel, scale, sigma), plain_usrnet(net, lr, kernel, scale, sigma)
    assert (ours - plain).abs().max() < 2e-4


@pytest.mark.parametrize("case", ["deblur_x1", "noisy_x3", "motion_x4", "batch_of_two_x2"])
def test_the_baseline_gives_the_authors_golden_outputs(reference: Path, case: str) -> None:
    net = load_usrnet(reference / "usrnet_tiny.pth").double()
    with np.load(reference / "usrnet_tiny_golden.npz") as golden:
        lr, kernel, scale, sigma, sr = (golden[f"{case}/{part}"] for part in ("lr", "kernel", "scale", "sigma", "sr"))
    y = torch.from_numpy(lr).double().permute(0, 3, 1, 2)
    k, level = torch.from_numpy(kernel).double()[:, None], torch.from_numpy(sigma).double().view(-1, 1, 1, 1)
    with torch.inference_mode():
        x = plain_usrnet(net, y, k, int(scale), level)
    assert np.abs(x.permute(0, 2, 3, 1).numpy() - sr).max() < 1e-5


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_timed_baseline_is_the_network_on_samples_of_eight_bits(scale: int) -> None:
    net = load_usrnet()
    lr, degradation = drawn(20, 24, 1), Degradation(parse_kernel("gaussian(1.2)", scale), scale, 2.55)
    y = torch.from_numpy(lr.astype(np.float32) / 255).permute(2, 0, 1)[None]
    kernel = torch.from_numpy(degradation.kernel)[None, None]
    with torch.inference_mode():
        x = net(y, kernel, scale, torch.tensor([2.55 / 255]))[0].permute(1, 2, 0)
    ours = (x.numpy().clip(0, 1) * 255).round().astype(np.uint8)
    plain = restored_plainly(net, lr, degradation, torch.device("cpu"))
    assert plain.shape == (20 * scale, 24 * scale, 3)
    assert np.abs(plain.astype(int) - ours).max() <= 1, "one level where rounding errors meet a half"
    assert (plain != ours).mean() < 0.02


def test_a_benchmark_on_a_cluster_of_others_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Joining is a stand-in: no cluster is started."""
    monkeypatch.setattr(feeding.cluster, "joined", lambda: contextlib.nullcontext(False))
    catalog = feeding.make_archive(str(tmp_path / "in"), 2, ((8, 8),), scale=2)
    with pytest.raises(ConfigError, match="RAY_ADDRESS"):
        feeding.run(feeding.prepare(catalog, str(tmp_path / "out")))


def test_the_figures_say_by_which_arguments_they_came(tmp_path: Path) -> None:
    parsed = benchmark.parse(["memory", "--scales", "2", "--out", str(tmp_path / "b.json")])
    found = json.loads(json.dumps(benchmark.arguments(parsed)))
    assert found["out"] == str(tmp_path / "b.json")
    assert (found["parts"], found["scales"], found["compile"]) == (["memory"], [2], "auto")


def test_engine_and_baseline_agree_in_the_benchmark() -> None:
    net = initial_usrnet(SMALL, seed=0)
    pictures = [np.random.default_rng(n).integers(0, 255, (48, 64, 3), np.uint8) for n in range(2)]
    cases = list(engine.cases(pictures, [parse_kernel("gaussian(1.2)")], [2], "noise"))
    turns = list(engine.compare(net, cases, "fp32", turns=2))
    found = engine.summary(turns)
    assert [turn.images for turn in turns] == [2, 2]
    assert found["ratio_fp32"] > 0
    assert found["max_db_loss_fp32"] < 0.01


def test_the_cost_of_a_pass_is_told_for_each_way_to_compute_it() -> None:
    net = initial_usrnet(SMALL, seed=0)
    (row,) = prior.costs(net, (32,))
    ways = ("plain_fp32", "fused_fp32", "fused_bf16", "data_step")
    assert row["side"] == 32
    assert all(row[f"{way}_ms"] > 0 for way in ways)
    with torch.inference_mode():
        quick = prior.batch_costs(net, 32)
    assert quick["fp32_ratio"] > 0
    assert prior.peaks(64)["bf16_tflops"] > 0


def test_farther_from_a_cut_a_picture_is_more_like_the_whole() -> None:
    net = initial_usrnet(SMALL, seed=0)
    found = context.agreement(net, [drawn(64, 240, 0) / 255], Degradation(parse_kernel("gaussian(1.2)"), 2, 0.0))
    assert len(found) == len(context.DISTANCES)
    assert found[-1] is None, "120 columns are no 128"
    near, far = (found[context.DISTANCES.index(distance)] for distance in (8, 48))
    assert near is not None
    assert far is not None
    assert near + 20 < far


def test_a_made_up_picture_is_the_same_however_it_is_read() -> None:
    picture = Gradient(50, 70)
    whole = picture.read(0, 50, 0, 70)
    assert whole.shape == picture.shape
    assert np.array_equal(picture.read(10, 20, 30, 40), whole[10:20, 30:40])


@pytest.mark.slow
def test_the_job_writes_what_it_prints(tmp_path: Path) -> None:
    arguments = ["engine", "pipeline", "overhead", "--scales", "2", "--precisions", "fp32", "--turns", "1"]
    arguments += ["--items", "70", "--root", str(tmp_path / "root"), "--out", str(tmp_path / "b.json")]
    arguments += ["--settings", "restore.unit_megapixels=2"]
    command = [sys.executable, "jobs/benchmark.py", *arguments]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["engine"]["ratio_fp32"] > 0
    assert 0 < found["pipeline"]["speed_of_light"] < 2
    assert all(0 < cost["write"] < cost["restore"] for cost in found["pipeline"]["formats"])
    assert found["overhead"]["cpu_ms_per_item"] > 0
    assert found["arguments"]["items"] == 70
    assert found["machine"]["versions"]["torch"].startswith(torch.__version__.split("+")[0])


@pytest.mark.slow
def test_the_figures_of_a_device_are_all_there_on_a_cpu_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.benchmark", "device", "--out", str(tmp_path / "d.json")]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads((tmp_path / "d.json").read_text())["device"]
    cells = {(row["network"], row["precision"], row["code"]) for row in found["speed"] if "hr_mp_per_s" in row}
    wanted = (("fp32", "baseline"), ("tf32", "baseline"), ("bf16", "off"))
    assert cells >= {(net, *cell) for net in ("tiny", "full") for cell in wanted}
    assert found["exactness_db"][0]["fp32"] > 58, "only the rounding to 8 bits"
    assert found["exactness_db"][0]["bf16"] > 45
    assert sum(row["share"] for row in found["profile"] if row["network"] == "tiny") > 0.5


def test_s3_clients_are_set_side_by_side(s3_prefix: str) -> None:
    costs = clients.cpu_ms_per_item(s3_prefix, 5)
    assert {"s3fs", "pyarrow", "botocore"} < costs.keys()
    assert all(0 < cost < 1000 for cost in costs.values())


@pytest.mark.slow
def test_four_hundred_megapixels_stay_below_two_gibibytes() -> None:
    assert peak_rss_mib("windows", 400) < 2048
