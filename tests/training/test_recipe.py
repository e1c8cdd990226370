"""A recipe travels, and its schedule is what it says."""

import json

import pytest

from pipeline.training.recipe import Degradations, Gan, Recipe, as_mapping, changes, from_mapping, rate


@pytest.mark.parametrize(
    "recipe", [Recipe(9), Recipe(9, milestones=(3, 5), degradations=Degradations((2,)), gan=Gan(width=8))]
)
def test_a_recipe_survives_its_journey_as_json(recipe: Recipe) -> None:
    travelled = json.loads(json.dumps(as_mapping(recipe)))
    assert from_mapping(travelled) == recipe
    assert changes(travelled, as_mapping(recipe)) == []


def test_the_rate_is_halved_at_each_milestone() -> None:
    recipe = Recipe(100, warmup=2, schedule="milestones", milestones=(10, 50))
    assert [rate(step, recipe) for step in (0, 1, 2, 9, 10, 49, 50, 99)] == [0.5, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]


def test_the_cosine_ends_at_a_hundredth() -> None:
    recipe = Recipe(100, warmup=0)
    assert rate(0, recipe) == 1
    assert rate(50, recipe) == pytest.approx(0.505)
    assert rate(100, recipe) == pytest.approx(0.01)
