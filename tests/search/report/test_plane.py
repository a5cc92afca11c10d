from __future__ import annotations

import pytest

from search.fronts.front import Front
from search.objectives import OBJECTIVES, Objective, load_objectives
from search.records.outcome import DenseRow
from search.report.plane import plane, planes
from tests.search.cases import outcome

DENSE = DenseRow({"accuracy": 0.96, "flops": 1000.0, "params": 100.0, "seconds": 3.0})
ENERGY = Objective(name="energy", title="energy", direction="minimise", unit="mJ", style=".3g", measure=lambda _: 1.0)


def front(*rows: tuple[float, float, float], objectives: tuple[Objective, ...] | None = None) -> Front:
    """A front of trials of accuracy, FLOPs and energy."""
    outcomes = [
        outcome(n, metrics={"accuracy": a, "flops": f, "params": 50.0, "seconds": 1.0, "energy": e})
        for n, (a, f, e) in enumerate(rows)
    ]
    return Front("s", DENSE, outcomes, objectives or load_objectives("accuracy,flops"))


def test_dots_lie_from_left_to_right_and_ties_share_one() -> None:
    shown = plane(front((0.95, 800, 1), (0.90, 300, 1), (0.85, 600, 1), (0.90, 300, 1)))
    assert [dot.label for dot in shown.front] == ["1 = 3", "0"]
    assert [dot.label for dot in shown.dominated] == ["2"]
    assert [dot.x for dot in shown.front] == sorted(dot.x for dot in shown.front)
    (left, right), (middle,) = shown.front, shown.dominated
    assert left.x < middle.x < right.x and middle.y < left.y < right.y
    assert shown.stairs == shown.front and len(shown.dots) == 3
    across, up = shown.dense
    assert across is not None and up is not None and across > right.x and up > right.y
    assert shown.dense_text == "dense 96.00 %"


def test_trials_far_below_are_counted_and_the_worst_is_named() -> None:
    good = [(0.95 - 0.002 * n, 900.0 - 80 * n, 1.0) for n in range(10)]
    shown = plane(front(*good, (0.12, 950, 1), (0.31, 990, 1)))
    assert sorted(dot.member.trial for dot in shown.below) == [10, 11]
    assert shown.told_below.startswith("2 trials below ") and shown.told_below.endswith(", down to 12.00 %")
    assert plane(front(*good)).told_below == ""


def test_the_pairs_of_three_objectives_and_the_colour_of_the_third() -> None:
    objectives = (*load_objectives("accuracy,flops"), ENERGY)
    three = front((0.95, 800, 6), (0.90, 300, 2), (0.80, 400, 1), objectives=objectives)
    first, second, third = planes(three)
    named = [(each.up.objective.name, each.across.objective.name) for each in (first, second, third)]
    assert named == [("accuracy", "flops"), ("accuracy", "energy"), ("energy", "flops")]
    assert first.third == ENERGY and second.third is None
    shades = {dot.member.trial: first.shade(dot.member) for dot in first.dots}
    assert shades == {0: 1.0, 1: pytest.approx(0.2), 2: 0.0}
    assert {second.shade(dot.member) for dot in second.dots} == {0.0}
    # All three are on the front, but in this plane trial 1 beats trial 2.
    assert len(first.front) == 3 and [dot.member.trial for dot in first.stairs] == [1, 0]


def test_a_single_objective_is_drawn_against_flops_and_four_against_the_quality() -> None:
    (alone,) = planes(front((0.95, 800, 1), objectives=load_objectives("accuracy,flops")[:1]))
    assert alone.across.objective == OBJECTIVES["flops"]
    four = (*load_objectives("accuracy,flops,params"), ENERGY)
    assert [each.across.objective.name for each in planes(front((0.95, 800, 1), objectives=four))] == [
        "flops",
        "params",
        "energy",
    ]
