from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.study.samplers.base import Aim, Axis, PointCost
from search.study.schedulers.base import Reached, Standing
from search.study.schedulers.halving import MultiObjectiveHalving, fronts_of, order_by_net
from search.study.schedulers.making import make_scheduler
from search.testing import check_scheduler
from spaces import InputError

AIM = Aim((Axis("accuracy", True, True, 1.0, 0.0, 0.98, 1000), Axis("flops", False, False, 0.0, 1e6, 1e6)))


def make_standing(number: int, loss: float, flops: int, method: str = "magnitude", **changes: Any) -> Standing:
    record = {"epoch": 2.0, "step": 4.0, "loss": loss, "val_loss": loss, "accuracy": 1 - loss}
    standing = Standing(number, method, {}, PointCost(flops, 10), (Reached(0.1, record),), "paused")
    return replace(standing, **changes)


def test_ours_pass_the_contract_test() -> None:
    check_scheduler(MultiObjectiveHalving)
    check_scheduler(lambda aim, seed: MultiObjectiveHalving(aim, seed, rungs=(0.2, 0.5, 0.7), keep=0.5))
    check_scheduler(lambda aim, seed: make_scheduler("none", {}, aim, seed))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25))
def test_fronts_are_those_of_the_definition(points: list[tuple[int, ...]]) -> None:
    left = dict(enumerate(points))
    expected = []
    while left:
        front = [
            number
            for number, point in left.items()
            if not any(
                all(a <= b for a, b in zip(other, point, strict=True)) and other != point for other in left.values()
            )
        ]
        expected.append(front)
        for number in front:
            del left[number]
    values = np.array(points, dtype=float)
    assert fronts_of(values) == expected
    order = order_by_net(values)
    assert sorted(order) == list(range(len(points)))
    assert [set(order[sum(map(len, expected[:n])) :][: len(front)]) for n, front in enumerate(expected)] == [
        set(front) for front in expected
    ]


def test_a_net_covers_a_front_before_it_fills_it() -> None:
    values = np.array([[place, 100.0 - place] for place in range(101)])
    first = [int(values[place, 0]) for place in order_by_net(values)[:5]]
    assert first[:3] == [0, 100, 50] and set(first[3:]) == {25, 75}


def test_the_best_third_of_each_method_goes_on() -> None:
    made = MultiObjectiveHalving(AIM)
    trials = [make_standing(number, 0.1 * (number + 1), 1000) for number in range(6)]
    trials += [make_standing(6 + number, 5.0 + number, 1000, method="random") for number in range(3)]
    assert [made.decide(each, trials) for each in trials] == [
        "continue", "continue", "pause", "pause", "pause", "pause", "continue", "pause", "pause",
    ]  # fmt: skip
    assert made.promote(trials) == 0
    gone_on = [replace(each, state="running") if each.number < 2 else each for each in trials]
    assert made.promote(gone_on) == 6, "methods are not compared with each other"


def test_cheap_networks_are_not_beaten_by_good_ones() -> None:
    made = MultiObjectiveHalving(AIM, keep=0.5)
    trials = [
        make_standing(0, 0.1, 900),
        make_standing(1, 0.2, 1000),
        make_standing(2, 0.9, 50),
        make_standing(3, 0.95, 60),
    ]
    assert [made.decide(each, trials) for each in trials] == ["continue", "pause", "continue", "pause"]


def test_what_is_read_at_a_rung() -> None:
    better = MultiObjectiveHalving(AIM, watch="accuracy", keep=0.5)
    trials = [make_standing(0, 0.1, 100), make_standing(1, 0.2, 100)]
    assert [better.decide(each, trials) for each in trials] == ["continue", "pause"]
    lost = make_standing(2, float("nan"), 100)
    assert MultiObjectiveHalving(AIM).decide(lost, [*trials, lost]) == "stop"


def test_who_has_rungs() -> None:
    made = MultiObjectiveHalving(AIM, rungs=(0.1, 0.3), methods=["magnitude"])
    begun = Standing(0, "magnitude", {}, PointCost(5, 5))
    assert made.next_rung(begun) == 0.1
    assert made.next_rung(make_standing(0, 0.1, 100)) == 0.3
    assert made.next_rung(replace(begun, method="increg")) is None
    assert made.next_rung(replace(begun, cost=None)) is None, "a network of unknown cost cannot be compared"
    late = replace(begun, rungs=(Reached(0.5, {}),))
    assert made.next_rung(late) is None, "a rung that was passed is no rung"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"rungs": [0.3, 0.1]}, r"scheduler 'mo-asha': rungs = \[0.3, 0.1\] are not ascending shares between 0 and 1"),
        ({"rungs": [10]}, "not ascending shares"),
        ({"keep": 1.5}, "keep = 1.5 is not a share"),
        ({"watch": "val_los"}, "unknown number to watch 'val_los'; did you mean 'val_loss'"),
        ({"methods": ["magnitud"]}, "unknown method 'magnitud'; did you mean 'magnitude'"),
        ({"rung": [0.1]}, "unknown option in scheduler_options of 'mo-asha'.*'rung'; did you mean 'rungs'"),
    ],
)
def test_options_that_are_not_allowed(options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        make_scheduler("mo-asha", options, AIM, 0)


class Racing:
    """Decides by how often it was asked."""

    calls = 0

    def __init__(self, aim: Aim, seed: int) -> None: ...

    def next_rung(self, trial: Standing) -> float | None:
        return None if trial.rungs else 0.2

    def decide(self, trial: Standing, trials: Sequence[Standing]) -> str:
        Racing.calls += 1
        return "continue" if Racing.calls % 3 else "stop"

    def promote(self, trials: Sequence[Standing]) -> int | None:
        return None


def test_a_scheduler_that_depends_on_more_than_the_trials_fails() -> None:
    with pytest.raises(AssertionError, match="decisions must not depend on the race|must end as one that was not"):
        check_scheduler(Racing)


class Wrong(Racing):
    """Promotes trials that do not wait."""

    def decide(self, trial: Standing, trials: Sequence[Standing]) -> str:
        return "pause"

    def promote(self, trials: Sequence[Standing]) -> int | None:
        return 99


def test_a_scheduler_that_promotes_what_does_not_wait_is_told_so() -> None:
    with pytest.raises(InputError, match="promotes trial 99, which is not paused"):
        check_scheduler(Wrong)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("nothing:Name", "scheduler 'nothing:Name': there is no module 'nothing'"),
        ("math:sqrtt", "unknown name in math: 'sqrtt'"),
        ("math:pi", r"scheduler 'math:pi': pi has no next_rung, decide and promote"),
        ("mo-ashaa", "unknown scheduler 'mo-ashaa'; did you mean 'mo-asha'"),
    ],
)
def test_names_that_are_no_scheduler(name: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        make_scheduler(name, {}, AIM, 0)
