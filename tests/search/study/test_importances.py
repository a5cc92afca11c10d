"""Importances: what decides is found, and what cannot be said is not said."""

from __future__ import annotations

import random

from search.objectives import load_objectives
from search.records.outcome import Outcome
from search.study.importances import parameter_importances
from spaces import Categorical, Condition, Real, Space
from tests.search.cases import outcome

OBJECTIVES = load_objectives("accuracy,flops")
SPACE = Space.choose("method", {
    "increg": Space(
        {"rate": Real(0, 1), "idle": Real(0, 1), "mode": Categorical(("a", "b")), "depth": Real(0, 1)},
        {"depth": Condition("mode", ("a",))},
    ),
    "magnitude": Space({"sparsity.flops": Real(0, 1)}),
})  # fmt: skip


def trials(count: int, method: str = "increg", seed: int = 0) -> list[Outcome]:
    rng = random.Random(seed)
    made = []
    for number in range(count):
        point: dict[str, bool | int | float | str] = {"rate": rng.random(), "idle": rng.random()}
        point["mode"] = rng.choice(["a", "b"])
        if point["mode"] == "a":
            point["depth"] = rng.random()
        rate = float(point["rate"])
        metrics = {"accuracy": 1 - (rate - 0.3) ** 2, "flops": 500.0, "params": 10.0, "seconds": 1.0}
        made.append(outcome(number, method=method, point=point, metrics=metrics))
    return made


def test_what_decides_is_found() -> None:
    weights = parameter_importances(SPACE, trials(60), OBJECTIVES)["increg"]["accuracy"]
    assert max(weights, key=lambda name: weights[name]) == "rate"
    assert abs(sum(weights.values()) - 1) < 1e-6
    assert set(weights) == {"rate", "idle", "mode"}, "a parameter that some trials lack is not compared"


def test_what_cannot_be_said_is_left_out() -> None:
    assert parameter_importances(SPACE, trials(5), OBJECTIVES) == {}
    found = parameter_importances(SPACE, trials(12), OBJECTIVES)
    assert found["increg"]["flops"] == {}, "all trials cost the same"
    same = [outcome(number, method="magnitude", point={"sparsity.flops": 0.5}) for number in range(9)]
    assert parameter_importances(SPACE, same, OBJECTIVES) == {}
