from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.fronts.front import Front
from search.fronts.scale import GrowingFront, scale_gain
from search.objectives import OBJECTIVES, load_objectives
from search.records.outcome import DenseRow
from tests.search.cases import outcome

DENSE = DenseRow.from_metrics(accuracy=0.98, flops=1000, params=200, seconds=8.0)
TWO = load_objectives("accuracy,flops")


def metrics(accuracy: float, flops: float) -> dict[str, float]:
    return {"accuracy": accuracy, "flops": flops, "params": 50.0, "seconds": 1.5}


def volume(*points: tuple[float, float]) -> float:
    front = GrowingFront(TWO, DENSE)
    for accuracy, flops in points:
        front.add(metrics(accuracy, flops))
    return front.hypervolume()


def test_halvings_count_the_same_and_useless_networks_nothing() -> None:
    gains = [scale_gain(OBJECTIVES["flops"], flops, DENSE, least=1 / 16) for flops in (1000, 500, 250, 125, 62.5, 10)]
    assert gains == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])
    assert scale_gain(OBJECTIVES["accuracy"], 0.98, DENSE) == pytest.approx(1)
    assert scale_gain(OBJECTIVES["accuracy"], 0.93, DENSE) == pytest.approx(0)
    assert scale_gain(OBJECTIVES["accuracy"], 0.5, DENSE) < 0
    assert scale_gain(OBJECTIVES["params"], 400, DENSE) < 0
    assert scale_gain(OBJECTIVES["predicted_damage"], 0.25, DENSE) == 0.75
    assert volume((0.92, 50)) == 0.0


def test_the_scale_tells_apart_what_the_linear_one_does_not() -> None:
    def fronts(accuracy: float) -> Front:
        return Front("s", DENSE, [outcome(0, metrics=metrics(accuracy, 50))], TWO)

    good, poor = fronts(0.98), fronts(0.94)
    assert good.hypervolume() == pytest.approx(1.0) and poor.hypervolume() == pytest.approx(0.2)
    assert good.linear_hypervolume() - poor.linear_hypervolume() < 0.04


@given(st.lists(st.tuples(st.integers(90, 98), st.integers(1, 20)), min_size=1, max_size=12))
def test_a_growing_front_is_the_front_of_all(points: list[tuple[int, int]]) -> None:
    growing = GrowingFront(TWO, DENSE)
    outcomes = []
    for number, (accuracy, flops) in enumerate(points):
        growing.add(metrics(accuracy / 100, 50.0 * flops))
        outcomes.append(outcome(number, metrics=metrics(accuracy / 100, 50.0 * flops)))
    whole = Front("s", DENSE, outcomes, TWO)
    assert growing.members == len(whole.members)
    assert growing.hypervolume() == pytest.approx(whole.hypervolume())
