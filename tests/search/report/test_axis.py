"""Axes: where values stand, and that ticks say what is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.objectives import OBJECTIVES, Objective
from search.report.axis import Axis, cost_axis, quality_axis

R2 = Objective(
    name="r2", title="R2", direction="maximise", style=".3f", ideal=1.0, worst=0.0, quality=True, trained=True
)
ERROR = Objective(name="rmse", title="RMSE", direction="minimise", unit="K", style=".3g", quality=True, trained=True)
shares = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=9)


def make_axes(values: list[float]) -> list[Axis]:
    best = max(values)
    return [
        quality_axis(OBJECTIVES["accuracy"], best, values, []),
        quality_axis(R2, None, values, [0.5 * value for value in values]),
        quality_axis(ERROR, min(values), values, []),
        cost_axis(OBJECTIVES["flops"], 1e6, [1e6 * value for value in values]),
        cost_axis(ERROR, 0.5, values),
        cost_axis(R2, 0.5, values),
        cost_axis(OBJECTIVES["flops"], 1e6, [1e6 * value for value in values], vertical=True),
    ]


@given(shares)
def test_a_position_leads_back_to_its_value(values: list[float]) -> None:
    for axis in make_axes(values):
        for value in values:
            told = value * 1e6 if axis.objective.name == "flops" else value
            assert axis.value(axis.place(told)) == pytest.approx(told, rel=1e-6, abs=1e-9)
            assert axis.low <= axis.place(told) <= axis.high


@given(shares, st.floats(0.001, 1.0), st.floats(0.001, 1.0))
def test_better_is_up_and_left(values: list[float], one: float, other: float) -> None:
    for axis in make_axes([*values, one, other]):
        scale = 1e6 if axis.objective.name == "flops" else 1.0
        better, worse = sorted((one * scale, other * scale), reverse=axis.objective.maximise)
        if axis.vertical:
            assert axis.place(better) >= axis.place(worse)
        else:
            assert axis.place(better) <= axis.place(worse)


@given(shares)
def test_ticks_are_on_the_axis_and_say_their_value(values: list[float]) -> None:
    for axis in make_axes(values):
        ticks = axis.ticks()
        assert 1 <= len(ticks) <= 14
        assert [place for place, _ in ticks] == sorted(place for place, _ in ticks)
        for place, text in ticks:
            assert axis.low - 1e-9 <= place <= axis.high + 1e-9 or len(ticks) == 1
            if text.endswith("%"):
                share = float(text.removesuffix(" %")) / 100
                whole = axis.whole if axis.relative and axis.whole else 1.0
                assert share * whole == pytest.approx(axis.value(place), rel=0.06, abs=1e-6)


def test_an_ideal_value_has_a_place_among_decades() -> None:
    axis = quality_axis(OBJECTIVES["accuracy"], 0.99, [1.0, 0.99, 0.98, 0.2], [])
    assert axis.kind == "loss"
    assert axis.low < axis.place(0.2) < axis.place(0.98) < axis.place(0.99) < axis.place(1.0) < axis.high


def test_titles_say_what_is_shown() -> None:
    assert cost_axis(OBJECTIVES["flops"], 1e6, [1e5]).title == "FLOPs, share of the dense network"
    assert quality_axis(ERROR, 1.0, [1.0], []).title == "RMSE (K), less is above"
    assert quality_axis(OBJECTIVES["accuracy"], 0.9, [0.9], []).title == "validation accuracy"
