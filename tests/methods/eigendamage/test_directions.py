"""Thresholds, ratios, limits and targets against counting by hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.eigendamage.allotment import Round, Side, choose, explain_unreachable, scale_rankings
from methods.eigendamage.directions import (
    Ranking,
    choose_least,
    choose_within_cost,
    keep_above,
    limit_ranking,
    rank_scores,
    scale_scores,
)
from spaces import FlopsTarget, InputError, PerLayer, Uniform

SCORES = st.lists(st.sampled_from([0.0, 0.0, 0.1, 0.2, 0.5, 1.0, 3.0, 7.0]), min_size=1, max_size=7)


def ranking(scores: Sequence[float], limit: float = 1.0, step: int = 1) -> Ranking:
    return Ranking(tuple(sorted(scores, reverse=True)), limit_ranking(len(scores), limit), step)


@given(scores=SCORES, threshold=st.sampled_from([-1.0, 0.0, 0.1, 0.3, 1.0, 9.0]))
def test_everything_up_to_the_threshold_goes(scores: list[float], threshold: float) -> None:
    assert ranking(scores).count_above(threshold) == max(1, sum(score > threshold for score in scores))


def test_limits_and_steps() -> None:
    assert [limit_ranking(size, 0.95) for size in (1, 3, 20, 21)] == [1, 1, 1, 2]
    assert limit_ranking(10, 0.0) == 10
    strict = ranking([1.0] * 10, limit=0.5)
    assert strict.count_above(5.0) == 5 and strict.count_without(0.9) == 5 and strict.count_without(0.25) == 7
    stepped = ranking(range(20), limit=0.95, step=8)
    assert [stepped.round_down(count) for count in (0, 7, 8, 15, 16, 19, 20)] == [8, 8, 8, 8, 16, 16, 20]
    assert [stepped.count_without(ratio) for ratio in (0.0, 0.05, 0.2, 0.3, 0.9)] == [20, 20, 16, 16, 8]
    assert ranking(range(100)).count_without(0.07) == 93


def test_the_authors_ratio_counts_directions_of_the_whole_network() -> None:
    rankings = [ranking([5, 4, 3]), ranking([2, 1]), ranking([9, 0.5, 0.4, 0.3, 0.2])]
    assert keep_above(rankings, 0.0) == [3, 2, 5]
    assert keep_above(rankings, 0.5) == [3, 1, 1]
    assert keep_above(rankings, 0.7) == [2, 1, 1]
    assert keep_above(rankings, 0.99) == [1, 1, 1]
    limit = [ranking([5, 4, 3], 0.5), ranking([2, 1]), ranking([9, 0.5, 0.4, 0.3, 0.2], 0.5)]
    assert keep_above(limit, 0.7) == [2, 1, 3]


def test_ties_go_together() -> None:
    assert keep_above([ranking([1, 0, 0, 0])], 0.3) == [1]


@settings(max_examples=60, deadline=None)
@given(
    tables=st.lists(SCORES, min_size=1, max_size=3),
    prices=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    share=st.floats(0.3, 1.0),
    steps=st.sampled_from([1, 2]),
)
def test_targets_are_met_and_used_up(tables: list[list[float]], prices: list[int], share: float, steps: int) -> None:
    rankings = [ranking(table, step=steps) for table in tables]

    def cost(choice: Sequence[int]) -> int:
        total = 1
        for count, price in zip(choice, prices, strict=False):
            total *= 1 + price * count
        return total

    target = share * cost([len(each.scores) for each in rankings])
    if cost(choose_least(rankings)) > target:
        with pytest.raises(ValueError, match="cannot be met; the least cost is"):
            choose_within_cost(rankings, cost, target)
        return
    choice = choose_within_cost(rankings, cost, target)
    assert cost(choice) <= target
    for index, each in enumerate(rankings):
        assert each.round_down(choice[index]) == choice[index]
        wider = next((n for n in range(choice[index] + 1, len(each.scores) + 1) if each.round_down(n) == n), None)
        if wider is not None:
            assert cost([*choice[:index], wider, *choice[index + 1 :]]) > target, "one more would have fitted"
    # Nothing was removed while something cheaper at the same price stays: a threshold was the start.
    thresholds = sorted({score for each in rankings for score in each.scores} | {-1.0})
    met = next(t for t in thresholds if cost([each.count_above(t) for each in rankings]) <= target)
    assert all(count >= each.count_above(met) for count, each in zip(choice, rankings, strict=True))


def test_scores_are_scaled_and_places_are_shares() -> None:
    assert scale_scores(ranking([4, 2]), 0.5).scores == (2, 1)
    assert rank_scores(ranking([9, 5, 1, 0]), 4).scores == (1, 0.75, 0.5, 0.25)
    assert rank_scores(ranking([9, 5]), 4, shift=0.1).scores == pytest.approx((0.4, 0.15))


def cost_flat(choice: Sequence[int]) -> int:
    return sum(choice)


def test_flops_targets_take_the_cheapest_or_equal_shares() -> None:
    rankings = [ranking([8, 7, 6, 5]), ranking([4, 3, 2, 1])]
    sides = [Side(4, 0.0, 0.0), Side(4, 1.0, 0.0)]
    half = FlopsTarget(flops=0.5)
    assert choose(half, "global", rankings, sides, cost_flat, 8, Round()) == [3, 1]
    assert choose(half, "per_layer", rankings, sides, cost_flat, 8, Round()) == [2, 2]
    whole = [Side(4, 0.0, 0.0, coupled=False), Side(4, 1.0, 0.0)]
    assert choose(FlopsTarget(flops=0.625), "per_layer", rankings, whole, cost_flat, 8, Round()) == [4, 1]


def test_positive_tilt_prunes_deep_layers_more() -> None:
    rankings = [ranking([4, 3, 2, 1]), ranking([4, 3, 2, 1])]
    sides = [Side(4, 0.0, 0.0), Side(4, 1.0, 0.0)]
    for selection in ("global", "per_layer"):
        for sign in (1, -1):
            tilted = FlopsTarget(flops=0.5, tilt=0.4 * sign)
            first, last = choose(tilted, selection, rankings, sides, cost_flat, 8, Round())
            assert (first - last) * sign > 0
    assert [each.scores[0] for each in scale_rankings(0.5, "global", rankings, sides)] == pytest.approx([
        4 * 10**0.5,
        4 / 10**0.5,
    ])


def test_ratios_are_those_of_the_sides() -> None:
    rankings, sides = [ranking(range(10)), ranking(range(8))], [Side(10, 0, 0.3), Side(8, 1, 0.5)]
    assert choose(PerLayer(layers={"any": 0.1}), "global", rankings, sides, cost_flat, 18, Round()) == [7, 4]
    uniform = Uniform(ratio=0.5)
    assert choose(uniform, "per_layer", rankings, sides, cost_flat, 18, Round()) == [7, 4]
    assert choose(uniform, "global", rankings, sides, cost_flat, 18, Round()) == keep_above(rankings, 0.5)


def test_rounds_leave_the_same_part_each_and_arrive() -> None:
    shares = [Round(number, 4).share(0.2) for number in range(1, 5)]
    assert shares[-1] == 0.2
    for before, after in itertools.pairwise([1.0, *shares]):
        assert after / before == pytest.approx(0.2**0.25)
    left = Ranking(tuple(range(5, 0, -1)))  # of ten, after a first round
    side = [Side(10, 0.5, 0.8)]
    assert choose(PerLayer(layers={"a": 0.8}), "global", [left], side, cost_flat, 10, Round(2, 2)) == [2]
    assert choose(Uniform(ratio=0.75), "global", [left], side, cost_flat, 10, Round(1, 2)) == [3]


def test_unreachable_targets_say_what_can_be_reached() -> None:
    rankings, sides = [ranking(range(10), limit=0.5)], [Side(10, 0.0, 0.0)]
    with pytest.raises(InputError, match=r"flops = 0.3 cannot be reached; .* the smallest share is 0.500"):
        choose(FlopsTarget(flops=0.3), "global", rankings, sides, cost_flat, 10, Round())
    early = Round(1, 2)
    assert choose(FlopsTarget(flops=0.01), "global", rankings, sides, cost_flat, 10, early) == [5]
    assert "0.334" in explain_unreachable(0.1, 1, 3)
