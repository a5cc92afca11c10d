"""Networks as models of MLflow: loaded by MLflow alone, registered under a name, listed beside the dense network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.models import Model
from torch import Tensor, nn
from typer.testing import CliRunner

from methods.contract.inputs import Inputs
from methods.contract.inputs import call as call_network
from paretoprune import Sweep
from search.commands.cli import app
from search.driver.networks import write_program
from search.store.studies import StudyFiles
from search.tracking.models import ModelSource, log_model
from spaces import InputError
from tests.search.cases import make_quick_config

STRANGER = """
import sys, warnings
warnings.simplefilter("ignore")
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("search", "methods", "spaces", "paretoprune", "optuna", "ray"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refused())
import mlflow, numpy, torch
store, model, arrays = sys.argv[1:]
mlflow.set_tracking_uri(store)
stored = numpy.load(arrays)
for batch in (slice(0, 1), slice(0, 5)):
    wanted = stored["wanted"][batch]
    found = mlflow.pyfunc.load_model(model).predict(stored["inputs"][batch])
    assert abs(found - wanted).max() <= 1e-4
    found = mlflow.pytorch.load_model(model)(torch.from_numpy(stored["inputs"][batch]))
    assert abs(found.detach().numpy() - wanted).max() <= 1e-4
print("the same")
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run store whose study ``kept`` has kept and logged the networks of its front."""
    home = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        Sweep(make_quick_config(home, name="kept", trials=2, exports=["pt2"])).run()
        yield home


def client(store: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{store}/mlflow.db")


@pytest.mark.slow
def test_members_of_the_front_load_by_mlflow_alone(store: Path, tmp_path: Path) -> None:
    files = StudyFiles.open(store, "kept")
    members = {member.trial: member for member in files.front().members}
    models = client(store).search_logged_models(["1"])
    assert {model.name for model in models} == {f"kept-{number:04d}" for number in members}
    assert {model.status for model in models} == {"READY"}
    run = {int(each.data.tags["trial"]): each for each in client(store).search_runs(["1"], "tags.kind = 'trial'")}
    number = next(iter(members))
    model = next(each for each in models if each.name == f"kept-{number:04d}")
    assert model.source_run_id == run[number].info.run_id
    assert {each.key: each.value for each in model.metrics or []}["accuracy"] == members[number].accuracy
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = members[number].model()(x)
    np.savez(tmp_path / "arrays.npz", inputs=x.numpy(), wanted=wanted.numpy())
    arguments = [f"sqlite:///{store}/mlflow.db", f"models:/{model.model_id}", str(tmp_path / "arrays.npz")]
    done = subprocess.run(
        [sys.executable, "-P", "-c", STRANGER, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "the same\n", done.stderr


@pytest.mark.slow
def test_the_networks_are_beside_the_study_as_well(store: Path) -> None:
    files = StudyFiles.open(store, "kept")
    kept = sorted(path.name for path in (files.root / "networks").iterdir())
    assert kept == [f"{member.trial:04d}" for member in sorted(files.front().members, key=lambda each: each.trial)]
    names = {path.name for path in (files.root / "networks" / kept[0]).iterdir()}
    assert names == {"model.pt2", "card.json", "card.md"}


@pytest.mark.slow
def test_the_table_compares_trials_with_the_dense_network(store: Path) -> None:
    files = StudyFiles.open(store, "kept")
    runs = client(store).search_runs(["1"], "tags.sweep = 'kept'")
    (dense,) = [run for run in runs if run.data.tags["kind"] == "dense"]
    (parent,) = [run for run in runs if run.data.tags["kind"] == "sweep"]
    assert dense.info.status == "FINISHED" and dense.data.params["method"] == "dense"
    assert dense.data.metrics["flops_share"] == 1.0
    assert dense.data.metrics["test_accuracy"] == files.dense().test_accuracy
    knee = files.front().knee()
    assert parent.data.metrics["accuracy"] == knee.accuracy
    assert (parent.data.metrics["knee"], parent.data.metrics["flops_share"]) == (knee.trial, knee.flops_share)
    member = next(run for run in runs if run.data.tags.get("trial") == str(knee.trial))
    assert member.data.metrics["test_accuracy"] == files.outcome(knee.trial).test_accuracy
    assert member.data.metrics["drop"] == pytest.approx(100 * (files.dense().accuracy - knee.accuracy))
    assert not any("mlflow.runType" in run.data.tags for run in runs), "such runs open MLflow's other side"


@pytest.mark.slow
def test_a_resumed_sweep_logs_no_network_twice(store: Path) -> None:
    before = {model.model_id for model in client(store).search_logged_models(["1"])}
    Sweep.resume("kept", store).run()
    assert {model.model_id for model in client(store).search_logged_models(["1"])} == before
    assert len(client(store).search_runs(["1"], "tags.sweep = 'kept' and tags.kind = 'dense'")) == 1


@pytest.mark.slow
def test_a_network_is_registered_under_an_alias(store: Path) -> None:
    def call(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["export", "kept", *arguments, "--directory", str(store)])
        return done.exit_code, done.stdout, done.stderr

    number = StudyFiles.open(store, "kept").front().knee().trial
    assert call("--pick", "knee", "--register", "digits", "--alias", "champion")[:2] == (0, "models:/digits@champion\n")
    assert call("--trial", str(number), "--register", "digits")[:2] == (0, "models:/digits/2\n")
    version = client(store).get_model_version_by_alias("digits", "champion")
    assert (version.version, version.status) in ((1, "READY"), ("1", "READY"))
    code, _, said = call("--pick", "knee", "--alias", "champion")
    assert code == 2 and "--alias champion needs the name of a registered model" in said
    code, _, said = call("--all", "--register", "digits")
    assert code == 2 and "--register takes one network" in said
    code, _, said = call("--pick", "knee", "--register", "a/b:c")
    assert code == 2 and "MLflow does not register 'a/b:c'" in said


class Named(nn.Module):
    """Two inputs, one output."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, image: Tensor, age: Tensor) -> Any:
        return self.layer(image) + age


class TwoAnswers(Named):
    """Two inputs, two outputs."""

    def forward(self, image: Tensor, age: Tensor) -> Any:
        return {"out": self.layer(image), "aux": age}


class Fixed(nn.Module):
    """One input at a time."""

    def forward(self, image: Tensor) -> Tensor:
        return image.reshape(1, 3)


def log_network(store: Path, model: nn.Module, inputs: Inputs) -> str:
    run = client(store).create_run("1")
    return log_model(client(store), "1", run.info.run_id, ModelSource("net", lambda: model, inputs, write_program))


SEVERAL = (
    STRANGER.partition("store, model, arrays = ")[0]
    + """
store, *asked = sys.argv[1:]
mlflow.set_tracking_uri(store)
names = ("image", "age")
for model, arrays in zip(asked[::2], asked[1::2]):
    stored = numpy.load(arrays)
    program, function = mlflow.pytorch.load_model(model), mlflow.pyfunc.load_model(model)
    assert set(function.metadata.get_input_schema().input_names()) == set(names)
    assert set(function.input_example) == set(names)
    for batch in (slice(0, 1), slice(0, 6)):
        given = {name: stored[name][batch] for name in names}
        tensors = {name: torch.from_numpy(array) for name, array in given.items()}
        called = program(**tensors) if "keywords" in stored else program(*tensors.values())
        for answer in (called, function.predict(given)):
            found = answer if isinstance(answer, dict) else {"out": answer}
            for name, array in found.items():
                array = array.detach().numpy() if isinstance(array, torch.Tensor) else array
                assert abs(array - stored[f"wanted_{name}"][batch]).max() <= 1e-5, arrays
    print(arrays, "the same")
"""
)


@pytest.mark.slow
def test_networks_of_several_inputs_load_by_mlflow_alone(store: Path, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    image, age = torch.randn(6, 3, generator=draw), torch.randn(6, 2, generator=draw)
    forms: dict[str, tuple[nn.Module, Inputs]] = {
        "by name": (Named(), {"age": age, "image": image}),
        "by position": (Named(), (image, age)),
        "several outputs": (TwoAnswers(), {"age": age, "image": image}),
    }
    asked: list[str] = []
    for form, (model, inputs) in forms.items():
        with torch.no_grad():
            answer = call_network(model.eval(), inputs)
        wanted = answer if isinstance(answer, dict) else {"out": answer}
        stored = {f"wanted_{name}": tensor.numpy() for name, tensor in wanted.items()}
        stored |= {} if isinstance(inputs, tuple) else {"keywords": np.ones(1)}
        np.savez(tmp_path / f"{form}.npz", image=image.numpy(), age=age.numpy(), **stored)
        asked += [f"models:/{log_network(store, model, inputs)}", f"{form}.npz"]
    done = subprocess.run(  # one process for all: importing MLflow and torch takes most of its time
        [sys.executable, "-P", "-c", SEVERAL, f"sqlite:///{store}/mlflow.db", *asked],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [f"{form}.npz the same" for form in forms], done.stderr


def test_a_network_that_is_bound_to_one_input_says_so_in_its_signature(store: Path) -> None:
    model = client(store).get_logged_model(log_network(store, Fixed().eval(), torch.ones(4, 3)))
    described = Model.load(str(model.artifact_location).removeprefix("file://"))
    assert described.signature is not None
    assert described.signature.inputs.inputs[0].shape == (1, 3)


class Sorted(nn.Module):
    """Cannot be captured: what is done depends on the values."""

    def forward(self, image: Tensor) -> Tensor:
        return image if bool((image > 0).all()) else -image


def test_what_cannot_be_written_is_refused_in_a_sentence_and_leaves_no_ready_model(store: Path) -> None:
    run = client(store).create_run("1")
    source = ModelSource("sorted", lambda: Sorted().eval(), torch.zeros(2, 3), write_program)
    with pytest.raises(InputError, match="this one cannot be written as one: torch.export"):
        log_model(client(store), "1", run.info.run_id, source)
    found = client(store).search_logged_models(["1"], f"source_run_id = '{run.info.run_id}'")
    assert [str(model.status) for model in found] == ["FAILED"]
