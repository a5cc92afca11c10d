from __future__ import annotations

import csv
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner, Result

from methods.training.paths import Paths, Profile
from search.commands.cli import COMMANDS, app
from search.driver.sweep import Summary
from search.fronts.front import PICKS, Front
from search.records.listener import Listener
from search.records.outcome import DenseRow
from search.speed.interleaved import Effort
from search.store.files import write_json
from search.store.studies import StudyFiles, load_front
from search.study.config import StudyConfig
from search.study.space import study_space
from search.tasks import recipes
from search.tracking.outbox import Delivery
from spaces import InputError, LayerGroup
from tests.search.cases import make_quick_config, outcome

DENSE = DenseRow.from_metrics(accuracy=0.95, flops=1000, params=100, seconds=2.0)
ERROR = "Traceback (most recent call last):\n  ...\nValueError: nothing left"
TRIALS = (  # method, accuracy, flops
    ("magnitude", 0.90, 500.0),
    ("magnitude", 0.94, 800.0),
    ("random", 0.80, 200.0),
    None,
    ("random", 0.70, 600.0),
    ("increg", 0.93, 400.0),
    ("random", 0.60, 100.0),
    ("increg", 0.949, 900.0),
)
FRONT = [6, 2, 5, 1, 7]
"""Who is not dominated, by ascending FLOPs."""


@pytest.fixture(autouse=True)
def plain_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a build server's wish for colour nor the width of a window must decide a test."""
    for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two studies, ``my-study`` being the latest."""
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "mlruns"
    for name in ("other-study", "my-study"):
        files = StudyFiles(directory, name)
        config = make_quick_config(directory, name=name, trials=10).model_dump(mode="json")
        files.create({"config": config, "dense": DENSE.to_json()})
        for number, trial in enumerate(TRIALS):
            write_trial(files, number, trial)
    return directory


def write_trial(files: StudyFiles, number: int, trial: tuple[str, float, float] | None) -> None:
    if trial is None:
        result = outcome(number, error=ERROR)
    else:
        method, accuracy, flops = trial
        metrics = {"accuracy": accuracy, "flops": flops, "params": flops / 10, "seconds": 10.0 - number}
        result = outcome(number, method=method, metrics=metrics)
    files.folder(number).mkdir(parents=True)
    write_json(files.folder(number) / "outcome.json", result.to_json())


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="paretoprune")


def data(*arguments: str) -> Any:
    """What a command prints with ``--json``, which must be all that it prints on stdout."""
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# Reading


def test_front_json_has_the_promised_shape(store: Path) -> None:
    front = data("front", "my-study")
    assert list(front) == ["study", "objectives", "dense", "hypervolume", "linear_hypervolume", "members"]
    assert front["study"] == "my-study"
    assert front["dense"] == {"accuracy": 0.95, "flops": 1000, "params": 100}
    assert front["hypervolume"] == load_front("my-study", store).hypervolume()
    assert [member["trial"] for member in front["members"]] == FRONT
    assert front["members"][2] == {
        "trial": 5,
        "method": "increg",
        "accuracy": 0.93,
        "flops": 400,
        "flops_share": 0.4,
        "params": 40,
        "params_share": 0.4,
        "seconds": 5.0,
        "point": outcome().point,
    }


def test_the_latest_study_is_meant_when_none_is_named(store: Path) -> None:
    assert data("front")["study"] == data("status")["study"] == "my-study"


@pytest.mark.parametrize(
    ("options", "trials"),
    [
        (["--max-flops", "50%"], [6, 2, 5]),
        (["--max-flops", "200"], [6, 2]),
        (["--min-accuracy", "0.93"], [5, 1, 7]),
        (["--max-params", "0.05k"], [6, 2, 5]),
        (["--method", "magnitude"], [0, 1]),
        (["--max-flops", "60%", "--min-accuracy", "92%"], [5]),
        (["--max-flops", "5%"], []),
        (["--sort", "accuracy"], [7, 1, 5, 2, 6]),
        (["--sort", "seconds"], [7, 6, 5, 2, 1]),
        (["--pick", "best"], [7]),
        (["--pick", "knee"], [5]),
        (["--pick", "cheapest", "--drop", "1"], [1]),
        (["--pick", "cheapest", "--drop", "2", "--max-flops", "50%"], [5]),
    ],
)
def test_front_is_narrowed_sorted_and_picked_from(store: Path, options: list[str], trials: list[int]) -> None:
    assert [member["trial"] for member in data("front", *options)["members"]] == trials
    rows = list(csv.DictReader(io.StringIO(call("front", "--csv", *options).stdout)))
    assert [row["trial"] for row in rows] == ["", *map(str, trials)]
    assert rows[0]["method"] == "dense"


def test_a_picked_member_keeps_the_hypervolume_of_its_front(store: Path) -> None:
    assert data("front", "--pick", "best")["hypervolume"] == data("front")["hypervolume"]


def test_front_is_a_table_for_people(store: Path) -> None:
    result = call("front")
    assert result.exit_code == 0
    assert re.search(r"increg +\*5 +93.00 %", result.stdout)
    assert result.stderr == ""


def test_a_plot_is_told_on_stderr_alone(store: Path) -> None:
    result = call("front", "--plot", "front.svg", "--json")
    assert json.loads(result.stdout)["study"] == "my-study"
    assert result.stderr == "plot: front.svg\n"
    assert Path("front.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")


def test_status_counts_states(store: Path) -> None:
    status = data("status", "my-study")
    assert status["study"] == "my-study"
    assert status["states"] == {"complete": 7, "failed": 1, "running": 0, "waiting": 2}
    assert [row["study"] for row in data("status", "--all")] == ["other-study", "my-study"]
    assert re.search(r"my-study +7 +1 +0 +2", call("status").stdout)


def test_a_trial_is_running_only_while_its_driver_lives(store: Path) -> None:
    files = StudyFiles(store, "my-study")
    files.write_running([8, 9], 10)
    with files.lock():
        assert data("status")["states"] == {"complete": 7, "failed": 1, "running": 2, "waiting": 0}
    assert data("status")["states"] == {"complete": 7, "failed": 1, "running": 0, "waiting": 2}


def test_show_tells_all_about_a_trial(store: Path) -> None:
    shown = data("show", "my-study", "5")
    assert shown["study"] == "my-study"
    assert shown["number"] == 5
    assert shown["metrics"]["flops"] == 400
    assert "93.00 %" in call("show", "my-study", "5").stdout
    assert "ValueError: nothing left" in call("show", "my-study", "3").stdout


def test_compare_sets_studies_beside_each_other(store: Path) -> None:
    rows = data("compare", "my-study", "other-study")
    assert [row["study"] for row in rows] == ["my-study", "other-study"]
    assert rows[0]["best_accuracy"]["50%"] == 0.93
    assert "other-study" in call("compare", "my-study", "other-study").stdout


def test_methods_are_listed() -> None:
    methods = data("methods")
    assert {"increg", "magnitude", "random"} <= {row["name"] for row in methods}
    assert all(set(row) == {"name", "title", "source"} for row in methods)
    assert "magnitude" in call("methods").stdout


def test_space_lists_parameters_of_a_method_for_a_network() -> None:
    parameters = {row["name"]: row for row in data("space", "increg")}
    assert {"kind", "range", "log", "choices", "condition"} <= set(parameters["sparsity.flops"])
    assert parameters["sparsity.mode"]["range"] is None
    assert parameters["sparsity.flops"]["range"][1] <= 1
    assert parameters["sparsity.ratio"]["condition"] == {"parameter": "sparsity.mode", "values": ["uniform"]}
    deeper = [row["name"] for row in data("space", "magnitude", "--model", "resnet20")]
    assert sum(name.startswith("sparsity.layer_offsets[") for name in deeper) == 12
    assert "sparsity.mode" in call("space", "random", "--data", "digits").stdout


# Running, with a sweep that is made up


class FakeSweep:
    """Finds its trials finished instead of running them."""

    made: ClassVar[list[FakeSweep]] = []

    def __init__(
        self, config: StudyConfig, listener: Listener, resumed: tuple[Any, ...] = (), launch: object = None
    ) -> None:
        self.config, self.resumed = config, resumed
        self.summary: object = None
        self.made.append(self)

    @classmethod
    def resume(
        cls,
        name: str,
        directory: Path,
        listener: Listener,
        trials: int | None = None,
        moved: Mapping[str, object] = MappingProxyType({}),
        launch: object = None,
    ) -> FakeSweep:
        given = {key: value for key, value in moved.items() if value is not None}
        return cls(make_quick_config(directory, name=name), listener, (name, directory, trials, given))

    @property
    def name(self) -> str | None:
        return self.config.name

    def plan(self) -> SimpleNamespace:
        return SimpleNamespace(
            to_json=lambda: {"trials": self.config.trials}, lines=lambda: ["a plan"], guess=lambda: {"training": None}
        )

    def run(self) -> Front:
        print("a download bar of somebody else")
        root = self.config.directory / "studies" / "my-study"
        files = {name: root / name for name in ("front.json", "front.png", "front.html")}
        self.summary = Summary(83.0, 2, {"trials": 128.0, "dense": 16.6, "exports": 9.96}, files)
        return load_front("my-study", self.config.directory)


@pytest.fixture
def fake_sweep(store: Path, monkeypatch: pytest.MonkeyPatch) -> type[FakeSweep]:
    def train_dense(config: StudyConfig, listener: Listener) -> DenseRow:
        listener.stage("dense network")
        return DENSE

    monkeypatch.setattr(FakeSweep, "made", [])
    _replace_module(monkeypatch, "search.driver.sweep", Sweep=FakeSweep, train_dense=train_dense)
    _replace_module(monkeypatch, "search.workers.launch", Launch=lambda resources: nullcontext())
    return FakeSweep


def _replace_module(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    module = ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)


def test_sweep_prints_the_front_and_sums_up_on_stderr(fake_sweep: type[FakeSweep]) -> None:
    result = call("sweep", "--name", "my-study")
    assert result.exit_code == 0
    assert "Pareto front of my-study" in result.stdout
    assert "somebody else" not in result.stdout
    assert result.stderr.splitlines() == [
        "starting",
        "a download bar of somebody else",
        "time    1 min 23 s; of the workers' time: trials 77%, dense network 10%, exports 6%, overhead 7%",
        "plots   mlruns/studies/my-study/front.png  mlruns/studies/my-study/front.html",
        "failed  trials 3; why: paretoprune show my-study 3",
        "ui      paretoprune ui",
    ]


def test_sweep_prints_json_alone(fake_sweep: type[FakeSweep]) -> None:
    assert data("sweep", "--name", "my-study") == data("front", "my-study")


def test_a_quiet_sweep_prints_its_front_alone(fake_sweep: type[FakeSweep]) -> None:
    result = call("sweep", "--name", "my-study", "--quiet")
    assert "Pareto front of my-study" in result.stdout
    assert result.stderr == "a download bar of somebody else\n"


def test_every_option_of_sweep_reaches_the_configuration(fake_sweep: type[FakeSweep], tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text("trials = 5\nallocation = 'uniform'\n", encoding="utf-8")
    line = (
        "sweep study.toml --name my-study --trials 7 --methods magnitude,increg --model resnet20 --data cifar10 "
        "--data-root sets --objectives accuracy,params --seed 3 --set finetune.epochs=2 --cpus-per-trial 2 "
        "--gpus-per-trial 0.25 --max-concurrent 4 --executor inline --address auto --retries 0 --trial-timeout 90 "
        "--directory mlruns --storage memory://runs --working-dir code "
        "--tracking-uri http://localhost:5000"
    )
    assert call(*shlex.split(line)).exit_code == 0
    config = fake_sweep.made[0].config
    assert (config.name, config.trials, config.allocation, config.seed) == ("my-study", 7, "uniform", 3)
    assert (config.methods, config.objectives) == (("magnitude", "increg"), ("accuracy", "params"))
    assert (config.model, config.data, config.data_root) == ("resnet20", "cifar10", Path("sets").absolute())
    assert config.finetune.epochs == 2
    assert config.resources.model_dump() == {
        "executor": "inline",
        "cpus_per_trial": 2,
        "gpus_per_trial": 0.25,
        "max_concurrent": 4,
        "address": "auto",
        "retries": 0,
        "trial_timeout": 90.0,
        "storage": "memory://runs",
        "working_dir": "code",
    }
    assert (config.directory, config.tracking_uri) == (Path("mlruns").absolute(), "http://localhost:5000")


def test_commands_that_are_told_can_be_pasted(fake_sweep: type[FakeSweep], store: Path) -> None:
    store.rename(store.with_name("my runs"))
    result = call("sweep", "--name", "my-study", "--directory", "my runs", "--tracking-uri", "http://localhost:5000")
    assert "paretoprune ui --directory 'my runs' --tracking-uri http://localhost:5000" in result.stderr


def test_dry_run_tells_the_plan(fake_sweep: type[FakeSweep]) -> None:
    assert call("sweep", "--dry-run").stdout == "a plan\n"
    assert data("sweep", "--dry-run", "--trials", "9") == {"trials": 9, "training": None}


def test_train_prints_the_dense_network(fake_sweep: type[FakeSweep]) -> None:
    result = call("train", "--model", "resnet20")
    assert result.stdout == "dense network  accuracy 95.00 %  FLOPs 1.00 k  parameters 100\n"
    assert result.stderr == "starting\ndense network\n"
    assert data("train") == DENSE.to_json()


def test_resume_goes_on_with_the_latest_study(fake_sweep: type[FakeSweep]) -> None:
    assert call("resume", "--trials", "48").exit_code == 0
    moved = "--data-root elsewhere --executor inline --tracking-uri http://localhost:5001 --retries 1"
    assert call("resume", "other-study", *moved.split()).exit_code == 0
    given = {
        "data_root": Path("elsewhere"),
        "executor": "inline",
        "tracking_uri": "http://localhost:5001",
        "retries": 1,
    }
    asked = [sweep.resumed for sweep in fake_sweep.made]
    assert asked == [("my-study", Path("mlruns"), 48, {}), ("other-study", Path("mlruns"), None, given)]


def test_an_interrupted_sweep_tells_how_to_go_on(fake_sweep: type[FakeSweep], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_sweep, "run", _raise_when_called(KeyboardInterrupt()))
    result = call("sweep", "--name", "my-study")
    assert result.exit_code == 130
    assert "finished trials are kept, go on with: paretoprune resume my-study\n" in result.stderr
    early = call("sweep", "--name", "not-begun")
    assert early.exit_code == 130
    assert (early.stdout, early.stderr) == ("", "starting\ninterrupted\n")


def test_an_interrupted_sweep_shows_the_front_so_far(
    fake_sweep: type[FakeSweep], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_sweep, "run", _raise_when_called(KeyboardInterrupt()))
    shown = call("sweep", "--name", "my-study").stdout
    assert shown == call("front", "my-study").stdout
    told = call("sweep", "--name", "my-study", "--json")
    assert (told.exit_code, json.loads(told.stdout)) == (130, load_front("my-study", store).to_json())
    for path in (store / "studies" / "my-study" / "trials").glob("*/outcome.json"):
        path.unlink()
    assert call("resume", "my-study").stdout == ""


def test_a_sweep_that_breaks_tells_how_to_go_on(fake_sweep: type[FakeSweep], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_sweep, "run", _raise_when_called(OSError(28, "No space left on device", "/proc/weights")))
    result = call("sweep", "--name", "my-study")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[1:] == [
        "stopped; finished trials are kept, go on with: paretoprune resume my-study",
        "error: the disk of /proc is full (0 MiB left); free some room, what is finished is kept",
    ]


def test_a_sweep_without_a_complete_trial_has_failed(
    fake_sweep: type[FakeSweep], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_sweep, "run", lambda self: load_front("my-study", store).filter(max_flops="1%"))
    result = call("sweep", "--name", "my-study")
    assert result.exit_code == 1
    assert "error: no trial was completed; `paretoprune show my-study 0` tells why" in result.stderr


def test_a_sweep_whose_networks_are_all_beyond_its_limits_has_failed(
    fake_sweep: type[FakeSweep], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = replace(load_front("my-study", store).filter(max_flops="1%"), outside=(3, 5))
    monkeypatch.setattr(fake_sweep, "run", lambda self: empty)
    result = call("sweep", "--name", "my-study")
    assert result.exit_code == 1
    assert "error: every network came out beyond the limits of the study, the first one in trial 3" in result.stderr


def test_a_budget_that_is_spent_before_the_first_trial(tmp_path: Path) -> None:
    words = ["--trials", "2", "--methods", "magnitude", "--executor", "inline", "--quiet", "--directory", str(tmp_path)]
    words += ["--set", "dense.epochs=0.1", "--set", "finetune.epochs=0.5", "--set", "exports=[]", "--name", "hasty"]
    result = call("sweep", *words, "--budget", "0.001s")
    assert result.exit_code == 1
    assert "the budget of 0.001s is less than one trial takes here: about" in result.stderr
    assert "2 of 2 trials were not begun" in result.stderr
    line = next(line for line in result.stderr.splitlines() if line.startswith("error"))
    assert line.startswith("error: the budget was spent before the first trial; `paretoprune resume hasty")
    assert "show" not in line


def _raise_when_called(error: BaseException) -> Callable[..., Any]:
    def act(*_: Any, **__: Any) -> Any:
        raise error

    return act


def test_a_real_study_from_sweep_to_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    short = "--executor inline --methods magnitude --set dense.epochs=1 --set finetune.epochs=0.2 --set exports=[]"
    front = data(*shlex.split(f"sweep --name real --trials 1 {short}"))
    assert front == data("front", "real")
    assert data("train", "--set", "dense.epochs=1")["accuracy"] == front["dense"]["accuracy"]
    assert len(data("resume", "--trials", "2")["members"]) >= 1
    assert data("status")["states"] == {"complete": 2, "failed": 0, "running": 0, "waiting": 0}
    card = data("export", "--trial", "0", "--to", "small", "--format", "safetensors")
    assert card["flops"] == front["members"][0]["flops"]
    again = call("sweep", "--name", "real", "--executor", "inline")
    assert again.exit_code == 2
    assert "error: study 'real' exists; continue it with `paretoprune resume real`" in again.stderr


# Failures


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("front --max-flops 0", r"max-flops: '0' leaves nothing; write a share"),
        ("front --min-accuracy 95", r"min-accuracy: '95' is not a share"),
        ("front --max-params lots", r"max-params: 'lots' is not a limit"),
        ("front --method incregg", r"unknown method of this study 'incregg'; did you mean 'increg'"),
        ("front --sort acuracy", r"unknown order 'acuracy'; did you mean 'accuracy'"),
        ("front --pick kneee", r"unknown rule 'kneee'; did you mean 'knee'"),
        ("front --pick cheapest --drop 0", r"no network .* is within 0 percentage points"),
        ("front --pick knee --max-flops 1%", r"has no complete trial within these limits"),
        ("front --plot front.gif", r"cannot write a picture to 'front.gif'"),
        ("front --json --csv", r"give --json or --csv, not both"),
        ("front my-studdy", r"unknown study 'my-studdy'; did you mean 'my-study'"),
        ("status my-study --all", r"give STUDY or --all, not both"),
        ("show my-study 12", r"trial 12 of study 'my-study' is not finished \(finished: 0..7\)"),
        ("compare my-study", r"compare needs at least two studies, given: my-study"),
        ("export --to d", r"say which network with --trial N, with --pick"),
        ("export --to d --trial 1 --pick knee", r"one of them"),
        ("resume my-studdy", r"unknown study 'my-studdy'; did you mean 'my-study'"),
        ("sweep --methods incregg", r"unknown method 'incregg'; did you mean 'increg'"),
        ("sweep --objectives accuracy,flop", r"unknown objective 'flop'; did you mean 'flops'"),
        ("sweep --set sed=3", r"'sed'; did you mean 'seed'"),
        ("sweep --set seed", r"--set 'seed' is not of the form key=value"),
        ("sweep nowhere.toml", r"nowhere.toml cannot be read: No such file"),
        ("space incregg", r"unknown method 'incregg'; did you mean 'increg'"),
        ("space increg --model my.net:build", r"Name its data as well"),
        ("space increg --model resnet5", r"unknown model 'resnet5'; did you mean 'resnet56'"),
    ],
)
def test_what_the_user_got_wrong_is_said_in_one_sentence(store: Path, line: str, said: str) -> None:
    result = call(*shlex.split(line))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert re.search(rf"^error: .*{said}.*\n\Z", result.stderr), result.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("frnt", "Did you mean 'front'"),
        ("front --max-flop 3", "--max-flops"),
        ("sweep --trials 0", "'--trials'"),
        ("show my-study seven", "[STUDY] TRIAL"),
        ("show my-study -- -1", "[STUDY] TRIAL"),
        ("show", "[STUDY] TRIAL"),
    ],
)
def test_usage_errors_name_what_was_meant(line: str, said: str) -> None:
    result = call(*shlex.split(line))
    assert result.exit_code == 2
    assert said in result.stderr


def test_without_a_study_one_is_told_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("front")
    assert result.exit_code == 2
    assert result.stderr == "error: there is no study in mlruns/ yet; `paretoprune sweep` makes one\n"


def test_the_unexpected_leaves_a_traceback_in_a_file(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.store.studies.load_front", _raise_when_called(ZeroDivisionError("by\nzero")))
    result = call("front")
    assert result.exit_code == 1
    found = re.fullmatch(r"error: unexpected ZeroDivisionError: by zero; the traceback is in (.+)\n", result.stderr)
    assert found is not None, result.stderr
    written = Path(found[1])
    assert "raise error" in written.read_text(encoding="utf-8")
    written.unlink()


def test_the_traceback_is_shown_on_demand(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.store.studies.load_front", _raise_when_called(ZeroDivisionError("by zero")))
    result = call("--traceback", "front")
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback (most recent call last)")
    assert result.stderr.endswith("error: unexpected ZeroDivisionError: by zero\n")
    assert "Traceback" in call("--traceback", "front", "--max-flops", "0").stderr


class WorkerLost(RuntimeError):
    """An expected failure of ours."""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("a wrong\nword"), 2, "error: a wrong word\n"),
        (
            PermissionError(13, "Permission denied", "mlruns/optuna.db"),
            1,
            "error: mlruns/optuna.db: Permission denied\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_exit_codes(store: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str) -> None:
    monkeypatch.setattr("search.store.studies.load_front", _raise_when_called(error))
    result = call("front")
    assert (result.exit_code, result.stderr) == (code, said)


def test_errors_of_our_rooms_need_no_traceback(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkerLost, "__module__", "search.workers.ray_workers")
    monkeypatch.setattr("search.store.studies.load_front", _raise_when_called(WorkerLost("three workers died")))
    result = call("front")
    assert (result.exit_code, result.stderr) == (1, "error: three workers died\n")


# Help and start-up


def test_names_in_help_are_the_real_ones() -> None:
    text = " ".join(call("front", "--help").stdout.split())
    assert "|".join(PICKS) in text


@pytest.mark.parametrize("name", [example.split()[1] for _, _, example in COMMANDS])
def test_help_says_nothing_of_exceptions(name: str) -> None:
    assert "Raises:" not in call(name, "--help").stdout


@pytest.mark.parametrize(
    "example",
    [
        # the doctor's looks at a network of 50 layers
        pytest.param(example, id=name, marks=[pytest.mark.slow] if name == "doctor" else [])
        for _, _, example in COMMANDS
        for name in [example.split()[1]]
    ],
)
def test_help_shows_an_example_that_works(
    example: str, store: Path, fake_sweep: type[FakeSweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[tuple[Any, ...]] = []
    file = {"file": "model.pt2", "verified": True, "largest_difference": 1e-6}
    card = {"trial": 5, "method": "increg", "flops_share": 0.4, "formats": {"pt2": file}}
    exported = [card | {"files": {"model.pt2": {"bytes": 1000}}}]
    _replace_module(monkeypatch, "search.artefacts.export", export_members=lambda *_: exported)
    _replace_module(monkeypatch, "search.tracking.ui", serve=lambda *given, announce: served.append(given))
    monkeypatch.setattr("search.driver.mirror.mirror_study", lambda *_: Delivery(9, 0, None))
    monkeypatch.setattr("search.driver.keeping.check", lambda *_: [])
    monkeypatch.setattr("search.driver.queueing.enqueue_point", lambda files, method, values: (values, []))
    way = Profile((0.0, 1.0), (0.1, 0.2))
    _replace_module(monkeypatch, "search.driver.valley", trial_valley=lambda *_: Paths(way, way))
    monkeypatch.setattr("search.driver.league.League.run", lambda *_: [])
    hasty = Effort(seconds=0.0, block=0.0, least_rounds=2, most_rounds=2, attempts=1)
    # The network and every layer of it are timed, none of them for long.
    monkeypatch.setattr("search.speed.modules.EFFORT", hasty)
    monkeypatch.setattr("search.speed.measure.Effort", lambda *_, **__: hasty)
    # Dense networks are trained for an epoch, and the curves of damage have few points.
    monkeypatch.setitem(recipes.DENSE, "digits", (recipes.DENSE["digits"][0], 1))
    monkeypatch.setattr("methods.training.damage.WIDTHS", 2)
    monkeypatch.setattr("methods.training.damage.BATCHES", 1)
    program, command, *arguments = shlex.split(example)
    assert program == "paretoprune"
    help_text = "".join(call(command, "--help").stdout.split())
    assert f"Example:{''.join(example.split())}" in help_text
    result = call(command, *arguments)
    assert result.exit_code == 0, result.output
    if command == "profile":
        assert Path("profile.png").stat().st_size > 10_000
    if command == "ui":
        assert served == [(Path("mlruns"), None, "127.0.0.1", 5001, False)]


def test_version() -> None:
    assert re.fullmatch(r"paretoprune (\d+\.\d+\.\d+|, not installed)\n", call("--version").stdout)


HEAVY = ("torch", "ray", "mlflow", "optuna", "pandas", "plotly", "matplotlib", "sklearn", "numpy")


def list_loaded(lines: Sequence[str]) -> set[str]:
    """Which heavy libraries these command lines load, in a process of their own."""
    program = (
        "import shlex, sys\n"
        "from typer.testing import CliRunner\n"
        "from search.commands.cli import app\n"
        "for line in sys.argv[1:]:\n"
        "    assert CliRunner().invoke(app, shlex.split(line)).exit_code == 0, line\n"
        f"print(*(name for name in {HEAVY!r} if name in sys.modules))\n"
    )
    line = [sys.executable, "-c", program, *lines]
    result = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_help_loads_nothing_heavy() -> None:
    commands = [shlex.split(example)[1] for _, _, example in COMMANDS]
    assert list_loaded(["--help", "--version", *(f"{command} --help" for command in commands)]) == set()


def test_looking_at_studies_needs_no_torch(store: Path) -> None:
    lines = [
        "front",
        "front --json",
        "front --csv --pick knee",
        "status",
        "show my-study 5",
        "compare my-study my-study",
    ]
    assert not list_loaded(lines) & {"torch", "ray", "mlflow", "optuna", "pandas", "plotly", "matplotlib"}


def test_a_reader_who_stops_reading_is_no_failure(store: Path) -> None:
    program = "import sys; from search.commands.cli import app; app(sys.argv[1:])"
    line = [sys.executable, "-c", program, "front", "--json"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0


def test_the_module_is_the_command() -> None:
    root = Path(__file__).parents[3]
    result = subprocess.run(
        [sys.executable, "-m", "search", "front", "--csv", "--json"],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=60,
    )
    assert result.returncode == 2
    assert result.stderr == "error: give --json or --csv, not both\n"


def test_a_denoised_front_says_what_was_measured(store: Path) -> None:
    """The members are those by the model, in every form; limits hold for its numbers."""
    result = call("front", "--denoised")
    assert result.exit_code == 2 and "earlier version" in result.stderr
    files = StudyFiles(store, "modelled")
    config = make_quick_config(store, name="modelled", trials=12)
    groups = [LayerGroup("conv1", 16, "8x8", 0.0)]
    space = study_space(("magnitude", "random"), groups, "flops", {}).to_json()
    record = {"config": config.model_dump(mode="json"), "dense": DENSE.to_json(), "space": space}
    files.create(record | {"task": {"validation_examples": 200}})
    for number in range(12):
        # an even curve, on which one trial had luck
        accuracy = 0.99 - 0.02 * (12 - number) / 4 + 0.03 * (number == 4)
        metrics = {"accuracy": accuracy, "flops": 80.0 * (number + 1), "params": 10.0, "seconds": 1.0}
        files.folder(number).mkdir(parents=True)
        result_of = outcome(number, method="random", metrics=metrics, widths={"conv1": (number + 1, 16)})
        write_json(files.folder(number) / "outcome.json", result_of.to_json())
    told = data("front", "modelled", "--denoised")
    assert told["denoised"]["trials"] == 12 and told["denoised"]["examples"] == 200
    rows = {member["trial"]: member for member in told["members"]}
    measured = {member["trial"]: member for member in data("front", "modelled")["members"]}
    assert rows[4]["measured_accuracy"] == measured[4]["accuracy"] > rows[4]["accuracy"] + 0.005
    assert rows[4]["accuracy_low"] < rows[4]["accuracy"] < rows[4]["accuracy_high"]
    least = f"{rows[4]['accuracy'] + 1e-6}"
    assert 4 not in [m["trial"] for m in data("front", "modelled", "--denoised", "--min-accuracy", least)["members"]]
    table = call("front", "modelled", "--denoised")
    assert "measured" in table.stdout and "the noise of 200 validation examples" in table.stderr
