"""Sweeps whose trials wait at rungs: what enters the front, what Optuna sees, and what an interruption changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from search.driver.sweep import Sweep
from search.records.outcome import Outcome
from search.store.studies import StudyFiles
from search.study.config import StudyConfig
from search.study.config_file import load_config
from search.workers.inline import InlinePool
from spaces import InputError
from tests.search.cases import make_quick_config

TRIALS = 6


def halving(directory: Path, **changes: Any) -> StudyConfig:
    fields: dict[str, Any] = {
        "trials": TRIALS,
        "name": "s",
        "finetune": {"epochs": 4, "recipe": {"recalibrate": 1, "batch_size": 256}},
        "scheduler": "mo-asha",
        "scheduler_options": {"rungs": [0.2, 0.6]},
    }
    return make_quick_config(directory, **(fields | changes))


def results(files: StudyFiles) -> list[tuple[Any, ...]]:
    return [(o.number, o.method, o.point, o.state, o.metrics.get("accuracy"), len(o.history)) for o in files.outcomes()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StudyFiles:
    directory = tmp_path_factory.mktemp("whole")
    Sweep(halving(directory)).run()
    return StudyFiles(directory, "s")


def test_partial_results_never_enter_the_front(whole: StudyFiles) -> None:
    outcomes = whole.outcomes()
    states = {outcome.state for outcome in outcomes}
    assert len(outcomes) == TRIALS and states == {"complete", "stopped"}
    front = whole.front()
    assert {each.state for each in front.outcomes} == {"complete"}
    stopped = [outcome for outcome in outcomes if outcome.state == "stopped"]
    assert all(not each.metrics and 1 <= len(each.history) < 4 for each in stopped)
    assert all("a rung from which others went on" in (each.error or "") for each in stopped)
    assert whole.list_paused() == [] and not list((whole.root / "checkpoints").glob("*"))
    counts = whole.status()["states"]
    assert counts["stopped"] == len(stopped) and counts["failed"] == counts["waiting"] == 0 and "paused" not in counts


def test_optuna_sees_stopped_trials_as_pruned(whole: StudyFiles) -> None:
    study = optuna.load_study(storage=f"sqlite:///{whole.directory}/optuna.db", study_name="s")
    seen = {trial.user_attrs["number"]: trial for trial in study.trials}
    for outcome in whole.outcomes():
        trial = seen[outcome.number]
        assert trial.state.name == {"complete": "COMPLETE", "stopped": "PRUNED"}[outcome.state]
        if outcome.state == "stopped":
            assert trial.user_attrs["rung_step"] == outcome.history[-1]["step"] and trial.values is None
    assert {trial.number for trial in study.best_trials} <= {n for n, t in seen.items() if t.state.name == "COMPLETE"}


@pytest.mark.parametrize("legs", [3, 6])
def test_a_sweep_that_was_interrupted_ends_as_one_that_was_not(
    tmp_path: Path, whole: StudyFiles, legs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_one, left = InlinePool.run_one, [legs]

    def interrupt(self: InlinePool, *arguments: Any) -> Outcome:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return run_one(self, *arguments)

    monkeypatch.setattr(InlinePool, "run_one", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Sweep(halving(tmp_path)).run()
    if legs == 6:
        (tmp_path / "optuna.db").unlink()
    Sweep.resume("s", tmp_path).run()
    assert results(StudyFiles(tmp_path, "s")) == results(whole)


def test_without_rungs_nothing_changes(tmp_path: Path) -> None:
    Sweep(halving(tmp_path, scheduler="none", scheduler_options={}, trials=2)).run()
    files = StudyFiles(tmp_path, "s")
    assert {outcome.state for outcome in files.outcomes()} == {"complete"} and not (files.root / "paused").exists()


def test_a_scheduler_that_is_wrong_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown scheduler 'asha'; did you mean 'mo-asha'"):
        load_config(None, [], scheduler="asha")
    with pytest.raises(InputError, match="keep = 3 is not a share"):
        Sweep(halving(tmp_path, scheduler_options={"keep": 3})).run()
    assert not (tmp_path / "dense").exists()


@pytest.mark.slow
def test_on_ray_a_sweep_ends_as_in_one_process(tmp_path: Path, whole: StudyFiles) -> None:
    Sweep(halving(tmp_path, resources={"executor": "ray", "max_concurrent": 2})).run()
    assert results(StudyFiles(tmp_path, "s")) == results(whole)
