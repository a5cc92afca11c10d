"""Marginal prices: every direction is scored by what is lost and saved when it is the next to go."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from methods.eigendamage.directions import Ranking, choose_within_cost
from methods.eigendamage.kronecker import directions
from methods.eigendamage.marginal import find_marginal_scores
from methods.eigendamage.rotation_cost import Shape
from tests.methods.eigendamage.test_method import method, problem_for

SHAPE = Shape(inputs=6, outputs=5, groups=1, kernel=9, pixels_in=16, pixels_out=16, bias=False, depth=0.0)


def price(columns: int, rows: int) -> int:
    return SHAPE.realisation_costs(columns, rows)[1, 1, 1].flops


def draw_theta(seed: int, rows: int = 5, columns: int = 6) -> Tensor:
    return torch.rand(1, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3


def run_slowly(theta: Tensor) -> list[tuple[str, float]]:
    """Remove one direction after the other from a table of entries; list which side it was and the largest ratio."""
    table = theta[0][theta[0].sum(1).argsort(descending=True)][:, theta[0].sum(0).argsort(descending=True)]
    steps, largest = list[tuple[str, float]](), 0.0
    while table.shape != (1, 1):
        rows, columns = table.shape
        paid = 9 * 16 * rows * columns + 16 * (6 * columns + 5 * rows)  # core, and the two rotations
        ratios = {}
        if columns > 1:
            ratios["column"] = table[:, -1].sum() / (
                paid - 9 * 16 * rows * (columns - 1) - 16 * (6 * (columns - 1) + 5 * rows)
            )
        if rows > 1:
            ratios["row"] = table[-1].sum() / (
                paid - 9 * 16 * (rows - 1) * columns - 16 * (6 * columns + 5 * (rows - 1))
            )
        side = min(ratios, key=lambda name: float(ratios[name]))
        largest = max(largest, float(ratios[side]))
        steps.append((side, largest))
        table = table[:, :-1] if side == "column" else table[:-1]
    return steps


@pytest.mark.parametrize("seed", range(6))
def test_scores_are_those_of_removing_one_after_the_other(seed: int) -> None:
    theta = draw_theta(seed)
    inputs, outputs = find_marginal_scores(directions(theta), price)
    steps = run_slowly(theta)
    assert inputs[:0:-1] == pytest.approx([score for side, score in steps if side == "column"], rel=1e-12)
    assert outputs[:0:-1] == pytest.approx([score for side, score in steps if side == "row"], rel=1e-12)
    assert inputs[0] == outputs[0] == pytest.approx(steps[-1][1], rel=1e-12)


@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 6))
def test_scores_fall_along_both_sides(seed: int, rows: int, columns: int) -> None:
    for scores in find_marginal_scores(directions(draw_theta(seed, rows, columns)), price):
        assert list(scores) == sorted(scores, reverse=True)


def test_a_row_whose_columns_are_gone_is_cheap() -> None:
    """By hand, with a price of one per entry: what a full row costs says nothing once its only large entry is gone."""
    theta = torch.tensor([[[9.0, 9.0, 0.5], [9.0, 9.0, 0.5], [0.1, 0.1, 4.0]]])
    inputs, outputs = find_marginal_scores(directions(theta), lambda columns, rows: float(columns * rows))
    # The last row (4.2 over 3 entries) goes before the last column (5 over 3), which then has only 1.0 over 2 left.
    assert outputs[2] == pytest.approx(4.2 / 3)
    assert inputs[2] == pytest.approx(4.2 / 3), "cheaper by then (1 over 2), but not to be had before"
    assert outputs[1] == inputs[1] == inputs[0] == pytest.approx(9.0)


def test_in_one_layer_less_is_lost_at_equal_cost_than_with_prices_of_the_whole() -> None:
    """Over many tables the predicted damage is lower on average, and much more often lower than higher."""
    wins, losses, total = 0, 0, [0.0, 0.0]
    for seed, share in itertools.product(range(40), (0.2, 0.4, 0.6)):
        found = directions(draw_theta(seed))
        full = [price(6, 5) - price(5, 5), price(6, 5) - price(6, 4)]
        usual = (found.column_scores / full[0]).tolist(), (found.row_scores / full[1]).tolist()
        harms = []
        for scores in (usual, find_marginal_scores(found, price)):
            rankings = [Ranking(tuple(side)) for side in scores]
            columns, rows = choose_within_cost(rankings, lambda kept: price(*kept), share * price(6, 5))
            harms.append(found.union(columns, rows))
        wins, losses = wins + (harms[1] < harms[0]), losses + (harms[1] > harms[0])
        total = [total[0] + harms[0], total[1] + harms[1]]
    assert wins > 2 * losses and total[1] < total[0]


def test_marginal_prices_predict_less_damage_for_the_same_flops() -> None:
    for target in (0.5, 0.3):
        seen = {
            norm: method(target, score_norm=norm, realise="three_layer").preview(problem_for("wide"))
            for norm in ("per_mac", "marginal")
        }
        assert seen["marginal"].flops <= target * 1.0001 * _count_dense()
        assert seen["marginal"].damage is not None and seen["per_mac"].damage is not None
        assert seen["marginal"].damage < seen["per_mac"].damage


def _count_dense() -> int:
    return problem_for("wide").cost.dense
