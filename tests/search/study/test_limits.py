"""Limits that no network could keep to, and budgets that end before a trial does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from search.study.config import StudyConfig
from search.study.limits import limit_words, move_within_limits, read_limits
from search.study.points import make_first_points
from search.study.samplers.base import Limits, PointCost
from search.study.space import study_space
from spaces import InputError, LayerGroup, Value

DENSE, LEAST = PointCost(40_000_000, 270_000), PointCost(400_000, 3_000)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"max_flops": "50%"}, Limits(max_flops=20_000_000)),
        ({"max_flops": 0.25, "min_flops": "2M"}, Limits(min_flops=2_000_000, max_flops=10_000_000)),
        ({"max_params": "30%"}, Limits(max_params=81_000)),
        ({}, Limits()),
    ],
)
def test_limits_are_read_as_counts(given: dict[str, Any], found: Limits) -> None:
    limits = read_limits(StudyConfig(**given), DENSE, LEAST)
    assert limits == found and limits.hard == bool(given)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"max_flops": "20%", "min_flops": "40%"}, "min-flops = 40% and max-flops = 20% contradict each other"),
        ({"max_flops": "10M", "min_flops": 0.5}, "no network has at least 20,000,000 and at most 10,000,000 FLOPs"),
        (
            {"max_flops": "0.5%"},
            r"max-flops = 0.5% cannot be reached: .* at least 1 % of the dense .*400,000",
        ),
        ({"max_params": "1k"}, "max-params = 1k cannot be reached: .* leaves at least 1.11 %"),
        ({"max_flops": 50}, "max-flops: 50 of the dense network's 40,000,000 is next to nothing; did you mean '50%'"),
        ({"max_flops": "50"}, "did you mean '50%'"),
        ({"max_flops": "150%"}, "max-flops: '150%' is more than the whole dense network"),
        ({"min_flops": "100%"}, "min-flops = 100% leaves nothing to prune"),
        ({"max_flops": "0%"}, "max-flops: '0%' leaves nothing"),
        ({"max_flops": "much"}, "max-flops: 'much' is not a limit"),
        ({"max_latency": "2ms"}, "max-latency needs a latency that is measured"),
    ],
)
def test_limits_that_nothing_keeps_to(given: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        read_limits(StudyConfig(**given), DENSE, LEAST)


def test_what_a_network_exceeds() -> None:
    limits = Limits(min_flops=100, max_flops=400, max_latency=0.002)
    measured = {"flops": 500.0, "params": 3.0, "latency": 0.001}
    assert limits.excesses(measured) == {"min_flops": -4.0, "max_flops": 0.25, "max_latency": -0.5}
    assert limits.excesses({}) == {}
    assert limit_words(limits, DENSE).endswith("latency up to 2 ms")


def test_a_band_between_two_widths_says_what_lies_on_both_sides() -> None:
    """Ten units of 100 FLOPs each: 5 of them are too few, and 6 too many."""
    groups = [LayerGroup("conv", 10, "8x8", 0.0)]
    space = study_space(("magnitude",), groups, "flops", {})

    def cost(method: str, point: Mapping[str, Value]) -> PointCost:
        units = max(1, int(10 * float(point["sparsity.flops"]) + 1e-9))
        return PointCost(100 * units, units)

    dense = PointCost(1000, 10)
    with pytest.raises(
        InputError, match=r"FLOPs from 51 % up to 59 %.* leaves 10 % to 90 % .* nothing between 50 % and 60 %"
    ):
        move_within_limits(make_first_points(space, ["magnitude"], [0.5]), space, Limits(510, 590), cost, dense)
    assert limit_words(Limits(510, 510), dense) == "FLOPs from 510 up to 510"
    far = study_space(("magnitude",), groups, "flops", {"magnitude": {"sparsity.flops": {"low": 0.5}}})
    with pytest.raises(InputError, match=r"leaves 50 % to 90 % of the FLOPs; widen them"):
        move_within_limits(make_first_points(far, ["magnitude"], [0.5]), far, Limits(max_flops=300), cost, dense)
