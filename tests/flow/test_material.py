"""What a training needs is looked at before anything starts, and what is wrong is said with its mend."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config.load import load_config
from pipeline.config.train import TrainConfig
from pipeline.errors import ConfigError, WeightsError
from pipeline.flow.material import Material, gather, recipe_of
from pipeline.model.checkpoint import load_usrnet
from pipeline.training.features import random_features
from pipeline.training.recipe import Degradations, Gan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 255, (100, 110, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def config(folder: Path, *overrides: str) -> TrainConfig:
    return load_config(TrainConfig, None, [f"photographs={folder}", "output=out", *overrides])


def gathered(folder: Path, *overrides: str, said: list[str] | None = None) -> Material:
    settings = config(folder, *overrides)
    return gather(settings, recipe_of(settings), (said if said is not None else []).append)


def test_one_in_five_is_held_out_of_a_few(folder: Path) -> None:
    said: list[str] = []
    material = gathered(folder, said=said)
    assert (len(material.photographs), len(material.validation)) == (7, 1)
    held = material.validation[0]
    assert not any(np.array_equal(held, photograph) for photograph in material.photographs)
    assert said == ["7 photographs to train on, 1 held out"]


def test_packaged_weights_are_those_of_the_package(folder: Path) -> None:
    ours, packaged = gathered(folder, "weights=packaged").start.state_dict(), load_usrnet().state_dict()
    assert all(torch.equal(ours[key], packaged[key]) for key in packaged)


def test_kernels_are_made_for_each_scale_and_the_phase(folder: Path) -> None:
    np.save(folder / "psf.npy", np.ones((3, 3)) / 9)
    kernels = gathered(
        folder, f"degradation.kernels=[bicubic, {folder / 'psf.npy'}]", "degradation.scales=[2,3]"
    ).kernels
    assert {scale: len(some) for scale, some in kernels.items()} == {2: 2, 3: 2}
    assert kernels[2][1].shape != (3, 3), "moved by half a pixel"
    corner = gathered(folder, f"degradation.kernels=[{folder / 'psf.npy'}]", "degradation.phase=corner").kernels
    np.testing.assert_allclose(corner[2][0], np.ones((3, 3)) / 9)


def test_every_section_reaches_the_recipe(folder: Path) -> None:
    recipe = recipe_of(
        config(
            folder,
            "weights=packaged",
            *("degradation.scales=[2]", "degradation.sigma_min=1", "degradation.sigma_max=2", "degradation.gray=1"),
            *("degradation.noiseless=0", "degradation.own_kernels=1", "gan.width=8", "gan.pixel=0.01"),
            *("recipe.loss=gan", "recipe.schedule=milestones", "recipe.milestones=[5]", "recipe.compile=true"),
        )
    )
    assert recipe.degradations == Degradations((2,), 1, 2, 0, 1, 1)
    assert recipe.gan == Gan(pixel=0.01, width=8)
    assert (recipe.schedule, recipe.milestones, recipe.compile) == ("milestones", (5,), True)


def test_the_gan_phase_says_that_its_filters_are_random_or_takes_the_weights(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert gathered(folder, "weights=packaged", "recipe.loss=gan", said=said).perceptual is None
    assert "random filters" in said[0]
    torch.save(random_features(3) | {"classifier.0.weight": torch.zeros(2)}, tmp_path / "vgg.pth")
    given = gathered(folder, "weights=packaged", "recipe.loss=gan", f"gan.features={tmp_path / 'vgg.pth'}").perceptual
    assert given is not None
    assert sorted(given) == sorted(random_features())
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="has no tensors named"):
        gathered(folder, "weights=packaged", "recipe.loss=gan", f"gan.features={tmp_path / 'other.pth'}")


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["photographs=/nowhere/at/all"], "there is no image below /nowhere/at/all"),
        (["recipe.patch=132"], "none of the 8 images"),
        (["degradation.kernels=[gone.npy]"], "degradation.kernels: .*gone.npy"),
        (["degradation.kernels=[gaussian(12)]"], "degradation.kernels: .*96"),
    ],
)
def test_what_cannot_be_trained_with_is_said(folder: Path, overrides: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        gathered(folder, *overrides)


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["degradation.scales=[5]"], "multiple of every scale; 96 is not"),
        (["workers.count=3"], "3 workers can share evenly"),
        (["recipe.loss=gan"], "begins with a trained USRNet"),
        (["recipe.milestones=[5]"], "milestones with schedule: milestones"),
        (["degradation.sigma_min=30"], "sigma_max >= sigma_min"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(folder: Path, overrides: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        config(folder, *overrides)


def test_who_goes_on_holds_out_the_same_whatever_was_added(folder: Path, tmp_path: Path) -> None:
    first = gathered(folder)
    (held,) = first.held_out
    shutil.copytree(folder, tmp_path / "more")
    for number in range(8, 40):
        shutil.copy(folder / "1.png", tmp_path / "more" / f"{number}.png")
    settings = config(tmp_path / "more")
    again = gather(settings, recipe_of(settings), lambda _: None, first.held_out)
    assert again.held_out == (held,)
    assert np.array_equal(again.validation[0], first.validation[0])
    assert len(again.photographs) == 39
