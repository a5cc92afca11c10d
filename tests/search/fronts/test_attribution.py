from __future__ import annotations

import pytest

from search.fronts.attribution import attribute_methods
from search.fronts.front import Front
from search.objectives import load_objectives
from search.records.outcome import DenseRow, Outcome
from tests.search.cases import outcome

DENSE = DenseRow.from_metrics(accuracy=0.98, flops=1000, params=200, seconds=8.0)


def trial(number: int, method: str, accuracy: float, flops: float) -> Outcome:
    metrics = {"accuracy": accuracy, "flops": flops, "params": 50.0, "seconds": 1.5}
    return outcome(number, method=method, metrics=metrics)


def test_what_a_front_loses_without_a_method() -> None:
    tried = [trial(0, "spp", 0.98, 500), trial(1, "increg", 0.96, 100), trial(2, "random", 0.93, 900)]
    front = Front("s", DENSE, tried, load_objectives("accuracy,flops"))
    shares = attribute_methods(front)
    alone = {
        each.method: Front("s", DENSE, [t for t in tried if t.method != each.method], front.objectives)
        for each in shares
    }
    for share in shares:
        assert share.lost == pytest.approx(front.hypervolume() - alone[share.method].hypervolume())
    assert [share.method for share in shares] == ["increg", "spp", "random"]
    assert [(share.trials, share.members) for share in shares] == [(1, 1), (1, 1), (1, 0)]
    assert shares[-1].lost == 0.0
