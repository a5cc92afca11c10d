"""Against a real store, in a directory whose name needs care; creating a store takes seconds, so there is one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from search.records.outcome import DenseRow, Outcome
from search.report.palette import styles
from search.tracking.tracker import Tracker
from spaces import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DENSE = DenseRow.from_metrics(accuracy=0.99, flops=1_000_000, params=80_000, seconds=12.0)
STARTED = 1_700_000_000.25


@pytest.fixture(scope="module", autouse=True)
def plain_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs of #1, 100% é") / "mlruns"
    Tracker.open(directory).close()
    return directory


@pytest.fixture
def tracker(home: Path) -> Iterator[Tracker]:
    tracker = Tracker.open(home)
    yield tracker
    tracker.close()


@pytest.fixture
def client(home: Path) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{home}/mlflow.db")


def complete(number: int, accuracy: float = 0.98607, flops: float = 310_000.0, method: str = "increg") -> Outcome:
    return Outcome(
        number=number,
        method=method,
        point={"sparsity.mode": "layer", "sparsity.ratios[stage1.0.conv1]": 0.1 + 0.2, "nesterov": True, "cut": 3},
        state="complete",
        metrics={"accuracy": accuracy, "flops": flops, "params": 20_001.0, "seconds": 4.6404234015420905},
        history=[{"epoch": float(epoch), "loss": 1 / (epoch + 1), "accuracy": accuracy - 0.1} for epoch in range(3)],
        widths={"stage1.0.conv1": (4, 16)},
        extra={"predicted_damage": 0.5},
        seed=2**40 + number,
        error=None,
        started=STARTED + number,
        seconds=6.5,
    )


def make_failed(number: int) -> Outcome:
    traceback = 'Traceback (most recent call last):\n  File "x.py", line 1\nRuntimeError: CUDA out of memory\n'
    return Outcome(number, "spp", {"rate": 0.5}, "failed", {}, [], {}, {}, 1, traceback, STARTED, 2.0)


def children(client: MlflowClient, parent: str) -> dict[int, Run]:
    experiment = client.get_run(parent).info.experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}' and tags.kind = 'trial'")
    found = {int(run.data.tags["trial"]): run for run in runs}
    assert len(found) == len(runs)
    return found


def test_importing_the_module_imports_no_heavy_library() -> None:
    code = (
        "import search.tracking.tracker, search.tracking.ui, sys;"
        "print({'mlflow', 'torch', 'pandas', 'numpy'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_a_whole_sweep_is_found_with_the_same_numbers(
    home: Path, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    from pandas import DataFrame

    parent = tracker.start_sweep("whole", {"seed": 3}, DENSE)
    outcomes = [complete(number, 0.9 + number / 90, 1e5 * (number + 1) / 3) for number in range(4)]
    for outcome in outcomes:
        tracker.log_trial(outcome, DENSE)
    tracker.finish_sweep({0: 0, 1: 1, 2: 0, 3: 2}, {}, 0.83, "# Front")
    assert tracker.close().warning is None

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
    found = mlflow.search_runs(
        experiment_names=["paretoprune"], filter_string="tags.sweep = 'whole' and tags.kind = 'trial'"
    )
    assert isinstance(found, DataFrame)
    rows = found.set_index(found["tags.trial"].astype(int)).sort_index()
    for outcome, row in zip(outcomes, rows.to_dict("records"), strict=True):
        assert {name: row[f"metrics.{name}"] for name in outcome.metrics} == outcome.metrics
        assert row["metrics.flops_share"] == outcome.metrics["flops"] / DENSE.flops
        assert row["metrics.params_share"] == outcome.metrics["params"] / DENSE.params
        assert row["params.method"] == "increg"
        assert float(row["params.sparsity.ratios/stage1.0.conv1"]) == 0.1 + 0.2
        assert int(row["params.seed"]) == outcome.seed
        assert row["tags.mlflow.parentRunId"] == parent
    assert list(rows["metrics.pareto_rank"]) == [0, 1, 0, 2]
    assert list(rows["tags.pareto"]) == ["true", "false", "true", "false"]


def test_a_child_run_in_full(home: Path, tracker: Tracker, client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "widths.png").write_bytes(b"png")
    (tmp_path / "0007.json").write_text("{}")
    parent = tracker.start_sweep("full", {})
    tracker.log_trial(
        complete(7), DENSE, {"widths.png": tmp_path / "widths.png", "outcome.json": tmp_path / "0007.json"}
    )
    assert tracker.close().warning is None

    run = children(client, parent)[7]
    assert run.info.run_name == "0007 98.61% 0.31x increg"
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 1700000007250, 1700000013750)
    assert run.data.params == {
        "method": "increg",
        "seed": str(2**40 + 7),
        "sparsity.mode": "layer",
        "sparsity.ratios/stage1.0.conv1": "0.30000000000000004",
        "nesterov": "True",
        "cut": "3",
    }
    assert run.data.metrics["extra/predicted_damage"] == 0.5
    history = client.get_metric_history(run.info.run_id, "epoch/loss")
    assert [(metric.step, metric.value) for metric in history] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    tags = run.data.tags
    assert tags["kind"] == "trial" and tags["sweep"] == "full" and tags["method"] == "increg"
    assert tags["mlflow.user"] and tags["mlflow.source.name"]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"widths.png", "outcome.json"}
    assert (home / "artifacts" / run.info.run_id / "artifacts" / "widths.png").read_bytes() == b"png"


def test_the_parent_run_in_full(tracker: Tracker, client: MlflowClient, tmp_path: Path) -> None:
    picture = tmp_path / "front.png"
    picture.write_bytes(b"png")
    config = {"model": "digits", "train": {"epochs": 3, "lr": 0.1}, "methods": ["spp"], "text": "é" * 7000}
    parent = tracker.start_sweep("parent", config, DENSE, {"colour": "green"})
    tracker.log_trial(complete(0), DENSE)
    tracker.log_trial(complete(1, method="spp"), DENSE)
    note = "# Front\n" + "| a | b |\n" * 4000
    summary = {"trials": 2, "overhead_share": 0.14, "broken": float("nan")}
    tracker.finish_sweep({0: 0, 1: 0}, {"front.png": picture}, 0.83, note, summary)
    assert tracker.close().warning is None

    run = client.get_run(parent)
    assert run.info.run_name == "parent" and run.info.status == "FINISHED"
    assert run.data.params == {
        "model": "digits",
        "train.epochs": "3",
        "train.lr": "0.1",
        "methods": '["spp"]',
        "text": "é" * 6000,
    }
    assert run.data.metrics == {
        "dense_accuracy": 0.99,
        "dense_flops": 1e6,
        "dense_params": 8e4,
        "dense_seconds": 12.0,
        "hypervolume": 0.83,
        "trials": 2,
        "overhead_share": 0.14,
    }
    assert run.data.tags["not_finite"] == "broken" and run.data.tags["colour"] == "green"
    assert run.data.tags["mlflow.note.content"].startswith("# Front\n| a | b |")
    assert {file.path for file in client.list_artifacts(parent)} == {"config.json", "front"}
    assert [file.path for file in client.list_artifacts(parent, "front")] == ["front/front.png"]
    looks = styles(["increg", "spp"])
    for child in children(client, parent).values():
        assert child.data.tags["mlflow.runColor"] == looks[child.data.params["method"]].colour

    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.name == "paretoprune"
    assert len(experiment.tags["mlflow.note.content"]) > len(run.data.tags["mlflow.note.content"])
    view = json.loads(experiment.tags["mlflow.sharedViewState.trials"])
    assert view["searchFilter"] == "tags.kind != 'sweep'" and "metrics.`flops_share`" in view["selectedColumns"]


def test_a_failed_trial_keeps_its_traceback(tracker: Tracker, client: MlflowClient) -> None:
    parent = tracker.start_sweep("failing", {})
    tracker.log_trial(make_failed(4), DENSE)
    assert tracker.close().warning is None
    run = children(client, parent)[4]
    assert run.info.status == "FAILED" and run.info.run_name == "0004 failed spp"
    assert run.data.tags["error"] == "RuntimeError: CUDA out of memory"
    assert run.data.metrics == {} and run.data.params["rate"] == "0.5"
    path = client.download_artifacts(run.info.run_id, "traceback.txt")
    assert Path(path).read_text() == make_failed(4).error


def test_a_trial_that_was_run_again_replaces_its_run(home: Path, tracker: Tracker, client: MlflowClient) -> None:
    parent = tracker.start_sweep("again", {}, DENSE)
    first = complete(2)
    tracker.log_trial(first, DENSE)
    assert tracker.close().warning is None
    again = Tracker.open(home)
    again.start_sweep("again", {}, run_id=parent)
    metrics = {**first.metrics, "accuracy": 0.25}
    again.log_trial(replace(first, started=first.started + 60, metrics=metrics), DENSE)
    assert again.close().warning is None
    query = f"tags.`mlflow.parentRunId` = '{parent}' and tags.trial = '2'"
    (run,) = client.search_runs([again.experiment_id], query)
    assert run.data.metrics["accuracy"] == 0.25 and run.info.status == "FINISHED"


def test_a_trial_is_sent_once_also_across_a_resume(home: Path, tracker: Tracker, client: MlflowClient) -> None:
    parent = tracker.start_sweep("twice", {"trials": 2, "seed": 1}, DENSE)
    tracker.log_trial(complete(0), DENSE)
    tracker.log_trial(complete(0), DENSE)
    tracker.stop_sweep()
    tracker.close()
    assert client.get_run(parent).info.status == "KILLED"

    again = Tracker.open(home)
    assert again.start_sweep("twice", {"trials": 4, "seed": 1}, DENSE, run_id=parent) == parent
    assert client.get_run(parent).info.status == "RUNNING"
    for number in range(3):
        again.log_trial(complete(number), DENSE)
    again.finish_sweep({0: 1, 1: 0, 2: 0}, {}, 0.5, "")
    assert again.close().warning is None
    run = client.get_run(parent)
    assert run.info.status == "FINISHED"
    assert run.data.params["trials"] == "2" and run.data.tags["changed.trials"] == "4"
    assert sorted(children(client, parent)) == [0, 1, 2]


def test_a_run_that_was_cut_short_is_completed(home: Path, tracker: Tracker, client: MlflowClient) -> None:
    parent = tracker.start_sweep("cut short", {})
    tags = {"mlflow.parentRunId": parent, "kind": "trial", "trial": "5", "method": "increg"}
    cut = client.create_run(tracker.experiment_id, 0, tags, "0005").info.run_id
    client.log_param(cut, "method", "increg")
    again = Tracker.open(home)
    again.start_sweep("cut short", {}, run_id=parent)
    again.log_trial(complete(5), DENSE)
    assert again.close().warning is None
    run = children(client, parent)[5]
    assert run.info.run_id == cut and run.info.status == "FINISHED" and run.data.metrics["accuracy"] == 0.98607


def test_a_parent_that_is_gone_is_made_anew(tracker: Tracker, client: MlflowClient) -> None:
    first = tracker.start_sweep("gone", {}, run_id="0" * 32)
    assert first != "0" * 32
    client.delete_run(first)
    second = tracker.start_sweep("gone", {}, run_id=first)
    assert second != first and client.get_run(second).info.lifecycle_stage == "active"


def test_many_values_are_sent_in_batches(tracker: Tracker, client: MlflowClient) -> None:
    outcome = complete(0)
    long = Outcome(**{
        **vars(outcome),
        "point": {f"sparsity.ratios[layer{n}.0]": n / 400 for n in range(350)},
        "history": [{"epoch": float(n), "loss": 1 / (n + 1), "accuracy": 0.5} for n in range(1100)],
    })
    parent = tracker.start_sweep("batches", {})
    tracker.log_trial(long, DENSE)
    assert tracker.close().warning is None
    run = children(client, parent)[0]
    assert len(run.data.params) == 352
    assert len(client.get_metric_history(run.info.run_id, "epoch/loss")) == 1100


def test_odd_names_and_numbers_arrive(tracker: Tracker, client: MlflowClient) -> None:
    outcome = complete(0)
    odd = Outcome(**{
        **vars(outcome),
        "method": "mine/½ ✂ 'quoted'",
        "point": {"a*b": 1, "a+b": 2, "../up": 3, "empty": "", "": "nameless"},
        "history": [{"epoch": 0.0, "loss": float("nan"), "grad norm (L2)": 2.0}, {"epoch": 1.0, "loss": float("inf")}],
        "extra": {"nan": float("nan")},
    })
    parent = tracker.start_sweep('it\'s "odd" ½ %s', {"a b/c?": {"[x]": None}})
    tracker.log_trial(odd, DENSE)
    assert tracker.close().warning is None
    run = children(client, parent)[0]
    params = {name: text for name, text in run.data.params.items() if name not in {"method", "seed"}}
    assert params == {"a_b": "1", "a_b_": "2", "up": "3", "empty": "", "_": "nameless"}
    assert run.data.tags["not_finite"] == "epoch/loss, extra/nan"
    assert "epoch/loss" not in run.data.metrics and run.data.metrics["epoch/grad norm _L2_"] == 2.0
    assert client.get_run(parent).info.run_name == 'it\'s "odd" ½ %s'


def test_a_lost_file_is_counted_and_the_rest_arrives(tracker: Tracker, client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("b")
    parent = tracker.start_sweep("lost", {})
    tracker.log_trial(complete(0), DENSE, {"a.txt": tmp_path / "a.txt", "b.txt": tmp_path / "b.txt"})
    tracker.finish_sweep({0: 0, 9: 1}, {}, 0.5, "")
    delivery = tracker.close()
    assert delivery.lost == 2 and delivery.warning is not None
    assert "(first: trial 0: FileNotFoundError: " in delivery.warning and "a.txt" in delivery.warning
    run = children(client, parent)[0]
    assert run.info.status == "FINISHED" and run.data.metrics["pareto_rank"] == 0
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["b.txt"]
    assert client.get_run(parent).info.status == "FINISHED"


def test_experiments_by_name(home: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the environment")
    tracker = Tracker.open(home)
    tracker.close()
    assert client.get_experiment(tracker.experiment_id).name == "of the environment"
    client.delete_experiment(tracker.experiment_id)
    with pytest.raises(
        InputError, match="'of the environment' was deleted; restore it with 'mlflow experiments restore"
    ):
        Tracker.open(home)


def test_a_store_given_as_address(home: Path) -> None:
    tracker = Tracker.open(home.parent / "elsewhere", f"sqlite:///{home}/mlflow.db", "given")
    tracker.close()
    assert tracker.store.given and not (home.parent / "elsewhere" / "mlflow.db").exists()


def test_a_directory_that_was_moved(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / "mlruns")
    tracker = Tracker.open(tmp_path / "mlruns")
    tracker.close()
    client = tracker._client
    here = (tmp_path / "mlruns" / "artifacts").as_uri()
    experiments = client.search_experiments(filter_string="name != 'Default'")
    runs = client.search_runs([each.experiment_id for each in experiments])
    assert experiments and {each.artifact_location for each in experiments} == {here}
    assert runs and all(run.info.artifact_uri.startswith(f"{here}/") for run in runs)


def test_an_address_that_mlflow_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MLflow cannot use the tracking URI 'htp://x' .*leave it out to use"):
        Tracker.open(tmp_path, "htp://anna:secret@x")


def test_mlflow_is_kept_quiet(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Tracker.open(home, experiment="quiet").close()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_two_sweeps_may_make_the_store_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from search.tracking.tracker import Tracker; "
        "Tracker.open(pathlib.Path(sys.argv[1])).close()"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "mlruns")], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 0, said
