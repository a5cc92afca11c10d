"""Stores that were damaged or taken apart are taken up again, and say so."""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
import pytest

from paretoprune import Sweep
from search.records.listener import NullListener
from search.store.studies import StudyFiles
from spaces import InputError
from tests.search.cases import make_quick_config


class Heard(NullListener):
    """Keeps warnings and the numbers of the trials that ran."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.ran: list[int] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def trial_started(self, number: int, method: str) -> None:
        self.ran.append(number)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs")
    Sweep(make_quick_config(directory, name="a", trials=4)).run()
    return directory


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs"))


def resume(directory: Path) -> Heard:
    heard = Heard()
    Sweep.resume("a", directory, heard).run()
    return heard


def results(directory: Path) -> list[tuple[object, ...]]:
    outcomes = StudyFiles.open(directory, "a").outcomes()
    return [(o.number, o.method, o.point, o.seed, o.metrics["accuracy"], o.metrics["flops"]) for o in outcomes]


@pytest.mark.parametrize(
    "content", [None, b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 4000], ids=["lost", "garbage", "torn"]
)
def test_a_database_that_is_lost_or_damaged_is_rebuilt(finished: Path, store: Path, content: bytes | None) -> None:
    database = store / "optuna.db"
    if content is None:
        database.unlink()
    else:
        database.write_bytes(content)
    heard = resume(store)
    assert heard.ran == [] and results(store) == results(finished)
    assert "trials 0, 1, 2, 3: finished, but not in Optuna's storage; taken up there again" in heard.warnings
    aside = list(store.glob("optuna.db.damaged-*"))
    assert len(aside) == (content is not None) == any("is now optuna.db.damaged" in text for text in heard.warnings)
    trials = optuna.load_study(study_name="a", storage=f"sqlite:///{database}").trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4


def test_trials_that_were_removed_or_damaged_run_again_and_give_the_same(finished: Path, store: Path) -> None:
    trials = store / "studies" / "a" / "trials"
    shutil.rmtree(trials / "0001")
    (trials / "0002" / "outcome.json").write_text("{")
    weights = trials / "0003" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    heard = resume(store)
    assert heard.ran == [1, 2, 3] and results(store) == results(finished)
    assert [text.partition(":")[0] for text in heard.warnings] == [
        "trial 2 runs again", "trial 3 runs again", "trials 1, 2, 3"
    ]  # fmt: skip
    assert len(list((store / "studies" / "a" / "damaged").iterdir())) == 2
    assert StudyFiles.open(store, "a").status()["states"]["waiting"] == 0


def test_a_study_copied_into_another_store_goes_on_there(finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished / "studies" / "a", other / "studies" / "a")
    shutil.copytree(finished / "dense", other / "dense")
    heard = resume(other)
    assert heard.ran == [] and results(other) == results(finished)


def test_a_name_whose_folder_is_gone_is_refused_before_anything_is_trained(store: Path) -> None:
    shutil.rmtree(store / "studies" / "a")
    shutil.rmtree(store / "dense")
    with pytest.raises(InputError, match="still has a study 'a', whose folder is gone; remove it with `paretoprune de"):
        Sweep(make_quick_config(store, name="a", trials=4)).run()
    assert not (store / "dense").exists()
