from __future__ import annotations

import pytest

from search.fronts.attribution import attribute_methods
from search.fronts.front import Front
from search.objectives import load_objectives
from search.records.outcome import DenseRow, Outcome
from search.report.study_view import StudyView
from tests.search.cases import outcome

DENSE = DenseRow({"accuracy": 0.96, "flops": 1000.0, "params": 100.0, "seconds": 3.0})


def trial(number: int, accuracy: float, flops: float, method: str) -> Outcome:
    metrics = {"accuracy": accuracy, "flops": flops, "params": 50.0, "seconds": 1.0}
    return outcome(number, method=method, metrics=metrics)


TRIALS = [
    trial(0, 0.95, 800, "magnitude"),
    outcome(1, error="ValueError: no"),
    trial(2, 0.94, 300, "increg"),
    trial(3, 0.93, 500, "magnitude"),
    trial(4, 0.95, 800, "random"),
]


def view() -> StudyView:
    complete = [each for each in TRIALS if each.state == "complete"]
    return StudyView(Front("s", DENSE, complete, load_objectives("accuracy,flops")), TRIALS, {})


def volume(*numbers: int) -> float:
    """Hypervolume of some trials alone."""
    return Front("part", DENSE, [TRIALS[number] for number in numbers], load_objectives("accuracy,flops")).hypervolume()


def test_the_volume_grows_with_what_was_measured() -> None:
    growth = view().growth
    assert [count for count, _ in growth] == [1, 2, 3, 4, 5]
    wanted = [volume(0), volume(0), volume(0, 2), volume(0, 2, 3), volume(0, 2, 3, 4)]
    assert [found for _, found in growth] == pytest.approx(wanted)
    assert growth[1][1] < growth[2][1] == growth[4][1]


def test_each_method_has_the_volume_that_only_it_reaches() -> None:
    shares = {share.method: share for share in attribute_methods(view().front)}
    assert {method: (share.members, share.trials) for method, share in shares.items()} == {
        "increg": (1, 1),
        "magnitude": (1, 2),
        "random": (0, 1),
    }
    assert shares["increg"].lost == pytest.approx(volume(0, 2) - volume(0, 3, 4))
    assert shares["magnitude"].lost == 0.0 and shares["random"].lost == 0.0, (
        "either one has trial 0's place without the other"
    )


def test_a_member_leads_to_its_trial() -> None:
    shown = view()
    assert shown.name == "s"
    assert [shown.outcome(member).number for member in shown.front.members] == [2, 0]
