"""Objectives of other people's making: named in the configuration, seen everywhere."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from methods.contract.classification import Classification
from methods.contract.task import Metric
from search.driver.sweep import Sweep
from search.objectives import OBJECTIVES, load_objectives
from search.report.plane import planes
from search.report.tables import front_table
from search.store.studies import load_front
from spaces import InputError
from tests.search.cases import make_quick_config

MINE = '''
"""How much energy a network takes, by somebody's own model of it."""

from search.objectives import MeasureContext, Objective


def joules(context: MeasureContext) -> float:
    return 1e-6 * sum(parameter.numel() for parameter in context.model.parameters())


energy = Objective(name="energy", title="energy", direction="minimise", unit="J", style=".3g", measure=joules)
broken = Objective(name="broken", title="b", direction="minimise", measure=lambda context: float("nan"))
number = 3
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_energy.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sweep_by_energy_shows_it_everywhere(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_quick_config(mine / "runs", name="own", trials=2, objectives=["accuracy", "my_energy:energy"])
    front = Sweep(config).run()
    for each in front.outcomes:
        assert each.metrics["energy"] == pytest.approx(1e-6 * each.metrics["params"])
    assert front.dense.metrics["energy"] == pytest.approx(1e-6 * front.dense.params)
    monkeypatch.chdir("/")  # the description lies with the study: who looks needs no module
    shown = load_front("own", mine / "runs")
    (member, *_) = shown.to_json()["members"]
    assert member["energy_share"] == pytest.approx(member["params_share"])
    assert shown.sort("energy")[0].trial == shown.cheapest(drop=100).trial
    (_, row, *_) = csv.DictReader(io.StringIO(shown.to_csv()))
    assert float(row["energy"]) == member["energy"]
    stored = json.loads((mine / "runs" / "studies" / "own" / "front.json").read_text())
    assert stored["objectives"] == ["accuracy", "energy"]
    (plane,) = planes(shown)
    assert plane.across.title == "energy, share of the dense network"
    assert "energy, J" in [column.heading for column in front_table(shown).columns]


def test_a_measurement_that_is_no_number_is_named_before_anything_is_trained(mine: Path) -> None:
    with pytest.raises(InputError, match="objective 'broken' gave nan, which is not a finite number"):
        Sweep(make_quick_config(mine / "runs", objectives=["accuracy", "my_energy:broken"])).run()
    assert not (mine / "runs" / "dense").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:energy", "there is no module 'nowhere'; it must be installed or lie in"),
        ("my_energy:enrgy", "unknown name in my_energy: 'enrgy'; did you mean 'energy'"),
        ("my_energy:number", "number is an int, not an Objective"),
        ("my_energy", "unknown objective 'my_energy'"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_sentence(mine: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_objectives(["accuracy", name])


class Streets(Classification):
    """A task with a metric of its own."""

    name = "streets"
    metrics = (Metric("mean_iou", "mean IoU", format=".1%", ideal=1.0, worst=0.0),)


def test_metrics_of_the_task_are_objectives() -> None:
    quality, flops = load_objectives("mean_iou,flops", Streets())
    assert (quality.name, quality.format(0.5), flops) == ("mean_iou", "50.0 %", OBJECTIVES["flops"])
    with pytest.raises(InputError, match=r"unknown objective 'accuracy'.* \(known: .*mean_iou"):
        load_objectives("accuracy,flops", Streets())
    with pytest.raises(InputError, match=r"smallest network .* \(mean_iou, predicted_damage\)"):
        load_objectives("params,flops", Streets())
