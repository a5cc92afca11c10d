from __future__ import annotations

import pytest
from torch import nn

from search.fronts.member import Member
from search.records.outcome import DenseRow
from tests.search.cases import outcome

DENSE = DenseRow({"accuracy": 0.96, "flops": 1000.0, "params": 200.0, "seconds": 3.0, "latency": 0.004})
MEASURED = {"accuracy": 0.9, "flops": 500.0, "params": 50.0, "seconds": 1.5, "latency": 0.003}


def test_numbers_stand_beside_those_of_the_dense_network() -> None:
    member = Member.from_outcome(outcome(4, metrics=MEASURED, test_metrics={"accuracy": 0.89}), DENSE)
    assert (member.trial, member.method, member.accuracy, member.test_accuracy) == (4, "magnitude", 0.9, 0.89)
    assert (member.flops, member.params, member.seconds, member.latency) == (500, 50, 1.5, 0.003)
    assert (member.flops_share, member.params_share, member.latency_share) == (0.5, 0.25, 0.75)
    # Half of the FLOPs would have taken half of the time; it took three quarters.
    assert member.efficiency == pytest.approx(0.5 / 0.75)


def test_what_is_not_known_has_no_share() -> None:
    untimed = DenseRow({"accuracy": 0.96, "flops": 1000.0, "params": 200.0, "seconds": 3.0, "idle": 0.0})
    member = Member.from_outcome(outcome(metrics=MEASURED | {"idle": 1.0}), untimed)
    assert (member.latency, member.latency_share, member.efficiency, member.test_accuracy) == (None, None, None, None)
    assert member.share("idle") is None and member.share("energy") is None


def test_a_network_is_rebuilt_by_the_number_of_its_trial() -> None:
    networks = {2: nn.Identity(), 3: nn.Flatten()}
    assert Member.from_outcome(outcome(3), DENSE, networks.__getitem__).model() is networks[3]
    with pytest.raises(ValueError, match="numbers alone; load_front gives one that can rebuild"):
        Member.from_outcome(outcome(3), DENSE).model()
    assert Member.from_outcome(outcome(3), DENSE, networks.__getitem__) == Member.from_outcome(outcome(3), DENSE)
