"""A pack gives back what was put in, within its bounds."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.model.usrnet import Architecture
from pipeline.physics.kernels import parse_kernel
from pipeline.training.features import random_features
from pipeline.training.loop import initial_usrnet
from pipeline.training.pack import Pack, packed, read_pack, unpacked, write_pack
from pipeline.training.recipe import Gan, Recipe

SMALL = Architecture(iterations=1, hidden=4, widths=(4, 4, 4, 4), blocks=1)


def photograph(h: int, w: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def pack(recipe: Recipe, photographs: list[np.ndarray], **more: object) -> Pack:
    empty = {"perceptual": None, "kernels": {}, "validation": []}
    return Pack(recipe=recipe, start=initial_usrnet(SMALL, 0), photographs=photographs, **empty | more)


@pytest.mark.parametrize("image", [photograph(7, 5, 0), np.full((1, 1, 3), 255, np.uint8), photograph(33, 64, 1)])
def test_crops_come_back_sample_for_sample(image: np.ndarray) -> None:
    back = unpacked(packed(image))
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, image)


def test_a_pack_comes_back_whole(tmp_path: Path) -> None:
    kernels = {2: [parse_kernel("disk(2)"), parse_kernel("gaussian(1)")], 3: [parse_kernel("disk(3)")]}
    photo = photograph(64, 96, 0)
    given = pack(
        Recipe(5, gan=Gan()), [photo], perceptual=random_features(), kernels=kernels, validation=[photograph(40, 40, 1)]
    )
    assert write_pack(tmp_path / "p.zip", given, side=32, most_bytes=3_000_000) == (6, 1)
    back = read_pack(tmp_path / "p.zip")
    assert back.recipe == given.recipe
    assert sorted(crop.tobytes() for crop in back.photographs) == sorted(
        photo[y : y + 32, x : x + 32].tobytes() for y in (0, 32) for x in (0, 32, 64)
    )
    for scale, some in kernels.items():
        for ours, theirs in zip(some, back.kernels[scale], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    for key, tensor in given.start.state_dict().items():
        assert torch.equal(tensor, back.start.state_dict()[key])
    assert back.perceptual is not None
    assert torch.equal(back.perceptual["features.7.weight"], random_features()["features.7.weight"])


def test_it_never_outgrows_its_bound_and_leaves_flat_crops_out(tmp_path: Path) -> None:
    photographs = [photograph(128, 128, seed) for seed in range(4)] + [np.full((64, 64, 3), 99, np.uint8)]
    crops, _ = write_pack(tmp_path / "p.zip", pack(Recipe(5), photographs), side=32, most_bytes=100_000)
    assert (tmp_path / "p.zip").stat().st_size <= 100_000
    assert 10 < crops < 64
    every, _ = write_pack(tmp_path / "q.zip", pack(Recipe(5), photographs), side=32, most_bytes=10_000_000)
    assert every == 64


def test_what_is_no_pack_or_has_no_room_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("a", "b")
    for name in ("text.zip", "other.zip", "missing.zip"):
        with pytest.raises(ConfigError, match=f"{name} is no pack"):
            read_pack(tmp_path / name)
    with pytest.raises(ConfigError, match="not one crop fits"):
        write_pack(tmp_path / "p.zip", pack(Recipe(5), [photograph(64, 64, 0)]), side=32, most_bytes=5000)
    assert not (tmp_path / "p.zip").exists()
