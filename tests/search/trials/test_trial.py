from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pytest
import torch

from methods.contract.method import Problem, Pruned
from methods.magnitude import Magnitude
from methods.network.channels import analyse
from methods.network.cost import CostModel
from search.driver.dense_setting import dense_setting
from search.driver.prepare import plan
from search.records.trial_spec import TrialSpec
from search.trials.trial import Setting, run_trial
from tests.search.cases import make_quick_config

POINT: dict[str, bool | int | float | str] = {"sparsity.mode": "flops", "sparsity.flops": 0.5, "sparsity.tilt": 0.0}
SPEC = TrialSpec(3, "magnitude", POINT, seed=11)

WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"ray", "mlflow", "optuna"}:
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Absent())
from dataclasses import replace
from pathlib import Path
from search.study.config_file import load_config
from search.driver.prepare import plan
from search.driver.dense_setting import dense_setting
from search.trials.trial import run_trial
from search.records.trial_spec import TrialSpec

config = load_config(None, ["dense.epochs=1", "finetune.epochs=1"], directory=Path(sys.argv[1]))
setting, _ = dense_setting(plan(config), lambda record, epochs: None)
point = {"sparsity.mode": "flops", "sparsity.flops": 0.5, "sparsity.tilt": 0.0}
outcome = run_trial(setting, TrialSpec(0, "magnitude", point, seed=1)).outcome
assert outcome.state == "complete", outcome.error
print(outcome.metrics["flops"])
"""


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    config = make_quick_config(tmp_path_factory.mktemp("runs"))
    return dense_setting(plan(config), lambda record, epochs: None)[0]


def test_a_trial_needs_neither_ray_nor_mlflow_nor_optuna(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) <= 0.5 * 763520


def test_a_trial_is_a_function_of_setting_and_specification(setting: Setting) -> None:
    first, second = run_trial(setting, SPEC), run_trial(setting, SPEC)
    other = run_trial(setting, TrialSpec(3, "magnitude", POINT, seed=12))
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    assert any(not torch.equal(first.weights[name], other.weights[name]) for name in first.weights)
    timed = {"seconds"}
    assert {k: v for k, v in first.outcome.metrics.items() if k not in timed} == {
        k: v for k, v in second.outcome.metrics.items() if k not in timed
    }


def test_the_dense_network_is_not_changed_and_progress_is_reported(setting: Setting) -> None:
    before = {name: tensor.clone() for name, tensor in setting.model.state_dict().items()}
    records: list[dict[str, float]] = []
    outcome = run_trial(setting, SPEC, records.append).outcome
    assert all(torch.equal(before[name], tensor) for name, tensor in setting.model.state_dict().items())
    assert records == outcome.history and records
    assert outcome.widths["conv1"][1] == 16
    assert outcome.extra["steps"] == setting.steps


def test_a_setting_stays_where_it_is(setting: Setting) -> None:
    moved = replace(setting, device="meta").move_to_device()  # the one other device that there is everywhere
    assert next(moved.model.parameters()).is_meta
    assert not next(setting.model.parameters()).is_meta


def test_a_bad_point_fails_the_trial_with_its_traceback(setting: Setting) -> None:
    finished = run_trial(setting, TrialSpec(0, "magnitude", {"sparsity.mode": "flops", "sparsity.flops": 1.5}, seed=0))
    assert finished.outcome.state == "infeasible" and finished.architecture is None and not finished.weights
    assert finished.outcome.error is not None
    assert "InputError: method Magnitude: sparsity.flops = 1.5 is not allowed" in finished.outcome.error


def test_a_method_that_overspends_fails(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(self: Magnitude, problem: Problem) -> Pruned:
        return Pruned(problem.model, {}, [], steps=problem.steps + 1)

    monkeypatch.setattr(Magnitude, "prune", greedy)
    outcome = run_trial(setting, SPEC).outcome
    assert outcome.state == "failed"
    assert outcome.error is not None and "the comparison is not fair" in outcome.error


@pytest.mark.parametrize("known", [True, False])
def test_the_graph_and_the_cost_model_are_not_made_in_a_trial_or_once(setting: Setting, known: bool) -> None:
    """Calls are counted, not time: by name of the code that runs, from wherever it is called."""
    assert setting.anatomy is not None
    shared = setting if known else replace(setting, anatomy=None)
    watched = {analyse.__code__: "graph", CostModel.__init__.__code__: "cost"}
    calls: list[str] = []

    def count_calls(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code in watched:
            calls.append(watched[frame.f_code])

    for method in ("increg", "spp", "magnitude", "random", "sdprun", "greedy"):
        calls.clear()
        sys.setprofile(count_calls)
        try:
            point = {} if method == "sdprun" else dict(POINT)
            outcome = run_trial(replace(shared, steps=24), TrialSpec(0, method, point, seed=1)).outcome
        finally:
            sys.setprofile(None)
        assert outcome.state == "complete", outcome.error
        assert sorted(calls) == ([] if known else ["cost", "graph"]), method


def test_what_a_trial_reaches_does_not_depend_on_who_found_the_groups(setting: Setting) -> None:
    handed, found = run_trial(setting, SPEC), run_trial(replace(setting, anatomy=None), SPEC)
    assert handed.architecture == found.architecture and handed.kept == found.kept
    assert all(torch.equal(handed.weights[name], found.weights[name]) for name in found.weights)
