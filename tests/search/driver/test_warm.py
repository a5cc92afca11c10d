"""Warm starts, points of the user's own, and budgets of devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from search.driver.ending import Ending
from search.driver.queueing import enqueue_point
from search.driver.sweep import Sweep
from search.driver.warm import adapt_point, gather_points, read_earlier
from search.fronts.member import Member
from search.records.outcome import DenseRow
from search.store.studies import StudyFiles
from search.study.config import StudyConfig
from search.study.config_file import load_config
from search.study.space import study_space
from spaces import InputError, LayerGroup
from tests.search.cases import make_quick_config, outcome

GROUPS = [LayerGroup("conv1", 16, "8x8", 0.0), LayerGroup("conv2", 32, "4x4", 1.0)]


SPACE = study_space(("magnitude",), GROUPS, "flops", {})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs")
    Sweep(make_quick_config(directory, name="first", trials=4)).run()
    return directory


def make_plan(store: Path, **changes: Any) -> Any:
    return Sweep(make_quick_config(store, name="second", warm_start=["first"], **changes)).plan()


def test_trials_of_the_same_network_are_known_from_the_start(store: Path) -> None:
    plan = make_plan(store)
    assert len(plan.earlier) == 4 and plan.first == []
    assert any("the sampler knows its 4 trials of the same network" in line for line in plan.warnings)
    new = make_plan(store, methods=["magnitude", "random", "eigendamage"])
    assert [point["method"] for point in new.first] == ["eigendamage"], "what was not tried is tried first"
    other = make_plan(store, methods=["magnitude"])
    assert {each["method"] for each in other.earlier} == {"magnitude"}
    assert any("are left out, which are not of this space" in line for line in other.warnings)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"split": {"seed": 5}}, "the training data are others"),
        ({"finetune": {"epochs": 2}}, "trials train otherwise"),
        ({"sampler": "tpe"}, "sampler 'tpe' cannot be told of trials"),
    ],
)
def test_of_other_studies_points_are_tried_first(store: Path, changes: dict[str, Any], why: str) -> None:
    plan = make_plan(store, trials=9, **changes)
    members = StudyFiles(store, "first").front().members
    assert plan.earlier == [] and len(plan.first) >= min(3, len(members))
    assert any(why in line and "points of its front are tried first" in line for line in plan.warnings)


def test_a_sweep_that_was_warmed_goes_on_without_the_earlier_study(store: Path) -> None:
    Sweep(make_quick_config(store, name="third", warm_start=["first"], trials=3)).run()
    record = StudyFiles(store, "third").record()
    assert len(record["earlier"]) == 4
    front = Sweep.resume("third", store, trials=4).run()
    assert len(front.outcomes) == 4
    known = {str(each["point"]) for each in record["earlier"]}
    assert not known & {str(each.point) for each in front.outcomes}, "nothing is asked twice"


def test_what_cannot_warm_a_study(store: Path) -> None:
    with pytest.raises(InputError, match="unknown study 'frst'; did you mean 'first'"):
        Sweep(make_quick_config(store, warm_start=["frst"])).plan()
    with pytest.raises(InputError, match="study 'first' is of another problem: its task is 'classification'"):
        config = make_quick_config(store, warm_start=["first"])
        read_earlier(config.model_copy(update={"task": "regression"}), Sweep(config).plan().workload, SPACE, 1, {}, [])
    with pytest.raises(InputError, match="tells nothing of what is searched for here: it has no predicted_damage"):
        Sweep(
            make_quick_config(
                store, warm_start=["first"], methods=["eigendamage"], objectives=["predicted_damage", "flops"]
            )
        ).plan()
    with pytest.raises(InputError, match="'a/b' is no study's folder"):
        Sweep(make_quick_config(store, warm_start=["a/b"])).plan()


def test_points_are_brought_into_another_space() -> None:
    space = study_space(("magnitude",), GROUPS, "flops", {"magnitude": {"sparsity.flops": {"low": 0.3}}})
    own: dict[str, Any] = {"sparsity.mode": "flops", "sparsity.flops": 0.1, "sparsity.tilt": 0.2, "other": 3}
    point, dropped = adapt_point(space, "magnitude", own)
    assert point is not None and point["magnitude.sparsity.flops"] == 0.3 and point["magnitude.sparsity.tilt"] == 0.2
    assert dropped == {"other", "sparsity.flops = 0.1 (now 0.3)"}
    assert adapt_point(space, "increg", {}) == (None, {"points of increg, which does not compete here"})


def test_of_a_front_those_points_are_taken_whose_method_competes() -> None:
    """Where few points are wanted, methods that are left out must not take the places of the others."""
    dense = DenseRow.from_metrics(accuracy=0.95, flops=1000, params=100, seconds=1.0)
    members = []
    for number, method in enumerate(["random", "magnitude", "magnitude", "magnitude", "random"]):
        metrics = {"accuracy": 0.9, "flops": 100.0 + 100 * number, "params": 1.0, "seconds": 1.0}
        point = {"sparsity.mode": "flops", "sparsity.flops": 0.1 + 0.1 * number, "sparsity.tilt": 0.0}
        members.append(Member.from_outcome(outcome(number, method=method, point=point, metrics=metrics), dense))
    points, dropped = gather_points(SPACE, members, 2, [])
    assert [point["magnitude.sparsity.flops"] for point in points] == pytest.approx([0.2, 0.4])
    assert dropped == {"points of random, which does not compete here"}
    assert gather_points(SPACE, members, 9, points)[0][0]["magnitude.sparsity.flops"] == pytest.approx(0.3)
    assert gather_points(SPACE, members[:1], 9, []) == ([], dropped)


def test_points_of_a_configuration_are_tried_first(tmp_path: Path) -> None:
    config = tmp_path / "study.toml"
    config.write_text(
        'trials = 4\nmethods = ["magnitude", "random"]\n[[points]]\nmethod = "random"\nsparsity.flops = 0.3\n'
    )
    plan = Sweep(load_config(config)).plan()
    assert plan.first[0]["method"] == "random" and plan.first[0]["random.sparsity.flops"] == 0.3
    for points, match in (
        ([{"method": "randon"}], "unknown method of this study: 'randon'; did you mean 'random'"),
        ([{"method": "random", "sparsity.flop": 0.3}], "unknown parameter of random: 'sparsity.flop'; did you mean"),
        ([{"method": "random", "sparsity.flops": 3}], "random.sparsity.flops"),
        ([{"sparsity.flops": 0.3}], "points: number 1 names no method"),
        ([{"method": "random"}, {"method": "magnitude"}], "points: 2 are given, for 1 trials"),
    ):
        with pytest.raises((InputError, ValidationError), match=match):
            Sweep(make_quick_config(tmp_path, points=points, trials=1)).plan()


def test_a_point_that_was_queued_is_tried_next(store: Path) -> None:
    Sweep(make_quick_config(store, name="queue", trials=2, max_flops="80%")).run()
    files = StudyFiles(store, "queue")
    point, notes = enqueue_point(files, "random", {"sparsity.flops": 0.31})
    assert point["random.sparsity.flops"] == 0.31 and "--trials 3` runs all of them" in notes[0]
    moved, notes = enqueue_point(files, "random", {"sparsity.flops": 0.9})
    assert float(moved["random.sparsity.flops"]) < 0.82 and "moved to the nearest one within" in notes[0]
    front = Sweep.resume("queue", store, trials=3).run()
    assert front.outcomes[2].point["sparsity.flops"] == 0.31
    with pytest.raises(InputError, match="unknown method of this study: 'increg'"):
        enqueue_point(files, "increg", {})


def test_time_of_devices_is_added_up() -> None:
    spent = [0.0]
    ending = Ending(StudyConfig(device_budget="2min"), lambda: 0, spent=lambda: spent[0])
    assert not ending()
    spent[0] = 120.0
    assert ending() and ending.reason == "the budget of 2min of devices is spent"
    with pytest.raises(InputError, match="device-budget: '8' is no time"):
        load_config(None, [], device_budget="8")
