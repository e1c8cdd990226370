"""Workers that share a batch learn what one alone learns from it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.model.usrnet import Architecture
from pipeline.training.loop import Training, initial_usrnet
from pipeline.training.pairs import Share, Source, degraded
from pipeline.training.recipe import Gan, Recipe

ROOT = Path(__file__).resolve().parents[2]
SMALL = Architecture(iterations=1, hidden=4, widths=(4, 4, 4, 4), blocks=1)
RECIPES = {
    "l1": Recipe(2, batch=4, patch=48, learning_rate=1e-3, warmup=1),
    "gan": Recipe(2, batch=4, patch=48, learning_rate=1e-3, warmup=1, gan=Gan(width=4, learning_rate=1e-3)),
}


def learned(recipe: Recipe, share: Share) -> dict[str, object]:
    """First gradients and losses, then two whole steps: the weights after them, and their mean losses."""
    rng = np.random.default_rng(0)
    photographs = [rng.integers(0, 256, (80, 90, 3), dtype=np.uint8)]
    training = Training(initial_usrnet(SMALL, seed=0), recipe, share=share)
    source = Source(photographs, recipe, share=share)
    training.gradients(degraded(source[0]))
    gradients = {name: weight.grad.clone() for name, weight in training.net.named_parameters()}
    line = list(training.run(source, every=2))[-1]
    weights = {name: weight.detach() for name, weight in training.net.named_parameters()}
    return {"gradients": gradients, "weights": weights, "losses": line.losses}


def as_one_of_two(rank: int, folder: str) -> None:
    for name, recipe in RECIPES.items():
        meeting = f"file://{folder}/{name}.meeting"
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
        torch.save(learned(recipe, Share(rank, 2)), f"{folder}/{name}-{rank}.pt")
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes learned together, each its half of every batch."""
    folder = tmp_path_factory.mktemp("two")
    here = Path(__file__)
    script = f"import {here.stem} as t; t.as_one_of_two(%d, {str(folder)!r})"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{here.parent}", "OMP_NUM_THREADS": "1"}
    workers = [subprocess.Popen([sys.executable, "-c", script % rank], env=environment) for rank in range(2)]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_two_workers_give_the_gradients_of_one_with_the_whole_batch(two: Path, name: str) -> None:
    alone = learned(RECIPES[name], Share())
    for rank in range(2):
        together = torch.load(two / f"{name}-{rank}.pt")
        for part in ("gradients", "weights"):
            for key, value in alone[part].items():
                torch.testing.assert_close(together[part][key], value, rtol=1e-4, atol=2e-6, msg=f"{part} of {key}")
        assert together["losses"] == pytest.approx(alone["losses"], rel=1e-5)


def test_half_of_the_batch_alone_gives_others(two: Path) -> None:
    """Or the test above could not fail."""
    halved = {}
    recipe = Recipe(**{**vars(RECIPES["l1"]), "batch": 2})
    for name, value in learned(recipe, Share())["gradients"].items():
        whole = torch.load(two / "l1-0.pt")["gradients"][name]
        halved[name] = torch.allclose(whole, value, rtol=1e-4, atol=2e-6)
    assert not all(halved.values())
