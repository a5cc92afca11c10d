"""Fields of the recipe as parameters of the search."""

from __future__ import annotations

from typing import Any

import pytest

from methods.contract.recipe import Recipe
from search.study.build import build_method
from search.study.recipe_space import recipe_space, trial_recipe
from search.study.space import METHOD, study_space
from spaces import Categorical, InputError, LayerGroup, LogReal, Real, Value

LAYERS = [LayerGroup("conv1", 8, "", 0), LayerGroup("conv2", 16, "layer1", 1)]


def test_a_shared_table_gives_every_method_the_parameter_and_the_recipe_its_default() -> None:
    bounds: dict[str, dict[str, Any]] = {
        "recipe": {"lr": {"low": 0.01, "high": 0.1}},
        "magnitude": {"recipe.distill": 0.5},
    }
    space = study_space(("magnitude", "random"), LAYERS, "flops", bounds, recipe=Recipe(lr=0.05))
    assert space["magnitude.recipe.lr"] == space["random.recipe.lr"] == LogReal(0.01, 0.1, default=0.05)
    assert space["magnitude.recipe.distill"].only == 0.5
    assert "random.recipe.distill" not in space
    assert (space.narrow({METHOD: "random"}).defaults() or {})["random.recipe.lr"] == 0.05


def test_nothing_of_the_recipe_is_searched_unasked() -> None:
    assert not [name for name in study_space(("magnitude",), LAYERS, "flops", {}) if "recipe" in name]


def test_a_trial_is_trained_as_its_point_says_and_its_method_does_not_see_it() -> None:
    point: dict[str, Value] = {"sparsity.mode": "flops", "sparsity.flops": 0.5, "sparsity.tilt": 0.0, "recipe.lr": 0.02}
    assert trial_recipe(Recipe(lr=0.1, distill=0.3), point) == Recipe(lr=0.02, distill=0.3)
    assert build_method("magnitude", point, 1) == build_method("magnitude", {**point, "recipe.lr": 0.3}, 1)


@pytest.mark.parametrize(
    ("field", "bound", "expected"),
    [
        ("lr", {"low": 0.01, "high": 0.04}, LogReal(0.01, 0.04, default=0.02)),  # 0.1 lies outside: the middle
        ("label_smoothing", {"low": 0.0, "high": 0.2}, Real(0.0, 0.2, default=0.0)),
        ("weight_decay", {"low": 0.0, "high": 0.01}, Real(0.0, 0.01, default=5e-4)),  # no logarithm of 0
        ("schedule", {"choices": ["cosine", "step"]}, Categorical(("cosine", "step"), default="cosine")),
        ("distill", {"choices": [0.5, 0.9]}, Categorical((0.5, 0.9), default=0.5)),
    ],
)
def test_scales_and_defaults(field: str, bound: dict[str, Any], expected: object) -> None:
    assert recipe_space({field: bound}, Recipe(lr=0.1))[f"recipe.{field}"] == expected


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"learning_rate": 0.1}, "field of the recipe"),
        ({"lrr": 0.1}, "'lr'"),
        ({"batch_size": {"choices": [32, 64]}}, "field of the recipe that can be searched"),
        ({"lr": {"low": 0.01}}, "give low and high, choices, or one value"),
        ({"lr": {"low": 0.1, "high": 0.01}}, "lies above"),
        ({"lr": {"low": -0.1, "high": 0.1}}, "greater than 0"),
        ({"distill": 1.5}, "less than or equal to 1"),
        ({"lr": {"low": "a", "high": True}}, "give low and high"),
    ],
)
def test_bounds_that_cannot_be_are_refused_in_a_sentence(bounds: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", "\\(")):
        study_space(("magnitude",), LAYERS, "flops", {"recipe": bounds})
