"""Photographs of any folder: what can be used is, what cannot is named and stops nothing."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.photographs import in_random_order, load_up_to


def save(path: Path, width: int, height: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": (3,), "L": (), "I;16": ()}[mode]
    kind = np.uint16 if mode == "I;16" else np.uint8
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, *channels), dtype=kind)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "a.png", 60, 50)
    save(tmp_path / "deep" / "b.PNG", 70, 50)
    save(tmp_path / "gray.png", 50, 50, "L")
    return tmp_path


def test_the_order_depends_on_the_names_alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("moved")
    for name in ("b.PNG", "x/gray.png", "a.png", "notes.txt"):
        (other / name).parent.mkdir(exist_ok=True)
        (other / name).touch()
    here, there = ([uri.rsplit("/", 1)[-1] for uri in in_random_order(str(root))] for root in (folder, other))
    assert here == there
    assert sorted(here) == ["a.png", "b.PNG", "gray.png"]


def test_gray_ones_get_three_equal_channels(folder: Path) -> None:
    loaded = load_up_to([str(folder / "gray.png")], 1, smallest=48, notice=print)
    assert loaded[0].shape == (50, 50, 3)
    assert (loaded[0] == loaded[0][..., :1]).all()


def test_what_cannot_be_used_is_left_out_and_named(folder: Path) -> None:
    save(folder / "small.png", 47, 99)
    save(folder / "wide.png", 60, 60, "I;16")
    data = io.BytesIO((folder / "a.png").read_bytes())
    (folder / "cut.png").write_bytes(data.getvalue()[:2000])
    said: list[str] = []
    loaded = load_up_to(in_random_order(str(folder)), 1, smallest=48, notice=said.append)
    assert sorted(p.shape for p in loaded) == [(50, 50, 3), (50, 60, 3), (50, 70, 3)]
    assert len(said) == 3
    for name, why in (("small.png", "47×99, smaller than"), ("wide.png", "8"), ("cut.png", "")):
        assert any(name in line and why in line for line in said)


def test_memory_has_its_bound(folder: Path) -> None:
    said: list[str] = []
    loaded = load_up_to(in_random_order(str(folder)), 0.004, smallest=48, notice=said.append)
    assert len(loaded) == 2
    assert "full after 2" in said[0]
