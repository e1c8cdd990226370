"""The training loop: it learns, it repeats itself, and a break leaves no trace."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.model.usrnet import TINY, Architecture, USRNet
from pipeline.physics.fourier import blur, decimate
from pipeline.physics.kernels import parse_kernel
from pipeline.training.loop import Progress, Recipe, Training, initial_usrnet, validation_pairs
from pipeline.training.pairs import SCALES, Photograph

SMALL = Architecture(iterations=1, hidden=4, widths=(4, 4, 4, 4), blocks=1)
RECIPE = Recipe(steps=6, batch=2, patch=48, learning_rate=1e-3, warmup=2, seed=7)


def photograph(h: int = 96, w: int = 80) -> Photograph:
    """Waves, blobs and edges: something that has detail at every scale, as a photograph has."""
    y, x = np.mgrid[:h, :w]
    waves = [np.sin(x / (2 + c)) + np.cos((y + x) / 6) + np.sign(np.sin(y / 9 - x / 13)) for c in range(3)]
    return np.rint(127.5 + 40 * np.stack(waves, axis=2)).clip(0, 255).astype(np.uint8)


PHOTOGRAPHS = [photograph(), photograph(70, 120)[::-1]]


def new_training(recipe: Recipe = RECIPE) -> Training:
    return Training(initial_usrnet(SMALL, seed=0), recipe)


def losses(progress: list[Progress]) -> list[float]:
    return [line.loss for line in progress]


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


@pytest.mark.parametrize("architecture", [SMALL, TINY])
@pytest.mark.parametrize(("scale", "kernel"), [(1, "gaussian(1.6)"), (2, "gaussian(1.2)"), (3, "disk(2.5)")])
def test_the_untrained_network_already_beats_nearest_neighbour(
    architecture: Architecture, scale: int, kernel: str
) -> None:
    net = initial_usrnet(architecture, seed=0).eval().requires_grad_(False)
    hr = torch.from_numpy(photograph()[:72, :72].copy()).permute(2, 0, 1)[None].float() / 255
    k = torch.from_numpy(parse_kernel(kernel)).float()[None, None]
    lr = decimate(blur(hr, k), scale)
    nearest = F.interpolate(lr, scale_factor=scale, mode="nearest")
    assert psnr(net(lr, k, scale, torch.zeros(1)), hr) > psnr(nearest, hr) + 1


def test_the_initial_network_comes_from_its_seed() -> None:
    first, second, other = (initial_usrnet(SMALL, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_the_initial_alphas_are_small_without_noise_and_grow_with_it() -> None:
    net = initial_usrnet(TINY, seed=0).requires_grad_(False)

    def alpha(sigma_255: float) -> float:
        alphas, _ = net.hyper_parameters(torch.full((1, 1, 1, 1), sigma_255 / 255), 2)
        return float(torch.cat(alphas).mean())

    assert alpha(0) == pytest.approx(0.01, rel=0.1)
    assert alpha(0) < alpha(10) < alpha(25) == pytest.approx(0.4, rel=0.1)


def test_the_loss_falls_when_one_batch_is_learned_by_heart() -> None:
    """From the default initialisation, which knows nothing of images."""
    torch.manual_seed(0)
    training = Training(USRNet(SMALL), Recipe(steps=30, learning_rate=1e-2, warmup=1))
    fixed = validation_pairs(PHOTOGRAPHS, batch=2, patch=48)[1]
    loss = [training._update(fixed) for _ in range(training.recipe.steps)]
    assert loss[-1] < 0.4 * loss[0]


def test_training_is_decided_by_its_recipe_alone() -> None:
    first, second = (list(new_training().run(PHOTOGRAPHS, [], every=1)) for _ in range(2))
    assert losses(first) == losses(second)
    other = list(new_training(Recipe(**{**vars(RECIPE), "seed": 8})).run(PHOTOGRAPHS, [], every=1))
    assert losses(first) != losses(other)


def test_a_break_leaves_no_trace(tmp_path: Path) -> None:
    whole = new_training()
    unbroken = list(whole.run(PHOTOGRAPHS, [], every=1))

    before = new_training()
    first = list(before.run(PHOTOGRAPHS, [], every=1, checkpoint=tmp_path / "state.pt", until=lambda: before.step == 3))
    after = Training(initial_usrnet(SMALL, seed=99), RECIPE)
    after.restore(tmp_path / "state.pt")
    second = list(after.run(PHOTOGRAPHS, [], every=1))

    assert [line.step for line in first + second] == [1, 2, 3, 4, 5, 6]
    assert losses(first + second) == losses(unbroken)
    for key, tensor in whole.averaged().state_dict().items():
        assert torch.equal(tensor, after.averaged().state_dict()[key])


def test_the_state_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    training = new_training()
    list(training.run(PHOTOGRAPHS, [], every=4, checkpoint=tmp_path / "state.pt"))
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]
    again = new_training()
    again.restore(tmp_path / "state.pt")
    assert again.step == RECIPE.steps


def test_progress_comes_every_so_many_steps_and_at_the_end() -> None:
    lines = list(new_training().run(PHOTOGRAPHS, [], every=4))
    each = losses(list(new_training().run(PHOTOGRAPHS, [], every=1)))
    assert [line.step for line in lines] == [4, 6]
    assert losses(lines) == pytest.approx([np.mean(each[:4]), np.mean(each[4:])])
    assert all(line.psnr_db is None and line.images_per_second > 0 for line in lines)


def test_the_learning_rate_warms_up_and_ends_at_a_hundredth() -> None:
    training, rates = new_training(), []
    for _ in training.run(PHOTOGRAPHS, [], every=1):
        rates.append(training.optimizer.param_groups[0]["lr"] / RECIPE.learning_rate)
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0.01 < rates[-1] < 0.2
    training.recipe = Recipe(**{**vars(RECIPE), "steps": 5})
    training._update(validation_pairs(PHOTOGRAPHS, batch=1, patch=48)[0])
    assert training.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * RECIPE.learning_rate)


def test_what_is_shipped_is_an_average_of_the_weights_ready_to_restore() -> None:
    training = new_training()
    start = {key: tensor.clone() for key, tensor in training.net.state_dict().items()}
    list(training.run(PHOTOGRAPHS, [], every=6))
    shipped, last = training.averaged(), training.net.state_dict()
    assert isinstance(shipped, USRNet)
    assert not shipped.training
    assert not any(p.requires_grad for p in shipped.parameters())
    key = "p.m_head.weight"
    towards_the_last = (shipped.state_dict()[key] - start[key]).norm()
    assert 0 < towards_the_last < (last[key] - start[key]).norm()


def test_validation_has_a_fixed_batch_for_each_scale() -> None:
    first, second = (validation_pairs(PHOTOGRAPHS, batch=2, patch=48) for _ in range(2))
    assert [pairs.scale for pairs in first] == list(SCALES)
    assert all(torch.equal(a.lr, b.lr) for a, b in zip(first, second, strict=True))
    training = new_training()
    measured = training.validate(first)
    assert measured is not None
    assert measured == training.validate(second)
    assert 10 < measured < 50


def test_half_precision_of_the_prior_changes_little() -> None:
    half = losses(list(new_training(Recipe(**{**vars(RECIPE), "precision": "bf16"})).run(PHOTOGRAPHS, [], every=1)))
    full = losses(list(new_training().run(PHOTOGRAPHS, [], every=1)))
    assert half != full
    assert half == pytest.approx(full, rel=0.05)
