"""The dense network: trained once, then found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from methods.contract.method import Record
from methods.contract.recipe import Recipe
from methods.contract.session import Saved
from methods.training.evaluation import evaluate
from search.store.checkpoints import Checkpoints
from search.tasks import dense as dense_module
from search.tasks.data.sets import DATA
from search.tasks.data.sizes import SplitSizes
from search.tasks.dense import Dense, dense_network
from search.tasks.identity import answers
from search.tasks.recipes import Training, default_recipe, resolve_recipe
from search.tasks.workload import Workload
from spaces import InputError

QUICK = Recipe(lr=0.1, batch_size=64, warmup=0.1)


@pytest.fixture(scope="module")
def workload() -> Workload:
    return Workload.load("digits_resnet", "digits", Path("data"), SplitSizes(), seed=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def dense(workload: Workload, store: Path) -> Dense:
    return dense_network(workload, QUICK, 1.5, 0, store)


def test_it_is_trained_and_stored(dense: Dense, workload: Workload) -> None:
    assert not dense.cached and dense.seconds > 0
    assert [record["epoch"] for record in dense.history] == [1, 2]
    assert dense.history[-1]["step"] == 24  # one epoch and a half of 16 steps
    assert dense.accuracy == evaluate(dense.model, workload.data.validation).accuracy > 0.3
    assert not dense.model.training
    record = json.loads((dense.folder / "record.json").read_text())
    assert record["accuracy"] == dense.accuracy
    assert record["config"]["training"]["recipe"]["lr"] == 0.1
    assert record["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_second_call_loads_the_same_network(dense: Dense, workload: Workload, store: Path) -> None:
    heard: list[Record] = []
    again = dense_network(workload, QUICK, 1.5, 0, store, heard.append)
    assert again.cached and not heard
    assert (again.accuracy, again.seconds, again.history) == (dense.accuracy, dense.seconds, dense.history)
    theirs = again.model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in dense.model.state_dict().items())


def test_same_seed_same_network_and_progress_is_reported(dense: Dense, workload: Workload, tmp_path: Path) -> None:
    heard: list[Record] = []
    again = dense_network(workload, QUICK, 1.5, 0, tmp_path, heard.append)
    assert heard == again.history == dense.history and again.folder.name == dense.folder.name
    theirs = again.model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in dense.model.state_dict().items())


def test_whatever_decides_the_network_decides_its_folder(dense: Dense, workload: Workload, tmp_path: Path) -> None:
    others = [
        (workload, QUICK.with_changes(lr=0.2), 0.1, 0),
        (workload, QUICK, 0.2, 0),
        (workload, QUICK, 0.1, 1),
        (Workload(workload.model, workload.data, workload.split, seed=1), QUICK, 0.1, 0),
        (Workload.load("digits_resnet", "digits", Path(), SplitSizes(seed=1), seed=0), QUICK, 0.1, 0),
        (Workload("resnet20", workload.data, workload.split, seed=0), QUICK, 0.1, 0),
    ]
    swapped = replace(workload.data, validation=workload.data.test)  # what the network is chosen and judged by
    others.append((replace(workload, data=swapped), QUICK, 0.1, 0))
    others.append((workload, QUICK, 0.1, 0))
    folders = {dense_network(*other, tmp_path).folder.name for other in others}
    assert len(folders) == len(others)
    assert dense.folder.name not in folders


def test_users_weights_are_not_trained(dense: Dense, workload: Workload, tmp_path: Path) -> None:
    weights = dense.folder / "weights.safetensors"
    given = Workload(workload.model, workload.data, workload.split, seed=5, weights=str(weights))
    heard: list[Record] = []
    found = dense_network(given, QUICK, 1.5, 0, tmp_path, heard.append)
    assert not heard and not found.history and found.seconds == 0
    assert found.accuracy == dense.accuracy
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights.read_bytes())
    moved = Workload(workload.model, workload.data, workload.split, seed=5, weights=str(copy))
    assert dense_network(moved, QUICK, 9, 9, tmp_path).cached  # the content decides, not the name or the recipe


def test_nothing_half_written_is_left(workload: Workload, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(record: Record) -> None:
        raise Stop

    with pytest.raises(Stop):
        dense_network(workload, QUICK, 0.2, 0, tmp_path, stop)
    assert [path for path in (tmp_path / "dense").iterdir() if path.is_dir()] == []
    assert not dense_network(workload, QUICK, 0.2, 0, tmp_path).cached


class Stop(Exception):
    """The program ends here."""


def stop_at_the_second_epoch(record: Record) -> None:
    if record["epoch"] == 2:
        raise Stop


def test_an_interrupted_training_goes_on_after_its_last_epoch(dense: Dense, workload: Workload, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        dense_network(workload, QUICK, 1.5, 0, tmp_path, stop_at_the_second_epoch)
    (kept,) = (path for path in (tmp_path / "dense").iterdir() if path.is_dir())
    (state,) = kept.glob("*.pt")
    assert torch.load(state, weights_only=True)["state"]["step"] == 16
    heard: list[Record] = []
    again = dense_network(workload, QUICK, 1.5, 0, tmp_path, heard.append)
    assert [record["epoch"] for record in heard] == [1, 2] and heard == dense.history == again.history
    assert not kept.exists() and not again.cached
    theirs = dense.model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in again.model.state_dict().items())


def test_an_interrupted_training_of_other_code_begins_again(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stop):
        dense_network(workload, QUICK, 1.5, 0, tmp_path, stop_at_the_second_epoch)
    kept = []

    class Looking(Saved):
        def __init__(self, states: Checkpoints) -> None:
            kept.append(states.get("dense") is not None)
            super().__init__(states)

    monkeypatch.setattr(dense_module, "Saved", Looking)
    with pytest.raises(Stop):
        dense_network(workload, QUICK, 1.5, 0, tmp_path, stop_at_the_second_epoch)
    monkeypatch.setattr(dense_module, "answers", lambda model, example: [2 * x for x in answers(model, example)])
    dense_network(workload, QUICK, 1.5, 0, tmp_path)
    assert kept == [True, False], "gone on with, begun again"


@pytest.mark.parametrize("name", ["record.json", "weights.safetensors"])
def test_damaged_files_are_named(workload: Workload, tmp_path: Path, name: str) -> None:
    folder = dense_network(workload, QUICK, 0.1, 0, tmp_path).folder
    (folder / name).write_bytes((folder / name).read_bytes()[:100])
    with pytest.raises(InputError, match=r"is damaged .*remove this folder to train it again"):
        dense_network(workload, QUICK, 0.1, 0, tmp_path)


def test_unwritable_store(workload: Workload, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    with pytest.raises(InputError, match="cannot be stored in .*runs"):
        dense_network(workload, QUICK, 0.1, 0, tmp_path / "runs")


def test_default_recipe_trains_the_digits() -> None:
    recipe, epochs = default_recipe("digits")
    assert recipe.optimizer == "sgd" and epochs == 20


def test_every_data_set_has_recipes() -> None:
    for name in DATA:
        for phase in ("dense", "finetune"):
            assert default_recipe(name, phase) != default_recipe("users.own:data", phase)


def test_what_the_user_names_replaces_the_defaults() -> None:
    recipe, epochs = resolve_recipe(Training(epochs=2.5, recipe={"lr": 0.3}), "dense", "digits")
    assert (recipe.lr, recipe.batch_size, epochs) == (0.3, 64, 2.5)
    assert resolve_recipe(Training(), "finetune", "digits") == default_recipe("digits", "finetune")


def test_fields_that_do_not_go_together() -> None:
    with pytest.raises(InputError, match=r"finetune\.recipe.*nesterov"):
        resolve_recipe(Training(recipe={"optimizer": "adamw"}), "finetune", "digits")


@pytest.mark.slow
def test_digits_reach_their_accuracy(workload: Workload, tmp_path: Path) -> None:
    dense = dense_network(workload, *default_recipe("digits"), 0, tmp_path)
    assert dense.accuracy > 0.97
    assert evaluate(dense.model, workload.data.test).accuracy > 0.96
