"""Studies that are moved, renamed, deleted, checked and mirrored; and MLflow stores that cannot be used."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import filelock
import optuna
import pytest
from mlflow import MlflowClient

from paretoprune import Sweep
from search.driver import keeping
from search.driver.mirror import mirror_study
from search.store.studies import StudyFiles, study_names
from spaces import InputError
from tests.search.cases import make_quick_config
from tests.search.driver.test_reconciliation import Heard, resume


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs")
    Sweep(make_quick_config(directory, name="a", trials=2)).run()
    return directory


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs"))


def trials_in(uri: str) -> list[str]:
    """The trials of study "a" that an MLflow store has, with how they ended."""
    client = MlflowClient(uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.kind = 'trial' and tags.sweep = 'a'")
    return sorted(f"{run.data.tags['trial']} {run.info.status}" for run in runs)


def list_unexpected(heard: Heard) -> list[str]:
    """What was warned of, but for the hypervolume: networks trained for an epoch lose more than it looks at."""
    return [text for text in heard.warnings if "max_drop" not in text]


def test_a_store_that_was_copied_goes_on_with_its_mlflow_runs(store: Path) -> None:
    heard = resume(store)
    assert list_unexpected(heard) == [] and heard.ran == []
    assert trials_in(f"sqlite:///{store}/mlflow.db") == ["0 FINISHED", "1 FINISHED"]


def test_a_damaged_mlflow_database_is_made_again(store: Path) -> None:
    (store / "mlflow.db").write_bytes(b"garbage" * 500)
    heard = resume(store)
    assert any("MLflow's database was damaged and is now mlflow.db.damaged-" in text for text in heard.warnings)
    assert trials_in(f"sqlite:///{store}/mlflow.db") == ["0 FINISHED", "1 FINISHED"]


def test_a_deleted_experiment_does_not_keep_a_study_from_going_on(store: Path) -> None:
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    experiment = client.get_experiment_by_name("paretoprune")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    heard = Heard()
    Sweep.resume("a", store, heard, trials=3).run()
    assert heard.ran == [2]
    assert "was deleted; restore it with" in heard.warnings[0] and "goes on without MLflow" in heard.warnings[0]
    assert heard.warnings[-1].endswith("`paretoprune mirror a` sends what is missing")


def test_an_mlflow_server_that_is_gone_is_refused_at_first_and_a_warning_later(store: Path) -> None:
    heard = Heard()
    Sweep.resume("a", store, heard, trials=3, moved={"tracking_uri": "http://127.0.0.1:9"}).run()
    assert heard.ran == [2] and "nothing answers at the tracking URI" in heard.warnings[0]
    with pytest.raises(InputError, match="nothing answers at the tracking URI"):
        Sweep(make_quick_config(store, name="b", tracking_uri="http://127.0.0.1:9")).run()


def test_the_mirror_can_be_made_again_anywhere(store: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/other.db"
    delivery = mirror_study(StudyFiles.open(store, "a"), uri)
    assert delivery.lost == 0 and trials_in(uri) == ["0 FINISHED", "1 FINISHED"]
    assert mirror_study(StudyFiles.open(store, "a"), uri).lost == 0
    assert trials_in(uri) == ["0 FINISHED", "1 FINISHED"], "nothing is sent twice"


def test_a_study_is_renamed_everywhere(store: Path) -> None:
    keeping.rename(store, "a", "better")
    assert study_names(store) == ["better"]
    assert optuna.get_all_study_names(f"sqlite:///{store}/optuna.db") == ["better"]
    heard = Heard()
    Sweep.resume("better", store, heard).run()
    assert heard.ran == [] and list_unexpected(heard) == []
    with pytest.raises(InputError, match="study 'better' exists"):
        keeping.rename(store, "better", "better")
    with pytest.raises(InputError, match="is not allowed"):
        keeping.rename(store, "better", "../up")


def test_a_study_is_deleted_everywhere_and_its_name_is_free(store: Path) -> None:
    with StudyFiles(store, "a").lock(), pytest.raises(InputError, match="is being run by another process"):
        keeping.delete(store, "a")
    shutil.rmtree(store / "studies" / "a")
    assert keeping.delete(store, "a") == [f"its trials in {store}/optuna.db"]
    with pytest.raises(InputError, match="unknown study 'a'"):
        keeping.delete(store, "a")
    assert optuna.get_all_study_names(f"sqlite:///{store}/optuna.db") == []


def test_a_check_finds_what_is_wrong_and_writes_nothing(store: Path) -> None:
    files = StudyFiles.open(store, "a")
    assert keeping.check(files) == []
    weights = files.folder(0) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    shutil.rmtree(files.folder(1))
    before = sorted(store.rglob("*"))
    damaged, gone = keeping.check(files)
    assert "0000/weights.safetensors cannot be read" in damaged and gone.startswith(
        "trial 1 was finished, but its folde"
    )
    (store / "optuna.db").unlink()
    assert "optuna.db is gone" in keeping.check(files)[-1]
    assert set(before) - set(store.rglob("*")) == {store / "optuna.db"}


def test_a_trial_that_is_given_up_runs_again(store: Path) -> None:
    files = StudyFiles.open(store, "a")
    first = files.outcome(1)
    keeping.give_up(files, 1)
    assert resume(store).ran == [1]
    assert files.outcome(1).metrics["accuracy"] == first.metrics["accuracy"]
    assert files.outcome(1).started > first.started
    with pytest.raises(InputError, match="trial 7 of study 'a' is not finished"):
        keeping.give_up(files, 7)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_store_that_may_only_be_read_is_checked(number: int, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    assert keeping.check(StudyFiles.open(store, "a")) == []
