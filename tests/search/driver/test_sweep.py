"""A whole sweep in this process: Optuna, MLflow and files agree, and it can be taken up again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlflow
import optuna
import pytest

from methods.network.cost import count
from methods.training.evaluation import evaluate
from paretoprune import Front, Sweep, load_front
from search.records.listener import Measurement
from search.records.outcome import DenseRow, Outcome
from search.records.trial_spec import TrialSpec
from search.store.studies import StudyFiles
from search.tasks.workload import Workload
from spaces import InputError
from tests.search.cases import make_quick_config


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run store with a finished study ``base`` of four trials, one of which fails."""
    directory = tmp_path_factory.mktemp("runs")
    config = make_quick_config(directory, name="base", trials=4)
    with pytest.MonkeyPatch.context() as patch:
        _break_trial(patch, 2)
        Sweep(config).run()
    yield directory


def _break_trial(patch: pytest.MonkeyPatch, number: int) -> None:
    """Make one trial fail inside the method."""
    from search.trials import trial

    whole = trial._prune

    def broken(setting: trial.Setting, spec: TrialSpec, *heard: object) -> object:
        if spec.number == number:
            raise RuntimeError("this trial was made to fail")
        return whole(setting, spec, *heard)  # type: ignore[arg-type]

    patch.setattr(trial, "_prune", broken)


def test_front_is_on_disk_in_every_form(store: Path) -> None:
    front = load_front("base", store)
    files = StudyFiles.open(store, "base")
    assert json.loads((files.root / "front.json").read_text()) == front.to_json()
    assert (files.root / "front.csv").read_text() == front.to_csv()
    assert (files.root / "front.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (files.root / "front.html").read_text()
    assert all(member.test_accuracy is not None for member in front.members)
    assert front.dense.test_accuracy is not None


def test_a_failed_trial_is_recorded_and_stops_nothing(store: Path) -> None:
    files = StudyFiles.open(store, "base")
    assert files.status()["states"] == {"complete": 3, "failed": 1, "running": 0, "waiting": 0}
    failed_outcome = files.outcome(2)
    assert failed_outcome.state == "failed"
    assert failed_outcome.error is not None and failed_outcome.error.rstrip().endswith("this trial was made to fail")
    assert "Traceback" in failed_outcome.error
    assert [path.name for path in files.folder(2).iterdir()] == ["outcome.json"]


def test_optuna_mlflow_and_files_tell_the_same(store: Path) -> None:
    files = StudyFiles.open(store, "base")
    study = optuna.load_study(study_name="base", storage=f"sqlite:///{store}/optuna.db")
    runs = mlflow.MlflowClient(f"sqlite:///{store}/mlflow.db").search_runs(["1"], "tags.kind = 'trial'")
    by_number = {int(run.data.tags["trial"]): run for run in runs}
    assert sorted(by_number) == [0, 1, 2, 3] == [trial.number for trial in study.trials]
    for outcome in files.outcomes():
        run, trial = by_number[outcome.number], study.trials[outcome.number]
        if outcome.state == "failed":
            assert (run.info.status, trial.state.name) == ("FAILED", "FAIL")
            continue
        assert trial.values == [outcome.metrics["accuracy"], outcome.metrics["flops"]]
        assert {name: run.data.metrics[name] for name in outcome.metrics} == outcome.metrics
        assert run.data.params["method"] == outcome.method
    on_front = {int(n) for n, run in by_number.items() if run.data.tags.get("pareto") == "true"}
    assert on_front == {member.trial for member in load_front("base", store).members}


def test_rebuilt_networks_reach_the_stated_numbers_to_the_last_digit(store: Path) -> None:
    files = StudyFiles.open(store, "base")
    config = files.config()
    task = Workload.load(config.model, config.data, config.data_root, config.split, config.seed)
    for outcome in files.outcomes():
        if outcome.state == "complete":
            model = files.rebuild(outcome.number)
            assert evaluate(model, task.data.validation).accuracy == outcome.metrics["accuracy"]
            assert count(model, task.example).flops == outcome.metrics["flops"]
            assert count(model, task.example).params == outcome.metrics["params"]


def test_same_seed_same_front_and_the_dense_network_is_trained_once(store: Path) -> None:
    def numbers(front: Front) -> list[tuple[int, str, float, int]]:
        return [(m.trial, m.method, m.accuracy, m.flops) for m in (*front.members, *front.dominated)]

    dense_before = sorted((store / "dense").iterdir())
    fronts = [Sweep(make_quick_config(store, name=name)).run() for name in ("again-1", "again-2")]
    assert numbers(fronts[0]) == numbers(fronts[1])
    assert sorted((store / "dense").iterdir()) == dense_before


def test_a_finished_study_can_be_gone_on_with(store: Path) -> None:
    Sweep(make_quick_config(store, name="more", trials=2)).run()
    before = {p: p.stat().st_mtime_ns for p in (store / "studies" / "more" / "trials").glob("*/outcome.json")}
    front = Sweep.resume("more", store, trials=3).run()
    assert len(front.outcomes) == 3
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    with pytest.raises(InputError, match="study 'more' has 3 trials already; --trials 1 is less"):
        Sweep.resume("more", store, trials=1)
    runs = mlflow.MlflowClient(f"sqlite:///{store}/mlflow.db").search_runs(["1"], "tags.kind = 'sweep'")
    assert [run.info.run_name for run in runs].count("more") == 1


def test_names_are_not_taken_twice(store: Path) -> None:
    with pytest.raises(InputError, match="study 'base' exists; continue it with `paretoprune resume base`"):
        Sweep(make_quick_config(store, name="base")).run()


class Heard:
    """Notes what a sweep says."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def stage(self, text: str) -> None:
        self.events.append(text)

    def dense_epoch(self, record: dict[str, float], epochs: int) -> None:
        self.events.append(f"epoch {record['epoch']:.0f}/{epochs}")

    def sweep_started(
        self, study: str, total: int, done: int, dense: DenseRow, objectives: Sequence[Measurement] = ()
    ) -> None:
        self.events.append(f"{study} {done}/{total}")

    def trial_started(self, number: int, method: str) -> None:
        self.events.append(f"started {number}")

    def trial_progress(self, number: int, method: str, what: str, done: int, total: int) -> None:
        self.events.append(f"{what} {done}/{total} of {number}")

    def trial_finished(self, outcome: Outcome, hypervolume: float, members: int) -> None:
        assert members == 1
        assert hypervolume >= 0
        self.events.append(f"finished {outcome.number}")

    def warning(self, text: str) -> None:
        self.events.append(f"warning {text}")

    def close(self) -> None:
        self.events.append("closed")


def test_damage_is_measured_once_before_the_first_trial(tmp_path: Path) -> None:
    heard = Heard()
    config = make_quick_config(tmp_path, name="damage", trials=2, methods=["random"], allocation="damage")
    Sweep(config, heard).run()
    assert heard.events.index("measuring damage curves") < heard.events.index("damage 0/2")
    assert not any(event.startswith("damage curves") for event in heard.events), "no trial measures it again"


def test_listener_hears_everything_in_order(tmp_path: Path) -> None:
    heard = Heard()
    Sweep(make_quick_config(tmp_path, name="told", trials=1), heard).run()
    quick_network_says = [event for event in heard.events if "max_drop" in event]  # it loses more than 5 points
    assert len(quick_network_says) <= 1
    assert [event for event in heard.events if event not in quick_network_says] == [
        "loading data and network",
        "dense network",
        "epoch 1/1",
        "told 0/1",
        "started 0",
        "finished 0",
        "testing and drawing the front",
        "closed",
    ]


def test_plan_writes_nothing(tmp_path: Path) -> None:
    plan = Sweep(make_quick_config(tmp_path / "none")).plan()
    assert plan.to_json()["dense"] == {"flops": 763520, "params": 77754}
    assert plan.smallest < 0.02 * plan.cost.dense
    assert not (tmp_path / "none").exists()


def test_methods_are_compared_at_their_defaults(tmp_path: Path) -> None:
    options = {"methods": ("magnitude", "random"), "shares": (0.6, 0.3), "sampler": "defaults"}
    planned = Sweep(make_quick_config(tmp_path, **options, trials=4)).plan()
    shares = [(point["method"], point[f"{point['method']}.sparsity.flops"]) for point in planned.first]
    assert shares == [("magnitude", 0.6), ("random", 0.6), ("magnitude", 0.3), ("random", 0.3)]
    with pytest.raises(InputError, match=r"4 points \(2 methods at 2 shares of the FLOPs\), trials = 5 are too many"):
        Sweep(make_quick_config(tmp_path, **options, trials=5)).plan()


class Refuses:
    """An executor that fails before its first trial."""

    slots = 1

    def __init__(self, *arguments: object) -> None:
        pass

    def run(self, *arguments: object) -> None:
        raise RuntimeError("no worker today")


def test_a_sweep_that_fails_before_its_first_trial_ends_though_mlflow_is_not_open_yet(tmp_path: Path) -> None:
    config = make_quick_config(tmp_path, name="s", resources={"executor": f"{__name__}:Refuses"})
    with pytest.raises(RuntimeError, match="no worker today"):
        Sweep(config).run()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs(["1"], "tags.kind = 'sweep'")
    assert run.info.status == "FAILED"
