"""Verdicts over further seeds, on numbers made by hand."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from search.fronts.confirmation import Confirmation, Spread, judge, welch_half_width
from search.fronts.front import Front
from search.objectives import load_objectives
from search.records.outcome import DenseRow, Outcome
from search.report.confirmation import confirmation_table, write_spread
from search.report.plots import confirmation_figure
from spaces import InputError
from tests.search.cases import outcome

DENSE = DenseRow.from_metrics(accuracy=0.95, flops=1000, params=100, seconds=2.0)
ACCURACY, FLOPS = load_objectives(("accuracy", "flops"))


def run(trial: int, accuracy: float, flops: float) -> Outcome:
    return outcome(trial, metrics={"accuracy": accuracy, "flops": flops, "params": flops / 10, "seconds": 1.0})


def make_confirmation(
    again: dict[int, list[float | None]], flops: dict[int, list[float]] | None = None
) -> Confirmation:
    """A front of trials at 100, 200, ... FLOPs and rising accuracy, with reruns; ``None`` is one that failed."""
    outcomes = [run(trial, 0.5 + 0.1 * trial, 100.0 * (trial + 1)) for trial in again]
    front = Front("s", DENSE, outcomes, (ACCURACY, FLOPS), metrics=(ACCURACY,))
    reruns = {}
    for trial, values in again.items():
        costs = (flops or {}).get(trial, [100.0 * (trial + 1)] * len(values))
        reruns[trial] = {
            index: outcome(trial, error="ValueError: nothing left")
            if value is None
            else run(trial, value, costs[index])
            for index, value in enumerate(values)
        }
    return judge(front, reruns, len(next(iter(again.values()))))


def verdicts(found: Confirmation) -> dict[int, tuple[str, int | None]]:
    return {each.member.trial: (each.verdict, each.into) for each in found.members}


def test_what_noise_cannot_tell_apart_is_merged_into_the_cheaper_one() -> None:
    found = make_confirmation({
        0: [0.50, 0.51, 0.52],
        1: [0.51, 0.50, 0.53],
        2: [0.90, 0.91, 0.92],
        3: [0.70, 0.71, 0.72],
    })
    assert verdicts(found) == {0: ("confirmed", None), 1: ("merged", 0), 2: ("confirmed", None), 3: ("beaten", 2)}
    assert [each.member.trial for each in found.confirmed] == [0, 2]


def test_members_are_compared_seed_by_seed() -> None:
    # Seeds scatter by 0.2, the difference by nothing to speak of: unpaired intervals would overlap.
    found = make_confirmation({0: [0.5, 0.6, 0.7], 1: [0.521, 0.62, 0.719]})
    assert verdicts(found)[1] == ("confirmed", None)
    assert welch_half_width([0.5, 0.6, 0.7], [0.521, 0.62, 0.719]) > 0.02
    assert verdicts(make_confirmation({0: [0.5, 0.6, 0.7], 1: [0.719, 0.521, 0.62]}))[1] == ("merged", 0)


def test_seeds_that_are_not_in_common_are_compared_by_welch() -> None:
    far = make_confirmation({0: [0.5, 0.51, None, None], 1: [None, None, 0.9, 0.91]})
    near = make_confirmation({0: [0.5, 0.51, None, None], 1: [None, None, 0.5, 0.52]})
    assert verdicts(far)[1] == ("confirmed", None) and verdicts(near)[1] == ("merged", 0)
    low, high = [0.1, 0.3, 0.2], [0.6, 0.5, 0.9, 0.7]
    interval = stats.ttest_ind(high, low, equal_var=False).confidence_interval(0.95)
    assert welch_half_width(low, high) == pytest.approx((interval.high - interval.low) / 2)
    assert welch_half_width([0.5, 0.5], [0.6, 0.6]) == 0


def test_a_member_with_fewer_than_two_networks_is_open() -> None:
    found = make_confirmation({0: [0.5, 0.51, 0.52], 1: [None, None, 0.6]})
    assert verdicts(found) == {0: ("confirmed", None), 1: ("open", None)}
    told = found.to_json()["members"][1]
    assert told["complete"] == 1 and told["failed"] == ["ValueError: nothing left"] * 2
    assert told["validation"]["accuracy"] == {"recorded": 0.6, "mean": 0.6, "half_width": None, "values": [0.6]}
    json.dumps(found.to_json(), allow_nan=False)


def test_a_cost_that_scatters_does_not_keep_a_worse_member() -> None:
    found = make_confirmation({0: [0.5, 0.5, 0.51], 1: [0.9, 0.9, 0.91]}, flops={0: [90, 150, 110], 1: [120, 100, 140]})
    assert verdicts(found) == {0: ("beaten", 1), 1: ("confirmed", None)}


def test_means_have_students_intervals() -> None:
    spread = Spread((0.90, 0.92, 0.94))
    assert spread.half_width == pytest.approx(stats.t.ppf(0.975, 2) * 0.02 / math.sqrt(3))
    assert write_spread(ACCURACY, spread) == "92.00 ± 4.97 %"
    assert write_spread(ACCURACY, Spread((0.9, 0.9))) == "90.00 %"
    assert write_spread(ACCURACY, Spread(())) == "–"


def test_luck_and_optimism_have_their_signs() -> None:
    found = make_confirmation({0: [0.48, 0.48, 0.45]})
    (each,) = found.members
    tested = {index: replace(again, test_metrics={"accuracy": 0.45}) for index, again in each.reruns.items()}
    found = Confirmation(found.front, 3, (replace(each, reruns=tested),))
    assert found.estimate_luck(ACCURACY).mean == pytest.approx(0.5 - 0.47)
    assert found.optimism(ACCURACY).mean == pytest.approx(0.02)
    loss = replace(ACCURACY, direction="minimise")
    assert found.optimism(loss).mean == pytest.approx(-0.02)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_table_fits(width: int) -> None:

    console = Console(width=width, record=True, file=io.StringIO())
    console.print(
        confirmation_table(make_confirmation({0: [0.5, 0.51, 0.52], 1: [0.51, 0.5, 0.53], 2: [None, 0.9, None]}))
    )
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "51.00 ± 2.48 %" in text and "as 0" in text and "open: 1 of 3 measured" in " ".join(text.split())


def test_the_band_over_seeds_by_hand() -> None:
    """Two seeds, two members: what both reach, and what one of them reaches."""
    found = make_confirmation({0: [0.5, 0.6], 1: [0.9, 0.7]})
    band = found.attainment()
    assert band["all"] == [{"accuracy": 0.5, "flops": 100.0}, {"accuracy": 0.7, "flops": 200.0}]
    assert band["any"] == [{"accuracy": 0.6, "flops": 100.0}, {"accuracy": 0.9, "flops": 200.0}]
    assert band["half"] == band["any"], "one of two seeds is half of them"
    assert found.to_json()["attainment"] == band


def test_a_seed_whose_network_failed_reaches_less_and_one_seed_has_no_band() -> None:
    found = make_confirmation({0: [0.5, 0.6, None], 1: [0.9, None, 0.8]})
    assert found.attainment()["all"] == [{"accuracy": 0.6, "flops": 200.0}], "the third seed has nothing cheaper"
    assert make_confirmation({0: [0.5], 1: [0.9]}).attainment() == {}
    with pytest.raises(InputError, match="two seeds or more"):
        confirmation_figure(make_confirmation({0: [0.5], 1: [0.9]}))


def test_the_picture_of_the_band_has_every_rerun() -> None:
    found = make_confirmation({0: [0.5, 0.6, 0.55], 1: [0.9, 0.7, 0.8]})
    figure = confirmation_figure(found)
    (axes,) = figure.axes
    reruns = [group for group in axes.collections if str(group.get_label()).endswith("reruns")]
    assert sum(len(np.asarray(group.get_offsets())) for group in reruns) == 6
    assert axes.get_xlabel() == "FLOPs" and "over 3 further seeds" in axes.get_title(loc="left")


def test_with_a_third_objective_the_stairs_never_turn_back() -> None:
    """A dearer network that is worse in accuracy, but smaller, is on the surface and not on the steps."""
    found = make_confirmation({0: [0.5, 0.6], 1: [0.9, 0.7]})
    point = {"accuracy": 0.4, "flops": 300.0}
    bands = {name: [*points, point] for name, points in found.attainment().items()}
    shown = Confirmation(found.front, found.seeds, found.members)
    object.__setattr__(shown, "attainment", lambda: bands)
    (axes,) = confirmation_figure(shown).axes
    (steps,) = axes.lines
    heights = np.asarray(steps.get_ydata(), dtype=float)
    assert (np.diff(heights) >= 0).all()
