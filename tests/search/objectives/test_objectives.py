"""Objectives: looking them up, normalising, writing, measuring."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from methods.contract.classification import Classification
from methods.contract.task import Metric, Task
from methods.training.evaluation import Evaluation
from search.objectives import OBJECTIVES, MeasureContext, Objective, load_objectives
from search.objectives.quality import measure_quality
from search.objectives.seconds import UNKNOWN_TRAINING_SECONDS
from search.objectives.testing import check_objective
from search.objectives.units import write_count, write_duration, write_latency
from search.records.outcome import DenseRow
from search.tasks.data.splits import TensorSplit
from spaces import InputError

DENSE = DenseRow.from_metrics(accuracy=0.98, flops=1_000_000, params=50_000, seconds=20.0, latency=0.002)


class EightDigits:
    """Eight labelled images, of which a network that always answers 1 gets three right."""

    examples = 8
    labels = torch.tensor([1, 0, 1, 2, 1, 0, 0, 2])

    def steps(self, batch_size: int) -> int:
        return 1

    def epoch(self, batch_size: int, seed: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return self.batches(batch_size)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.zeros(5, 2, 4, 4), self.labels[:5]
        yield torch.zeros(3, 2, 4, 4), self.labels[5:]

    def to(self, device: torch.device | str) -> EightDigits:
        return self


def network() -> nn.Module:
    classifier = nn.Linear(5, 3)
    nn.init.zeros_(classifier.weight)
    classifier.bias.data = torch.tensor([0.0, 1.0, 0.0])
    return nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier)


def measure_objective(name: str) -> float:
    measure = OBJECTIVES[name].measure
    assert measure is not None
    return measure(MeasureContext(network(), torch.zeros(1, 2, 4, 4), EightDigits(), Classification()))


def test_accuracy_is_the_share_of_right_answers() -> None:
    assert measure_objective("accuracy") == 3 / 8


def test_flops_are_multiply_accumulates_of_one_input() -> None:
    assert measure_objective("flops") == 5 * 2 * 9 * 16 + 5 * 3


def test_parameters_are_counted() -> None:
    assert measure_objective("params") == (5 * 2 * 9 + 5) + (5 * 3 + 3)


@pytest.mark.parametrize("name", ["seconds", "latency", "predicted_damage"])
def test_what_the_trial_times_is_not_measured_on_a_network_alone(name: str) -> None:
    assert OBJECTIVES[name].measure is None


def test_without_the_dense_latency_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(ValueError, match="the latency of this study.s dense network was not measured"):
        OBJECTIVES["latency"].gain(0.001, DenseRow.from_metrics(accuracy=0.98, flops=1, params=1, seconds=0.0))


@given(st.floats(1e-6, 900.0))
def test_a_latency_is_written_with_three_digits(seconds: float) -> None:
    number, _, unit = write_latency(seconds).partition(" ")
    assert math.isclose(float(number) * {"s": 1.0, "ms": 1e-3, "us": 1e-6}[unit], seconds, rel_tol=0.0051)
    assert len(number.replace(".", "")) <= 3


@pytest.mark.parametrize("given_names", ["accuracy,flops", " accuracy , flops,", ["accuracy", "flops"]])
def test_objectives_are_looked_up_in_order(given_names: str | list[str]) -> None:
    assert load_objectives(given_names) == (OBJECTIVES["accuracy"], OBJECTIVES["flops"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("accuracy,flop", r"unknown objective 'flop'; did you mean 'flops'\? \(known: accuracy, flops,"),
        ("accuracy,flops,accuracy", "objective 'accuracy' is given twice"),
        ("accuracy", r"at least two objectives, given: accuracy \(example: accuracy,flops\)"),
        ("", "at least two objectives, given: none"),
        ("flops,params", r"with flops, params alone the smallest network .* \(accuracy, predicted_damage\)"),
    ],
)
def test_objectives_that_make_no_front_are_refused(names: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_objectives(names)


def test_names_are_the_keys() -> None:
    assert [objective.name for objective in OBJECTIVES.values()] == list(OBJECTIVES)


@pytest.mark.parametrize(
    ("name", "worst"), [("accuracy", 0.0), ("flops", 1e6), ("params", 5e4), ("seconds", 20.0), ("latency", 0.002)]
)
def test_gain_is_one_at_the_ideal_and_nothing_at_the_worst(name: str, worst: float) -> None:
    objective = OBJECTIVES[name]
    assert objective.gain(objective.ideal, DENSE) == 1
    assert objective.gain(worst, DENSE) == 0


@given(st.sampled_from(list(OBJECTIVES.values())), st.floats(0, 1), st.floats(0, 1))
def test_gain_rises_where_the_objective_says(objective: Objective, a: float, b: float) -> None:
    worse, better = sorted((a, b), reverse=not objective.maximise)
    assert objective.gain(worse, DENSE) <= objective.gain(better, DENSE)


def test_a_dense_network_that_came_with_its_weights_has_a_reference_time() -> None:
    untrained = DenseRow.from_metrics(accuracy=0.98, flops=1, params=1, seconds=0.0)
    assert OBJECTIVES["seconds"].reference(untrained) == UNKNOWN_TRAINING_SECONDS
    assert OBJECTIVES["seconds"].gain(UNKNOWN_TRAINING_SECONDS / 4, untrained) == 0.75


@given(st.floats(0.5, 9.9e14))
def test_a_count_is_written_with_three_digits(count: float) -> None:
    number, _, unit = write_count(count).partition(" ")
    factor = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[unit]
    assert math.isclose(float(number) * factor, count, rel_tol=0.0051, abs_tol=0.5)
    assert len(number.replace(".", "")) <= 3


@pytest.mark.parametrize(("seconds", "text"), [(59.96, "1 min 00 s"), (3599.7, "1 h 00 min"), (7260.0, "2 h 01 min")])
def test_times_carry_over(seconds: float, text: str) -> None:
    assert write_duration(seconds) == text


def test_reading_fronts_imports_no_heavy_library() -> None:
    heavy = ("torch", "ray", "mlflow", "optuna", "pandas", "plotly", "matplotlib")
    read = "search.objectives, search.records.outcome, search.fronts.front, search.report.tables, search.report.plots"
    code = f"import sys, {read}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_objective_that_training_changes_is_one_of_quality() -> None:
    """Otherwise a study without training could be one that only looks for small networks."""
    assert {name for name, objective in OBJECTIVES.items() if objective.quality} == {"accuracy", "predicted_damage"}
    assert {name for name, objective in OBJECTIVES.items() if objective.trained} == {"accuracy"}


def test_a_metric_of_a_task_is_an_objective() -> None:
    (accuracy,) = Classification().metrics
    made = Objective.from_metric(accuracy)
    assert made == OBJECTIVES["accuracy"].__class__(**{**OBJECTIVES["accuracy"].to_json(), "unit": ""})
    context = MeasureContext(network(), torch.zeros(1, 2, 4, 4), EightDigits(), Classification())
    assert made.measure is not None and made.measure(context) == 3 / 8
    error = Objective.from_metric(Metric("rmse", "RMSE", "minimize", unit="K", ideal=0.0))
    assert (error.maximise, error.quality, error.ideal) == (False, True, 0.0)
    dense = DenseRow(DENSE.metrics | {"rmse": 4.0})
    assert error.gain(1.0, dense) == 0.75, "no worse than the dense network"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "my energy"}, "an objective cannot be called 'my energy': use letters"),
        ({"name": "drop"}, "cannot be called 'drop'"),
        ({"direction": "down"}, "direction 'down' is not 'maximise' or 'minimise'"),
        ({"direction": "maximise"}, "objective 'energy' is maximised: give its ideal"),
        ({"style": "joules"}, "style 'joules' writes no number; take 'count'"),
    ],
)
def test_an_objective_that_cannot_be_shown_is_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Objective(**{"name": "energy", "title": "energy", "direction": "minimise", **changes})  # type: ignore[arg-type]


@given(st.sampled_from(list(OBJECTIVES.values())))
def test_a_description_survives_json(objective: Objective) -> None:
    assert Objective.from_json(objective.to_json() | {"later": 1}) == objective


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("accuracy", "95%", 0.95),
        ("flops", "50%", 500_000),
        ("params", "20k", 20_000),
        ("latency", "50%", 0.001),
        ("seconds", "2s", 2.0),
        ("predicted_damage", "0.1", 0.1),
        ("predicted_damage", "1e-3", 0.001),
    ],
)
def test_a_limit_is_written_as_the_values_are(name: str, text: str, limit: float) -> None:
    assert OBJECTIVES[name].parse_limit(text, DENSE, f"limit {name}") == pytest.approx(limit)


@pytest.mark.parametrize("text", ["much", "nan", "50%", "0.1 J"])
def test_a_number_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="max-predicted_damage: .* is not a limit; write a number, such as '0.25'"):
        OBJECTIVES["predicted_damage"].parse_limit(text, DENSE, "max-predicted_damage")


def test_a_cost_of_ones_own_may_be_limited_by_a_share() -> None:
    energy = Objective(name="energy", title="energy", direction="minimise", style=".3g", unit="J")
    dense = DenseRow(DENSE.metrics | {"energy": 8.0})
    assert energy.parse_limit("25%", dense, "max-energy") == 2.0
    assert energy.gain(2.0, dense) == 0.75
    with pytest.raises(InputError, match="or a share of the dense network's 8, such as '50%'"):
        energy.parse_limit("few", dense, "max-energy")


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=list(OBJECTIVES))
def test_ours_keep_the_contract(objective: Objective) -> None:
    context = MeasureContext(network(), torch.zeros(1, 2, 4, 4), EightDigits(), Classification())
    check_objective(objective, context, DENSE)


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"measure": lambda context: math.nan}, "is not a finite number"),
        ({"measure": lambda context: torch.rand(()).item()}, "a search would chase the noise"),
        ({"measure": lambda context: float(context.model[0].weight.data.add_(1).numel())}, "measuring changed"),
        ({"ideal": 9.0, "worst": 3.0}, "its ideal lies on the side of the worse values"),
        ({"worst": 0.0}, "nothing can be gained"),
    ],
)
def test_the_contract_finds_what_is_broken(changes: dict[str, Any], broken: str) -> None:
    context = MeasureContext(network(), torch.zeros(1, 2, 4, 4), EightDigits(), Classification())
    objective = Objective(**{"name": "energy", "title": "energy", "direction": "minimise", "worst": 5.0, **changes})
    with pytest.raises(AssertionError, match=broken):
        check_objective(objective, context, DENSE)


def test_quality_is_measured_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def note(model: nn.Module, split: TensorSplit, task: Task) -> Evaluation:
        seen.append((next(model.parameters()).device.type, split.inputs.device.type))
        return Evaluation(0.0, {"accuracy": 1.0})

    monkeypatch.setattr("methods.training.evaluation.evaluate", note)
    model = nn.Linear(4, 2)
    split = TensorSplit(torch.zeros(3, 4), torch.zeros(3, dtype=torch.long), [0.0] * 4, [1.0] * 4)
    for device in (None, "meta"):  # the one other device that there is everywhere
        assert measure_quality(model, split, Classification(), device) == {"accuracy": 1.0}
    assert seen == [("cpu", "cpu"), ("meta", "meta")] and not model.weight.is_meta
