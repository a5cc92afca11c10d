"""Trials that are killed, paused and stopped: what is on disk, and what is run again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from methods.contract.session import Decision, Paused, Rung, Saved
from search.driver.dense_setting import dense_setting
from search.driver.prepare import plan
from search.records.trial_spec import TrialSpec
from search.store.studies import StudyFiles
from search.trials.checkpoint import checkpoint_folder, open_checkpoints
from search.trials.trial import Setting, run_trial
from search.workers.finish import finish_trial
from spaces import Value
from tests.search.cases import make_quick_config

POINT: dict[str, Value] = {"sparsity.mode": "flops", "sparsity.flops": 0.5, "sparsity.tilt": 0.0}
SPEC = TrialSpec(3, "magnitude", POINT, seed=11)


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    config = make_quick_config(tmp_path_factory.mktemp("runs"), finetune={"epochs": 4})
    return dense_setting(plan(config), lambda record, epochs: None)[0]


def test_a_killed_trial_repeats_no_epoch_that_has_ended(setting: Setting, tmp_path: Path) -> None:
    whole = run_trial(setting, SPEC)
    asked: list[int] = []

    def kill_after_three(rung: Rung) -> Decision:
        asked.append(int(rung.record["epoch"]))
        if len(asked) == 3:
            raise Killed
        return "continue"

    with pytest.raises(Killed):
        run_trial(setting, SPEC, session=Saved(open_checkpoints(tmp_path, setting, SPEC), kill_after_three))
    again = run_trial(setting, SPEC, session=Saved(open_checkpoints(tmp_path, setting, SPEC), kill_after_three))
    assert asked == [1, 2, 3, 4]
    assert again.outcome.history == whole.outcome.history
    assert all(torch.equal(value, again.weights[name]) for name, value in whole.weights.items())
    assert {**again.outcome.metrics, "seconds": 0} == {**whole.outcome.metrics, "seconds": 0}


def test_states_of_another_trial_are_not_taken_up(setting: Setting, tmp_path: Path) -> None:
    open_checkpoints(tmp_path / "a", setting, SPEC).put("finetune", b"state")
    assert open_checkpoints(tmp_path / "a", setting, SPEC).get("finetune") == b"state"
    other = TrialSpec(3, "magnitude", POINT, seed=12)
    assert open_checkpoints(tmp_path / "a", setting, other).get("finetune") is None


def test_a_stopped_trial_has_an_outcome_and_a_paused_one_goes_on(setting: Setting, tmp_path: Path) -> None:
    stopped = run_trial(setting, SPEC, session=Saved(open_checkpoints(tmp_path, setting, SPEC), lambda rung: "stop"))
    assert stopped.outcome.state == "stopped" and not stopped.outcome.complete
    assert stopped.outcome.error is not None and stopped.outcome.error.startswith("told to stop at step")
    (record,) = stopped.outcome.history
    assert record["comparable"] == 1 and {"loss", "val_loss", "accuracy"} <= record.keys()
    with pytest.raises(Paused):
        run_trial(setting, SPEC, session=Saved(open_checkpoints(tmp_path, setting, SPEC), lambda rung: "pause"))
    assert run_trial(setting, SPEC, session=Saved(open_checkpoints(tmp_path, setting, SPEC))).outcome.complete


def test_a_worker_keeps_rungs_until_the_outcome_is_written(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = StudyFiles(tmp_path, "s")
    folder = checkpoint_folder(files.root, SPEC.number)
    write = StudyFiles.write

    def write_while_kept(self: StudyFiles, *finished: object) -> None:
        assert any(folder.glob("*.pt"))
        write(self, *finished)  # type: ignore[arg-type]

    monkeypatch.setattr(StudyFiles, "write", write_while_kept)
    assert finish_trial(setting, SPEC, files).complete
    assert not folder.exists()
