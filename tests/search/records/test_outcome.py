"""Outcomes and the dense row: what is refused, and that nothing is lost on the way through JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.records.outcome import MEASURED, DenseRow, Outcome
from tests.search.cases import outcome

finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(min_size=1, max_size=8)
values = st.booleans() | st.integers(-(2**53), 2**53) | finite | st.text(max_size=8)
measured = st.fixed_dictionaries({name: finite for name in MEASURED})
complete_outcomes = st.builds(
    Outcome,
    number=st.integers(0, 10**6),
    method=names,
    point=st.dictionaries(names, values, max_size=3),
    state=st.just("complete"),
    metrics=measured,
    history=st.lists(st.dictionaries(names, finite, max_size=3), max_size=3),
    widths=st.dictionaries(names, st.tuples(st.integers(0, 512), st.integers(1, 512)), max_size=3),
    extra=st.dictionaries(names, finite, max_size=3),
    seed=st.integers(0, 2**32),
    error=st.none(),
    started=finite,
    seconds=finite,
    test_metrics=st.dictionaries(names, finite, max_size=2),
)


def pass_through_json(data: object) -> Any:
    return json.loads(json.dumps(data, allow_nan=False))


@given(complete_outcomes)
def test_an_outcome_survives_json(given_outcome: Outcome) -> None:
    assert Outcome.from_json(pass_through_json(given_outcome.to_json())) == given_outcome


def test_numbers_that_json_does_not_know_survive_it() -> None:
    diverged = outcome(
        error="Traceback …\nDiverged: loss is nan\n",
        metrics={"accuracy": math.nan},
        history=[{"epoch": 1.0, "loss": math.inf}, {"epoch": 2.0, "loss": math.nan}],
        extra={"slope": -math.inf},
    )
    back = Outcome.from_json(pass_through_json(diverged.to_json()))
    assert back.history[0] == {"epoch": 1.0, "loss": math.inf}
    assert math.isnan(back.history[1]["loss"])
    assert math.isnan(back.metrics["accuracy"])
    assert back.extra == {"slope": -math.inf}
    assert back.error == diverged.error


def test_keys_of_later_versions_are_passed_over() -> None:
    assert Outcome.from_json(outcome().to_json() | {"colour": "blue"}) == outcome()


def test_what_is_missing_is_named() -> None:
    data = outcome().to_json()
    del data["method"], data["seed"]
    with pytest.raises(ValueError, match="this is no Outcome: it lacks method, seed"):
        Outcome.from_json(data)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_complete_outcome_has_finite_metrics(bad: float) -> None:
    metrics = {"accuracy": 0.9, "flops": 1.0, "params": 1.0, "seconds": bad}
    with pytest.raises(ValueError, match=r"trial 3 is complete but seconds = .* is not finite"):
        outcome(3, metrics=metrics)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": {"accuracy": 0.9}}, "lack 'flops'"),
        ({"state": "done"}, "'done' is none of complete, failed"),
        ({"state": "failed"}, "failed but has no error text"),
        ({"state": "complete", "error": "boom"}, "complete but has an error text"),
    ],
)
def test_states_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        outcome(**changes)


@given(
    st.builds(
        DenseRow.from_metrics,
        mean_iou=st.floats(0, 1),
        flops=st.integers(1, 10**13),
        params=st.integers(1, 10**12),
        seconds=st.floats(0, 1e9),
        test_metrics=st.dictionaries(names, finite, max_size=2),
    )
)
def test_a_dense_row_survives_json(row: DenseRow) -> None:
    assert DenseRow.from_json(pass_through_json(row.to_json())) == row


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy": 97.8}, "97.8 of the dense network is not in 0..1"),
        ({"accuracy": math.nan}, "not in 0..1"),
        ({"flops": 0}, "0 FLOPs"),
        ({"params": -1}, "-1 parameters"),
        ({"seconds": math.inf}, "is not a time"),
    ],
)
def test_a_dense_row_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"accuracy": 0.98, "flops": 1000, "params": 100, "seconds": 9.0}
    with pytest.raises(ValueError, match=message):
        DenseRow.from_metrics(**(fields | changes))


def test_a_dense_row_without_a_usual_number_is_refused() -> None:
    with pytest.raises(ValueError, match="lack 'params'"):
        DenseRow.from_metrics(r2=0.9, flops=10, seconds=1.0)
    with pytest.raises(ValueError, match="this is no DenseRow: it lacks flops, params"):
        DenseRow.from_json({"accuracy": 0.9, "seconds": 1.0})


def test_records_of_an_earlier_version_are_read() -> None:
    """Accuracy stood where all metrics stand now."""
    earlier = {"accuracy": 0.98, "flops": 1000, "params": 100, "seconds": 9.0, "test_accuracy": 0.97, "latency": None}
    row = DenseRow.from_json(earlier)
    assert row == DenseRow.from_metrics(
        accuracy=0.98, flops=1000, params=100, seconds=9.0, test_metrics={"accuracy": 0.97}
    )
    assert {key: row.to_json()[key] for key in earlier} == earlier
    data = outcome().to_json()
    del data["test_metrics"]
    assert Outcome.from_json(data | {"test_accuracy": 0.89}).test_metrics == {"accuracy": 0.89}
    assert Outcome.from_json(data | {"test_accuracy": None}).test_metrics == {}


def test_a_task_without_an_accuracy_has_none_in_its_json() -> None:
    measured = {"mean_iou": 0.6, "flops": 500.0, "params": 50.0, "seconds": 1.5}
    assert "test_accuracy" not in outcome(metrics=measured).to_json()
    row = DenseRow(measured)
    assert {"accuracy", "test_accuracy"}.isdisjoint(row.to_json())
    assert DenseRow.from_json(row.to_json()) == row
