from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.records.timing import NOISE, Timing

seconds = st.floats(1e-7, 1e3)
rounds = st.lists(st.tuples(seconds, seconds), min_size=2, max_size=9)


@given(rounds)
def test_a_timing_survives_json(pairs: list[tuple[float, float]]) -> None:
    timing = Timing.from_seconds([dense for dense, _ in pairs], [pruned for _, pruned in pairs])
    assert Timing.from_json(json.loads(json.dumps(timing.to_json() | {"later": 1}))) == timing


@given(st.lists(seconds, min_size=2, max_size=9), st.floats(0.01, 1))
def test_the_share_is_that_of_every_round(dense: list[float], share: float) -> None:
    assert Timing.from_seconds(dense, [share * each for each in dense]).share == pytest.approx(share)


def test_efficiency_is_one_when_time_follows_flops() -> None:
    half = Timing.from_seconds([2.0, 2.0, 2.0], [1.0, 1.0, 1.0])
    assert half.efficiency(0.5) == 1
    assert half.efficiency(0.25) == 0.5, "four times fewer FLOPs, twice as fast"
    assert Timing.from_seconds([1.0, 1.0], [1.0, 1.0]).efficiency(0.5) == 0.5, "half the FLOPs, no speed-up"


@pytest.mark.parametrize("scatters", ["dense", "pruned"])
def test_either_network_makes_a_timing_noisy(scatters: str) -> None:
    calm, wild = [1.0] * 4, [1.0, 1.0, 1 + 4 * NOISE, 1 + 4 * NOISE]
    assert not Timing.from_seconds(calm, calm).noisy
    assert Timing.from_seconds(wild if scatters == "dense" else calm, wild if scatters == "pruned" else calm).noisy
