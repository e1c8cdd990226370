"""The exploration: which items, which settings, how they rank; one bad setting costs only itself."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import CatalogError, ItemError
from pipeline.explore import Exploration, Grid, Trial, choose, explore, verdicts
from pipeline.model.restore import Restorer
from pipeline.model.usrnet import Architecture
from pipeline.records import Item
from pipeline.resolve import Defaults, Limits
from pipeline.training.loop import initial_usrnet

LIMITS = Limits(scale=16, kernel=512, lr_pixels=2**20, bytes=2**20)
KNOWN = Defaults("delta", 0.0, 2)


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    architecture = Architecture(iterations=1, hidden=4, widths=(4, 4, 4, 4), blocks=1)
    return Restorer(initial_usrnet(architecture, seed=0), precision="fp32", device="cpu")


@pytest.fixture
def catalog(tmp_path: Path) -> str:
    """Ten rows; row 3 has its own setting, row 7 an impossible one."""
    rng = np.random.default_rng(0)
    with (tmp_path / "catalog.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("uri", "id", "kernel", "sigma", "scale"))
        for n in range(10):
            pixels = rng.integers(0, 256, (40 + n, 50, 3) if n % 2 else (40 + n, 50), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{n}.png")
            own = {3: ("gaussian(1)", "4", "2"), 7: ("", "", "two")}.get(n, ("", "", ""))
            table.writerow((f"{n}.png", f"plate-{n}", *own))
    return str(tmp_path / "catalog.csv")


def chosen(catalog: str, *names: str, sample: int = 4) -> list[Item | ItemError]:
    return choose(catalog, root=None, defaults=KNOWN, limits=LIMITS, names=names, sample=sample)


def item(catalog: str, name: str) -> Item:
    (found,) = chosen(catalog, name)
    assert isinstance(found, Item)
    return found


def explored(restorer: Restorer, item: Item, *kernels: str, side: int = 64) -> Exploration:
    return explore(item, Grid(kernels, (0.0, 2.0)), restorer, side=side, limits=LIMITS, boundary="smooth")


def test_a_sample_is_spread_evenly_over_the_catalog(catalog: str) -> None:
    items = chosen(catalog, sample=5)
    assert [entry.item_id for entry in items if isinstance(entry, Item)] == [f"plate-{n}" for n in (1, 3, 5, 9)]
    assert [str(entry).partition(":")[0] for entry in items if isinstance(entry, ItemError)] == ["plate-7"]
    assert len(chosen(catalog, sample=99)) == 10


def test_items_are_named_by_id_or_by_the_end_of_their_uri(catalog: str) -> None:
    assert [entry.item_id for entry in chosen(catalog, "plate-2", "5.png") if isinstance(entry, Item)] == [
        "plate-2",
        "plate-5",
    ]
    with pytest.raises(CatalogError, match="no item named plate-99"):
        chosen(catalog, "plate-2", "plate-99")


def test_an_empty_catalog_is_said(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("uri\n")
    with pytest.raises(CatalogError, match="holds no items"):
        chosen(str(tmp_path / "c.csv"))


def test_every_kernel_meets_every_sigma_and_the_catalogs_own_setting_is_among_them(
    catalog: str, restorer: Restorer
) -> None:
    found = explored(restorer, item(catalog, "plate-3"), "delta", "disk(2)")
    tried = [(trial.kernel, trial.sigma) for trial in found.trials]
    assert tried == [(k, s) for k in ("delta", "disk(2)", "gaussian(1)") for s in (0.0, 2.0, 4.0)]
    assert [trial.given for trial in found.trials] == [False] * 8 + [True]
    assert sorted(trial.rank for trial in found.trials) == list(range(1, 10))
    best = max(found.trials, key=lambda trial: trial.evidence)
    assert best.rank == 1


def test_a_kernel_given_by_its_numbers_is_tried_too(catalog: str, restorer: Restorer) -> None:
    own = replace(item(catalog, "plate-2"), kernel="values", kernel_values=[[1.0, 2.0, 1.0]], kernel_source="catalog")
    found = explored(restorer, own, "delta")
    assert [trial.kernel for trial in found.trials] == ["delta", "delta", "values", "values"]


def test_only_the_window_is_restored_and_the_whole_is_judged(catalog: str, restorer: Restorer) -> None:
    small, large = (explored(restorer, item(catalog, "plate-4"), "delta", side=side) for side in (64, 1000))
    assert small.trials[0].image.shape[:2] == (64, 64)
    assert large.trials[0].image.shape[:2] == (88, 100)
    assert small.size == large.size == (44, 50)
    assert [t.evidence for t in small.trials] == [t.evidence for t in large.trials]


def test_a_kernel_that_cannot_be_read_costs_only_itself(catalog: str, restorer: Restorer) -> None:
    found = explored(restorer, item(catalog, "plate-3"), "gone.npy", "delta")
    assert len(found.trials) == 6
    assert len(found.troubles) == 1
    assert "gone.npy" in found.troubles[0]


def test_an_image_too_small_to_judge_by_is_refused(catalog: str, restorer: Restorer, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((6, 6), np.uint8)).save(tmp_path / "dot.png")
    with pytest.raises(ItemError, match="too small"):
        explored(restorer, replace(item(catalog, "plate-2"), uri=str(tmp_path / "dot.png")), "delta")


def test_all_items_together_rank_what_was_tried_on_each(catalog: str) -> None:
    def exploration(*trials: tuple[str, float, int]) -> Exploration:
        shown = tuple(Trial(k, 0.0, np.zeros((1, 1)), 1.0, e, rank) for k, e, rank in trials)
        return Exploration(item(catalog, "plate-2"), np.zeros((1, 1, 1)), None, (1, 1), shown)  # type: ignore[arg-type]

    found = verdicts([exploration(("a", -1, 4), ("b", -3, 1)), exploration(("b", -2, 3), ("a", -5, 9), ("c", 0, 1))])
    assert [(v.kernel, v.evidence, v.first_three, v.rank) for v in found] == [("b", -2.5, 2, 1), ("a", -3.0, 0, 2)]
    assert verdicts([]) == []


def test_kernels_given_as_numbers_are_one_setting_only_where_the_numbers_are_the_same(catalog: str) -> None:
    def exploration(values: list[list[float]]) -> Exploration:
        own = replace(item(catalog, "plate-2"), kernel="values", kernel_values=values)
        trials = tuple(Trial(kernel, 0.0, np.zeros((1, 1)), 1.0, -1.0, 1) for kernel in ("delta", "values"))
        return Exploration(own, np.zeros((1, 1, 1)), None, (1, 1), trials)  # type: ignore[arg-type]

    alike = verdicts([exploration([[1.0, 2.0]]), exploration([[1.0, 2.0]])])
    assert {verdict.kernel for verdict in alike} == {"delta", "values"}
    assert [verdict.kernel for verdict in verdicts([exploration([[1.0, 2.0]]), exploration([[2.0, 1.0]])])] == ["delta"]


@pytest.mark.parametrize("source", ["catalog", "sidecar"])
def test_an_items_own_setting_is_tried_whoever_wrote_it_down(restorer: Restorer, catalog: str, source: str) -> None:
    own = replace(item(catalog, "plate-3"), kernel_source=source, sigma_source=source)
    exploration = explored(restorer, own, "delta")
    assert [trial.given for trial in exploration.trials].count(True) == 1
