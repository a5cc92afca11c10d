"""Searching by what a method predicts: no training, and only where there is a prediction."""

from __future__ import annotations

from pathlib import Path

import pytest

from methods import METHODS, load_method
from methods.eigendamage.method import EigenDamage
from paretoprune import Sweep
from search.driver.prepare import plan
from search.objectives import OBJECTIVES, load_objectives, require_reports
from search.objectives.predicted_damage import is_predicted_by
from search.records.trial_spec import TrialSpec
from search.report.plane import planes
from search.trials.trial import run_trial
from spaces import InputError, Value
from tests.search.cases import make_quick_config

SKETCH = {"objectives": ["predicted_damage", "flops"], "methods": ["eigendamage"], "finetune": {"recipe": {}}}
FIXED = {"eigendamage": {"variant": "eigendamage", "rounds": 1, "fisher_samples": 512}}


def test_a_sweep_by_prediction_trains_nothing(tmp_path: Path) -> None:
    config = make_quick_config(tmp_path, **SKETCH, trials=2, sampler="defaults", shares=[0.75, 0.25], space=FIXED)
    sweep = Sweep(config)
    assert sweep.plan().steps == 0
    front = sweep.run()
    for outcome in front.outcomes:
        assert outcome.history == [] and outcome.extra["steps"] == 0
        assert outcome.metrics["predicted_damage"] == outcome.extra["predicted_damage"] > 0
        assert outcome.metrics["accuracy"] == outcome.extra["accuracy_cut"], "nothing happened after the cut"
    by_flops = sorted(front.members, key=lambda member: member.flops)
    damages = [member.metrics["predicted_damage"] for member in by_flops]
    assert len(damages) == 2 and damages == sorted(damages, reverse=True), "less harm costs more"
    assert 0 < front.hypervolume() < 1
    (drawn,) = planes(front)
    assert (drawn.up.objective.name, drawn.across.objective.name) == ("predicted_damage", "flops")


def test_budget_is_none_only_where_training_changes_nothing(tmp_path: Path) -> None:
    assert plan(make_quick_config(tmp_path, **SKETCH | {"finetune": {"epochs": 0.5}})).steps > 0
    with_accuracy = SKETCH | {"objectives": ["accuracy", "predicted_damage", "flops"]}
    assert plan(make_quick_config(tmp_path, **with_accuracy)).steps > 0


def test_methods_without_a_prediction_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    config = make_quick_config(tmp_path, **SKETCH | {"methods": ["eigendamage", "magnitude", "random"]})
    message = r"'predicted_damage' is known to some methods only \(eigendamage\), not to magnitude, random"
    with pytest.raises(InputError, match=message):
        plan(config)
    assert list(tmp_path.iterdir()) == []


def test_every_method_that_predicts_says_so_by_its_preview() -> None:
    assert [name for name in METHODS if is_predicted_by(load_method(name))] == ["eigendamage"]
    require_reports(load_objectives("accuracy,flops"), {"magnitude": load_method("magnitude")})
    require_reports([OBJECTIVES["predicted_damage"]], {"eigendamage": EigenDamage})


def test_a_promise_that_is_not_kept_fails_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from search.driver.dense_setting import dense_setting
    from search.trials import trial

    whole = trial._prune

    def predict_nothing(*given: object) -> object:
        pruned = whole(*given)  # type: ignore[arg-type]
        del pruned.extra["predicted_damage"]  # type: ignore[attr-defined]
        return pruned

    setting, _ = dense_setting(plan(make_quick_config(tmp_path, **SKETCH)), lambda record, epochs: None)
    monkeypatch.setattr(trial, "_prune", predict_nothing)
    point: dict[str, Value] = {"sparsity.mode": "flops", "sparsity.flops": 0.5, "sparsity.tilt": 0.0}
    finished = run_trial(setting, TrialSpec(0, "eigendamage", point | {"fisher_samples": 512}, seed=0))
    assert finished.outcome.state == "failed"
    assert "RuntimeError: the method did not report predicted_damage" in str(finished.outcome.error)
