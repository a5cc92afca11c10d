"""Latency on its way through a study: trial, Optuna, front, limits, tables, pictures, MLflow."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from typer.testing import CliRunner

from methods import METHODS, load_method
from methods.contract.method import Problem
from methods.contract.recipe import Recipe
from methods.magnitude import Magnitude
from search.commands.cli import app
from search.driver import reachable
from search.fronts.front import Front
from search.objectives import load_objectives
from search.objectives.limits import parse_latency
from search.records.outcome import DenseRow, Outcome
from search.records.timing import Timing
from search.records.trial_spec import TrialSpec
from search.report import plots, tables
from search.report.page import front_html
from search.report.panels import trial_panel
from search.report.plane import planes
from search.speed.conditions import Conditions
from search.store.files import write_json
from search.store.studies import StudyFiles
from search.study import build
from search.study import space as study_space_module
from search.study.points import make_first_points
from search.study.space import method_space, study_space
from search.study.study import Study
from search.tracking.records import shares, trial_metrics
from search.trials import trial as trial_module
from search.trials.trial import Setting, run_trial
from spaces import InputError, LayerGroup
from tests.search.cases import make_quick_config, outcome
from tests.search.report.test_report import print_table, rows_of

DENSE = DenseRow.from_metrics(accuracy=0.95, flops=1000, params=100, seconds=2.0, latency=0.004)
GROUPS = [LayerGroup("conv1", 16, "8x8", 0.0), LayerGroup("conv2", 32, "4x4", 1.0)]
CALM, WILD = [1.0] * 4, [1.0, 1.0, 1.5, 1.5]


def timing(share: float, noisy: bool = False) -> Timing:
    dense = [0.004 * each for each in (WILD if noisy else CALM)]
    return Timing.from_seconds(dense, [share * each for each in dense])


def make_trial(number: int, accuracy: float, flops: float, share: float | None, noisy: bool = False) -> Outcome:
    """A trial with its latency, or with the reason why it has none."""
    metrics = {"accuracy": accuracy, "flops": flops, "params": flops / 10, "seconds": 1.5}
    if share is None:
        return outcome(number, metrics=metrics, untimed={"cpu": "cpu: no kernel"})
    return outcome(number, metrics=metrics | {"latency": 0.004 * share}, timings={"cpu": timing(share, noisy)})


def front(objectives: str = "accuracy,flops,latency", **changes: Any) -> Front:
    outcomes = [
        make_trial(0, 0.94, 500.0, 0.8, noisy=True),
        make_trial(1, 0.93, 600.0, 0.5),
        make_trial(2, 0.90, 250.0, 0.75),
        make_trial(3, 0.80, 700.0, 0.9),
    ]
    return Front("digits", DENSE, changes.get("outcomes", outcomes), load_objectives(objectives))


# Limits, fronts


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2ms", 0.002), ("2 ms", 0.002), ("350us", 350e-6), ("350µs", 350e-6), ("0.5s", 0.5), ("1e-1ms", 1e-4)],
)
def test_limits_on_time_have_a_unit(text: str, seconds: float) -> None:
    assert parse_latency(text, 0.004, "max-latency") == pytest.approx(seconds)


def test_a_limit_on_time_may_be_a_share() -> None:
    assert parse_latency("50%", 0.004, "max-latency") == 0.002


@pytest.mark.parametrize("text", ["2", "ms", "2min", "-1ms", "0ms", "", "nan", "2 M", "0.5"])
def test_limits_on_time_that_mean_nothing_teach(text: str) -> None:
    with pytest.raises(InputError, match=r"max-latency: .* write a time with its unit \('2ms', '350us', '0.5s'\)"):
        parse_latency(text, 0.004, "max-latency")


def test_three_objectives_make_a_front_of_their_own() -> None:
    assert [member.trial for member in front().members] == [2, 0, 1]
    assert [member.trial for member in front("accuracy,flops").members] == [2, 0]
    assert [member.trial for member in front("accuracy,latency").members] == [0, 1]


def test_hypervolume_of_three_objectives_is_a_volume() -> None:
    one = front(outcomes=[make_trial(0, 0.9, 500.0, 0.75)])
    assert one.linear_hypervolume() == pytest.approx(0.9 * 0.5 * 0.25)


def test_members_tell_latency_share_and_efficiency() -> None:
    cheap, noisy, _ = front().members
    assert (cheap.latency, cheap.latency_share) == pytest.approx((0.003, 0.75))
    assert cheap.efficiency == pytest.approx(0.25 / 0.75)
    assert (cheap.noisy, noisy.noisy) == (False, True)


@pytest.mark.parametrize(
    ("limit", "trials"), [("2ms", [1]), ("3.0ms", [2, 1]), ("75%", [2, 1]), ("1us", []), ("1s", [2, 0, 1])]
)
def test_front_is_narrowed_by_latency(limit: str, trials: list[int]) -> None:
    assert [member.trial for member in front().filter(max_latency=limit).members] == trials


def test_a_network_that_could_not_be_timed_meets_no_limit() -> None:
    some = front("accuracy,flops", outcomes=[make_trial(0, 0.94, 500.0, None), make_trial(1, 0.93, 600.0, 0.5)])
    assert [member.trial for member in some.filter(max_latency="1s").members] == [1]
    assert [member.latency for member in some.members] == [None]
    assert [member.trial for member in some.sort("latency")] == [0]
    assert "latency" not in some.to_json()["members"][0]


def test_front_is_sorted_by_latency_and_efficiency() -> None:
    assert [member.trial for member in front().sort("latency")] == [1, 2, 0]
    assert [member.trial for member in front().sort("efficiency")] == [1, 0, 2]


def test_studies_without_latencies_say_so() -> None:
    untimed = Front(
        "digits",
        DenseRow.from_metrics(accuracy=0.98, flops=1000, params=200, seconds=8.0),
        front().outcomes,
        load_objectives("accuracy,flops"),
    )
    for ask in (lambda: untimed.filter(max_latency="2ms"), lambda: untimed.sort("latency")):
        with pytest.raises(InputError, match="no latency was measured in study 'digits'; run a sweep with --obj"):
            ask()
    assert untimed.members[0].latency is None
    assert "latency" not in untimed.records()[0] and "latency" not in untimed.to_json()["dense"]


def test_records_and_json_have_latency() -> None:
    shown = front()
    assert shown.to_json()["dense"]["latency"] == 0.004
    member = shown.to_json()["members"][0]
    assert (member["latency_share"], member["noisy"]) == (pytest.approx(0.75), False)
    dense, cheap, *_ = shown.records()
    assert (dense["latency"], dense["efficiency"], cheap["efficiency"]) == (0.004, 1.0, pytest.approx(1 / 3))
    json.dumps(shown.to_json(), allow_nan=False)
    assert shown.table()["latency"].tolist()[0] == 0.004


def test_outcomes_with_timings_survive_json() -> None:
    for each in (make_trial(0, 0.9, 500.0, 0.5), make_trial(0, 0.9, 500.0, None)):
        assert Outcome.from_json(json.loads(json.dumps(each.to_json()))) == each
    old = make_trial(0, 0.9, 500.0, None).to_json()
    del old["timings"], old["untimed"]
    assert Outcome.from_json(old).timings == {}


# Tables, pictures, MLflow


def test_the_table_sets_flops_and_time_side_by_side() -> None:
    text = print_table(tables.front_table(front()))
    rows = rows_of(text)
    assert ["dense", "95.00 %", "100.0 %", "4.00 ms", "100.0 %"] in rows
    assert ["magnitude", "2", "90.00 %", "25.0 %", "3.00 ms", "75.0 %", "0.33"] in rows
    assert any("~3.20 ms" in row for row in rows)
    assert "eff. 1 means: half the FLOPs, half the time" in text and "scattered by more than 5 %" in text


def test_the_table_with_latency_fits_eighty_columns() -> None:
    dense = replace(DENSE, test_metrics={"accuracy": 0.95})
    tested = [replace(each, test_metrics={"accuracy": 0.9}, method="matrix_pivoting") for each in front().outcomes]
    text = print_table(tables.front_table(Front("digits", dense, tested, load_objectives("accuracy,flops,latency"))))
    assert max(map(len, text.splitlines())) <= 80
    assert "~3.20 ms" in text and "90.00 %" in text


def test_parameters_are_shown_where_they_are_searched_for() -> None:
    assert "params" in print_table(tables.front_table(front("accuracy,params,latency")))
    assert "params" not in print_table(tables.front_table(front()))


def test_there_is_a_picture_for_every_cost() -> None:
    assert [(shown.up.objective.name, shown.across.objective.name) for shown in planes(front())] == [
        ("accuracy", "flops"),
        ("accuracy", "latency"),
        ("latency", "flops"),
    ]
    figure = plots.front_figure(front())
    panels = [axes for axes in figure.axes if isinstance(axes, Axes)]
    assert [axes.get_xlabel() for axes in panels] == [
        "FLOPs, share of the dense network",
        "latency, share of the dense network",
        "FLOPs, share of the dense network",
    ]
    page = front_html(front())
    assert page.count('id="front"') == page.count('id="front-1"') == 1
    assert "latency 3.20 ms (80.0 % of dense, efficiency 0.62, noisy)" in page


def test_show_tells_every_target() -> None:
    shown = make_trial(0, 0.94, 500.0, 0.8, noisy=True)
    shown = replace(shown, untimed={"onnxruntime": "onnxruntime: cannot be exported"})
    text = print_table(trial_panel(shown, DENSE), width=100)
    assert re.search(r"cpu ~ +\S+ ms +\S+ ms +80.0 % +0.6\d", text) and "~ noisy" in text
    assert re.search(r"onnxruntime .*cannot be exported", text)
    assert re.search(r"latency +3.20 ms", text)


def test_mlflow_gets_latency_beside_flops() -> None:
    each = make_trial(0, 0.94, 500.0, 0.5)
    assert shares(each, DENSE)["latency_share"] == 0.5
    values = {point.name: point.value for point in trial_metrics(each, DENSE)}
    assert values["latency"] == 0.002
    assert values["timing/cpu/efficiency"] == 1.0
    assert (values["timing/cpu/dense"], values["timing/cpu/pruned"]) == pytest.approx((0.004, 0.002))
    assert values["timing/cpu/noisy"] == 0


# Studies


def test_a_trial_without_its_latency_is_kept_but_not_told_as_complete(tmp_path: Path) -> None:
    objectives = ("accuracy", "latency")
    space = study_space(("random",), GROUPS, "flops", {})
    url = f"sqlite:///{tmp_path}/optuna.db"
    study = Study.open(url, "s", space, objectives, 0, "random", 2, new=True)
    files = StudyFiles(tmp_path, "s")
    config = make_quick_config(tmp_path, name="s", objectives=list(objectives))
    files.create({"config": config.model_dump(mode="json"), "dense": DENSE.to_json()})
    for share in (0.5, None):
        each = make_trial(study.ask().number, 0.9, 500.0, share)
        files.folder(each.number).mkdir(parents=True)
        write_json(files.folder(each.number) / "outcome.json", each.to_json())
        study.tell(each)
    stock = optuna.load_study(storage=url, study_name="s").trials
    assert [trial.state.name for trial in stock] == ["COMPLETE", "FAIL"]
    assert stock[0].values == [0.9, 0.002]
    assert stock[1].user_attrs["error"] == "cpu: no kernel"
    assert files.outcome(1).state == "complete" and files.outcome(1).list_missing(objectives) == ["latency"]
    assert [member.trial for member in files.front().members] == [0]


def test_the_command_answers_from_what_was_stored(tmp_path: Path) -> None:
    files = StudyFiles(tmp_path, "s")
    config = make_quick_config(tmp_path, name="s", objectives=["accuracy", "flops", "latency"])
    files.create({"config": config.model_dump(mode="json"), "dense": DENSE.to_json()})
    for each in front().outcomes:
        files.folder(each.number).mkdir(parents=True)
        write_json(files.folder(each.number) / "outcome.json", each.to_json())

    def trials(*options: str) -> list[int]:
        done = CliRunner().invoke(app, ["front", "s", "--directory", str(tmp_path), "--json", *options])
        assert done.exit_code == 0, done.output
        return [member["trial"] for member in json.loads(done.stdout)["members"]]

    assert trials("--sort", "latency") == [1, 2, 0]
    assert trials("--max-latency", "2ms") == [1]
    assert trials("--max-latency", "3100us", "--max-flops", "50%") == [2]
    wrong = CliRunner().invoke(app, ["front", "s", "--directory", str(tmp_path), "--max-latency", "2"])
    assert wrong.exit_code == 2 and "'2' is not a latency; write a time with its unit" in wrong.stderr


# Rounding


def test_flops_that_round_widths_cannot_reach_are_not_searched() -> None:
    space = method_space("magnitude", GROUPS, "flops", {}, floor=0.3)
    assert space["sparsity.flops"].to_json()["low"] == pytest.approx(0.3)
    both = ("magnitude", "sdprun")
    whole = study_space(both, GROUPS, "flops", {}, 0.3)
    for name in ("magnitude.sparsity.flops", "sdprun.target_flops"):
        asked = [point.get(name) for point in make_first_points(whole, both, (0.5, 0.25, 0.125))]
        assert {share for share in asked if share is not None} == {0.5}
    with pytest.raises(InputError, match=r"\[space.magnitude\]: sparsity.flops up to 0.2 cannot be reached"):
        method_space("magnitude", GROUPS, "flops", {"sparsity.flops": {"high": 0.2}}, floor=0.3)


def test_all_methods_of_ours_round_and_others_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(load_method(name).rounds_widths for name in METHODS)

    class Free(Magnitude):
        pass

    monkeypatch.setattr(Free, "rounds_widths", False)
    monkeypatch.setattr(study_space_module, "load_method", lambda name: Free)
    free = method_space("free", GROUPS, "flops", {}, 0.3)
    assert free["sparsity.flops"].to_json()["low"] == 0.05, "a method that rounds nothing reaches all"


class Split:
    """Two batches of noise."""

    examples = 8

    def steps(self, batch_size: int) -> int:
        return 2

    def epoch(self, batch_size: int, seed: int, start: int = 0) -> Any:
        return iter(list(self.batches(batch_size))[start:])

    def batches(self, batch_size: int) -> Any:
        generator = torch.Generator().manual_seed(0)
        for _ in range(2):
            yield torch.randn(4, 2, 6, 6, generator=generator), torch.tensor([0, 1, 2, 0])

    def to(self, device: torch.device | str) -> Split:
        return self


def setting(**changes: Any) -> Setting:
    model = nn.Sequential(
        nn.Conv2d(2, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    model.append(nn.Linear(16, 3))
    fields: dict[str, Any] = {
        "model": model.eval(),
        "example": torch.zeros(1, 2, 6, 6),
        "train": Split(),
        "validation": Split(),
        "recipe": Recipe(recalibrate=1, batch_size=4),
        "steps": 1,
        "objectives": ("accuracy", "flops"),
    }
    return Setting(**(fields | changes))


POINT: dict[str, bool | int | float | str] = {"sparsity.mode": "uniform", "sparsity.ratio": 0.3}


@pytest.mark.parametrize(("step", "width"), [(1, 11), (4, 12), (8, 8)])
def test_every_method_that_declares_it_rounds_its_widths(step: int, width: int) -> None:
    done = run_trial(setting(round_to=step), TrialSpec(0, "magnitude", POINT, seed=0)).outcome
    assert done.error is None
    assert done.widths == {"0": (width, 16)}


def test_a_method_that_does_not_round_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(Magnitude):
        def prune(self, problem: Problem) -> Any:
            raise AssertionError("not run")

    monkeypatch.setattr(Deaf, "rounds_widths", False)
    seen_points: list[Any] = []
    monkeypatch.setattr(Deaf, "from_point", classmethod(lambda cls, point: seen_points.append(dict(point))))
    monkeypatch.setattr(build, "load_method", lambda name: Deaf)
    run_trial(setting(round_to=8), TrialSpec(0, "deaf", POINT, seed=0))
    assert seen_points == [POINT]


# A trial


def test_a_trial_is_timed_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def measure_pair(wanted: Conditions, dense: nn.Module, pruned: nn.Module, example: Tensor) -> Any:
        seen.append((dense[0].out_channels, pruned[0].out_channels))  # type: ignore[index]
        return {"cpu": timing(0.5)}, {"onnxruntime": "onnxruntime: no"}

    monkeypatch.setattr(trial_module, "measure_pair", measure_pair)
    conditions = Conditions(("cpu", "onnxruntime"))
    done = run_trial(setting(timed=conditions, dense_latency=0.01), TrialSpec(0, "magnitude", POINT, seed=0)).outcome
    assert seen == [(16, 11)]
    assert done.metrics["latency"] == pytest.approx(0.005), "the dense network's reference times the quotient"
    assert done.timings["cpu"].share == 0.5 and done.untimed == {"onnxruntime": "onnxruntime: no"}
    turned = run_trial(
        setting(timed=Conditions(("onnxruntime", "cpu")), dense_latency=0.01), TrialSpec(0, "magnitude", POINT, seed=0)
    ).outcome
    assert turned.state == "complete" and "latency" not in turned.metrics, "the first target gives the objective"
    assert "latency" not in run_trial(setting(), TrialSpec(0, "magnitude", POINT, seed=0)).outcome.metrics


# A hard limit


def test_a_point_that_is_too_slow_is_refused_before_it_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []

    def measure_pair(wanted: Conditions, dense: nn.Module, pruned: nn.Module, example: Tensor) -> Any:
        timed.append(pruned[0].out_channels)  # type: ignore[index]
        return {"cpu": timing(timed[-1] / 16)}, {}

    class Untrainable(Split):
        def epoch(self, batch_size: int, seed: int, start: int = 0) -> Any:
            raise AssertionError("trained")

    monkeypatch.setattr(trial_module, "measure_pair", measure_pair)
    fields: dict[str, Any] = {"timed": Conditions(("cpu",)), "dense_latency": 0.016}
    spec = TrialSpec(0, "magnitude", POINT, seed=0)
    slow = run_trial(setting(**fields, max_latency=0.0105, train=Untrainable()), spec).outcome
    assert slow.state == "infeasible" and timed == [11]
    assert (
        (slow.error or "")
        .splitlines()[-1]
        .endswith("too slow: 11 ms a pass on cpu, and max-latency allows 10.5 ms; nothing was trained")
    )
    quick = run_trial(setting(**fields, max_latency=0.0115), spec).outcome
    assert quick.error is None and quick.metrics["latency"] == pytest.approx(0.011)
    assert timed == [11, 11], "the widths decide the time: it is not measured again after training"


def test_widths_that_only_training_decides_are_timed_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []

    def measure_pair(wanted: Conditions, dense: nn.Module, pruned: nn.Module, example: Tensor) -> Any:
        timed.append(pruned[0].out_channels)  # type: ignore[index]
        return {"cpu": timing(timed[-1] / 16)}, {}

    monkeypatch.setattr(trial_module, "measure_pair", measure_pair)
    monkeypatch.setattr(Magnitude, "preview", lambda self, problem: None)
    fields: dict[str, Any] = {"timed": Conditions(("cpu",)), "dense_latency": 0.016, "max_latency": 0.001}
    done = run_trial(setting(**fields), TrialSpec(0, "magnitude", POINT, seed=0)).outcome
    assert done.state == "complete" and done.metrics["latency"] == pytest.approx(0.011) and timed == [11]


def test_a_limit_that_the_narrowest_network_exceeds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure_pair(wanted: Conditions, dense: nn.Module, pruned: nn.Module, example: Tensor) -> Any:
        assert pruned[0].out_channels == 1  # type: ignore[index]
        return {"cpu": timing(0.25)}, {}

    monkeypatch.setattr(reachable, "measure_pair", measure_pair)
    fields: dict[str, Any] = {"timed": Conditions(("cpu",)), "dense_latency": 0.016}
    with pytest.raises(InputError, match=r"max-latency = 3.*ms cannot be reached on cpu: .* takes 4.*ms \(25% of"):
        reachable.require_reachable(setting(**fields, max_latency=0.003))
    reachable.require_reachable(setting(**fields, max_latency=0.005))
    reachable.require_reachable(setting(**fields))
