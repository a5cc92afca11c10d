"""One parameter from the user's file to the front: IncReg's ``penalty_max`` keeps its name all the way."""

from __future__ import annotations

from pathlib import Path

import mlflow
import optuna

from methods import load_method
from paretoprune import StudyFiles, Sweep, load_config
from search.study.space import METHOD


def test_penalty_max_from_file_to_front(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(
        'name = "walk"\nmethods = ["increg"]\ntrials = 1\n'
        "[space.increg.penalty_max]\nlow = 1.5\nhigh = 2.5\n[finetune]\nepochs = 6\n[dense]\nepochs = 1\n"
    )
    config = load_config(
        file, ["space.increg.penalty_max.high=2.0", "exports=[]"], executor="inline", directory=tmp_path / "runs"
    )
    assert config.space["increg"] == {"penalty_max": {"low": 1.5, "high": 2.0}}

    sweep = Sweep(config)
    parameter = sweep.plan().space["increg.penalty_max"].to_json()
    assert (parameter["low"], parameter["high"]) == (1.5, 2.0)

    front = sweep.run()
    outcome = StudyFiles.open(tmp_path / "runs", "walk").outcome(0)
    assert outcome.state == "complete", outcome.error
    value = outcome.point["penalty_max"]
    assert isinstance(value, float) and 1.5 <= value <= 2.0
    assert load_method("increg").from_point(outcome.point).model_dump()["penalty_max"] == value

    trial = optuna.load_study(study_name="walk", storage=f"sqlite:///{tmp_path}/runs/optuna.db").trials[0]
    assert trial.params["increg.penalty_max"] == value
    assert trial.params[METHOD] == "increg"
    run = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db").search_runs(["1"], "tags.kind = 'trial'")[0]
    assert float(run.data.params["penalty_max"]) == value
    assert front.to_json()["members"][0]["point"]["penalty_max"] == value
    assert front.table()["point.penalty_max"].dropna().tolist() == [value]
