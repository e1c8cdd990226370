"""The training loop: it learns, it repeats itself, and a break leaves no trace."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.errors import ConfigError
from pipeline.model.usrnet import TINY, Architecture, USRNet
from pipeline.physics.fourier import blur, decimate
from pipeline.physics.kernels import parse_kernel
from pipeline.training.loop import Progress, Training, initial_usrnet, validation_pairs
from pipeline.training.pairs import Photograph, Source
from pipeline.training.recipe import Degradations, Gan, Recipe

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


def run(training: Training, *, every: int = 1, **more: object) -> list[Progress]:
    """All lines of progress after the one before the first step."""
    lines = list(training.run(Source(PHOTOGRAPHS, training.recipe), every=every, **more))
    return lines[lines[0].step == 0 :]


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
    fixed = validation_pairs(PHOTOGRAPHS, RECIPE, batch=2)[1]
    before = float(training.gradients(fixed)[0]["loss"])
    for _ in range(training.recipe.steps):
        training.update(fixed)
    assert float(training.gradients(fixed)[0]["loss"]) < 0.4 * before


def test_training_is_decided_by_its_recipe_alone() -> None:
    first, second = (run(new_training()) for _ in range(2))
    assert losses(first) == losses(second)
    other = run(new_training(Recipe(**{**vars(RECIPE), "seed": 8})))
    assert losses(first) != losses(other)


@pytest.mark.parametrize("gan", [None, Gan(width=4, learning_rate=1e-3)], ids=["l1", "gan"])
def test_a_break_leaves_no_trace(gan: Gan | None) -> None:
    recipe = Recipe(**{**vars(RECIPE), "gan": gan})
    whole = new_training(recipe)
    unbroken = run(whole, every=2)

    before = new_training(recipe)
    first = run(before, every=2, until=lambda: before.step == 3)
    after = Training(initial_usrnet(SMALL, seed=99), recipe)
    assert after.restore(before.state()) == []
    second = run(after, every=2)

    assert [line.step for line in first + second] == [2, 4, 6]
    assert [line.losses for line in first + second] == [line.losses for line in unbroken]
    assert after.history == whole.history
    for key, tensor in whole.averaged().state_dict().items():
        assert torch.equal(tensor, after.averaged().state_dict()[key])


def test_what_changed_in_the_recipe_is_told_when_it_goes_on() -> None:
    state = new_training().state()
    assert new_training(Recipe(**{**vars(RECIPE), "steps": 9})).restore(state) == ["steps: 6 -> 9"]
    known = Degradations(scales=(2,), sigma_max=5)
    assert new_training(Recipe(**{**vars(RECIPE), "degradations": known})).restore(state) == [
        "degradations.scales: (1, 2, 3, 4) -> (2,)",
        "degradations.sigma_max: 25.0 -> 5",
    ]


def test_the_state_of_another_network_or_phase_is_refused() -> None:
    other = Training(initial_usrnet(Architecture(2, 4, (4, 4, 4, 4), 1), seed=0), RECIPE)
    with pytest.raises(ConfigError, match="another network"):
        other.restore(new_training().state())
    with pytest.raises(ConfigError, match="holds an L1 training"):
        new_training(Recipe(**{**vars(RECIPE), "gan": Gan(width=4)})).restore(new_training().state())


def test_a_loss_that_is_no_number_ends_the_training_and_is_never_kept() -> None:
    training = new_training(Recipe(**{**vars(RECIPE), "learning_rate": 1e30}))
    with pytest.raises(ConfigError, match="not finite at step"):
        run(training, every=2)
    assert all(np.isfinite(list(point.values())).all() for point in training.history)


def test_weights_that_are_no_numbers_are_told() -> None:
    training = new_training()
    assert training.is_finite()
    training.average["h.mlp.0.bias"][0] = float("nan")
    assert not training.is_finite()


def test_a_gan_phase_of_another_width_is_told_apart_from_damage() -> None:
    wide, narrow = (new_training(Recipe(**{**vars(RECIPE), "gan": Gan(width=width)})) for width in (8, 4))
    with pytest.raises(ConfigError, match=r"another gan\.width"):
        narrow.restore(wide.state())


def test_progress_comes_every_so_many_steps_and_at_the_end() -> None:
    lines = run(new_training(), every=4)
    each = losses(run(new_training()))
    assert [line.step for line in lines] == [4, 6]
    assert losses(lines) == pytest.approx([np.mean(each[:4]), np.mean(each[4:])])
    assert all(line.psnr_db is None and line.images_per_second > 0 for line in lines)


def test_the_learning_rate_warms_up_and_ends_at_a_hundredth() -> None:
    training = new_training()
    rates = [line.learning_rate / RECIPE.learning_rate for line in run(training)]
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0.01 < rates[-1] < 0.2
    training.update(validation_pairs(PHOTOGRAPHS, RECIPE, batch=1)[0])
    assert training.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * RECIPE.learning_rate)


def test_what_is_shipped_is_an_average_of_the_weights_ready_to_restore() -> None:
    training = new_training()
    start = {key: tensor.clone() for key, tensor in training.net.state_dict().items()}
    run(training, every=6)
    shipped, last = training.averaged(), training.net.state_dict()
    assert isinstance(shipped, USRNet)
    assert not shipped.training
    assert not any(p.requires_grad for p in shipped.parameters())
    key = "p.m_head.weight"
    towards_the_last = (shipped.state_dict()[key] - start[key]).norm()
    assert 0 < towards_the_last < (last[key] - start[key]).norm()


def test_validation_has_a_fixed_batch_for_each_scale() -> None:
    first, second = (validation_pairs(PHOTOGRAPHS, RECIPE, batch=2) for _ in range(2))
    assert [pairs.scale for pairs in first] == [1, 2, 3, 4]
    assert all(torch.equal(a.lr, b.lr) for a, b in zip(first, second, strict=True))
    training = new_training()
    measured = training.validate(first)
    assert measured is not None
    assert measured == training.validate(second)
    assert 10 < measured < 50


def test_half_precision_of_the_prior_changes_little() -> None:
    half = losses(run(new_training(Recipe(**{**vars(RECIPE), "precision": "bf16"}))))
    full = losses(run(new_training()))
    assert half != full
    assert half == pytest.approx(full, rel=0.05)
