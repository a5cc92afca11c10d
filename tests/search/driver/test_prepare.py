"""What is wrong with parts of somebody else's is said in one sentence before anything is trained or written."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from methods.network.cost import count
from methods.training.damage import BATCH, BATCHES, widths_of
from search.driver.prepare import plan
from search.driver.sweep import Sweep
from search.records.listener import NullListener
from search.store.studies import StudyFiles
from search.study.samplers.base import Aim
from spaces import InputError
from tests.search.cases import make_quick_config

HERE = "tests.search.driver.test_prepare"


def plain() -> nn.Module:
    """Layers in a row."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


class Moody:
    """A sampler that cannot be made."""

    def __init__(self, aim: Aim, seed: int) -> None:
        raise OSError("not today")

    def observe(self, trial: object) -> None: ...

    def propose(self, *given: object) -> list[object]:
        return []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sampler": "nowhere:Mine"}, "sampler 'nowhere:Mine': there is no module 'nowhere'"),
        ({"sampler": f"{HERE}:Mine"}, "unknown name in .*: 'Mine'"),
        ({"sampler": f"{HERE}:math"}, "is a module, not a class of samplers"),
        ({"sampler": f"{HERE}:Path"}, "has no observe and propose"),
        ({"sampler": f"{HERE}:Moody"}, r"cannot be made as Name\(aim, seed\): not today"),
        ({"scheduler": f"{HERE}:math"}, "scheduler .*:math'"),
        ({"methods": [f"{HERE}:Moody"]}, "is no subclass of methods.Method"),
        ({"task": f"{HERE}:Moody", "objectives": ["accuracy", "flops"]}, "is the class Moody, not a subclass of"),
        ({"resources": {"executor": f"{HERE}:math"}}, "executor .*:math'"),
        ({"latency": {"targets": [f"{HERE}:math"]}}, "is a module, not a search.speed.targets.Target"),
        ({"model": f"{HERE}:HERE"}, "is a str, not a function"),
        ({"data": f"{HERE}:HERE"}, "is a str, not a function"),
    ],
)
def test_parts_of_the_wrong_kind(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    assert math  # a module to be named
    with pytest.raises(InputError, match=said) as caught:
        Sweep(make_quick_config(tmp_path, **given), NullListener()).run()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "studies").exists() and not (tmp_path / "dense").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"blocks": True}, "blocks = true changes nothing with allocation = 'flops': blocks go by the damage"),
        (
            {"blocks": True, "allocation": "damage", "model": f"{HERE}:plain"},
            "plain has no residual block that could go as a whole",
        ),
        (
            {"blocks": True, "allocation": "damage", "methods": ["greedy"]},
            "none of greedy removes blocks; .*increg.* do",
        ),
    ],
)
def test_blocks_that_cannot_go(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan(make_quick_config(tmp_path, **given))


def test_widths_follow_from_damage_where_measuring_it_pays(tmp_path: Path) -> None:
    """Where it takes less than one trial; for short ones a share of the FLOPs; what the user says goes before."""

    def modes(**given: Any) -> dict[str, object]:
        methods = ["magnitude", "sdprun", "pivoting"]
        planned = plan(make_quick_config(tmp_path, methods=methods, **given))
        names = ["magnitude.sparsity.mode", "sdprun.thresholds", "pivoting.sparsity.mode"]
        return {name: planned.space[name].only if name in planned.space else None for name in names}

    groups = plan(make_quick_config(tmp_path)).groups
    measured = sum(len(widths_of(group)) for group in groups) * 2 * BATCHES * BATCH
    enough = math.ceil(measured / (3 * 16 * 64))  # epochs of 16 steps of 64 images
    short, long = {"finetune": {"epochs": enough - 2}}, {"finetune": {"epochs": enough + 1}}
    usual = {"magnitude.sparsity.mode": "flops", "sdprun.thresholds": None, "pivoting.sparsity.mode": "flops"}
    damage = dict.fromkeys(usual, "damage")
    assert modes(**short) == usual == modes(**long, allocation="flops")
    assert modes(**long) == damage
    tilted = {
        "magnitude": {"sparsity.tilt": 0.2},
        "sdprun": {"thresholds": "shared"},
        "pivoting": {"sparsity.mode": "flops"},
    }
    assert modes(**long, space=tilted) == {**usual, "sdprun.thresholds": "shared"}
    assert modes(**long, preset="paper") == {**damage, "sdprun.thresholds": None}
    line = next(line for line in plan(make_quick_config(tmp_path, **long)).lines() if line.startswith("space"))
    assert line.endswith("; widths of least measured damage, in methods that can be told so")


def test_with_limits_only_settings_are_searched_whose_cost_is_known(tmp_path: Path) -> None:
    methods = ["eigendamage", "sdprun"]
    names = ("eigendamage.rounds", "sdprun.thresholds")

    def fixed(**given: Any) -> list[object]:
        space = plan(make_quick_config(tmp_path, methods=methods, **given)).space
        return [space[name].only for name in names]

    assert fixed() == [None, None]
    assert fixed(max_params="60%") == [1, "even"]
    chosen = {"eigendamage": {"rounds": 3}, "sdprun": {"thresholds": "shared"}}
    assert fixed(max_params="60%", space=chosen) == [3, "shared"]


def test_costs_that_an_analysis_tells_keep_to_limits(tmp_path: Path) -> None:
    """A layer may become three, with more parameters: a share of the FLOPs alone does not tell."""
    limits = {"min_flops": "30%", "max_flops": "70%", "max_params": "45%"}
    config = make_quick_config(tmp_path, name="band", trials=6, methods=["eigendamage"], **limits)
    front = Sweep(config, NullListener()).run()
    assert len(front.outcomes) == 6 and front.outside == ()
    for outcome in front.outcomes:
        assert 0.3 <= outcome.metrics["flops"] / front.dense.flops <= 0.7
        assert outcome.metrics["params"] <= 0.45 * front.dense.params


def test_a_sweep_in_which_blocks_go(tmp_path: Path) -> None:
    """Trials lose blocks, are stored, and are rebuilt; a resumed study has the same space."""
    config = make_quick_config(
        tmp_path,
        name="deep",
        trials=4,
        methods=["magnitude", "spp"],
        allocation="damage",
        blocks=True,
        max_flops="15%",
        finetune={"epochs": 2, "recipe": {"recalibrate": 1}},
    )
    front = Sweep(config, NullListener()).run()
    assert len(front.outcomes) == 4
    removed = [outcome.extra.get("blocks_removed", 0.0) for outcome in front.outcomes]
    assert any(removed)
    files = StudyFiles.open(tmp_path, "deep")
    for outcome, gone in zip(front.outcomes, removed, strict=True):
        assert outcome.point["sparsity.blocks"] is True
        assert outcome.metrics["flops"] <= 0.15 * front.dense.flops
        model = files.rebuild(outcome.number)
        assert sum(isinstance(module, nn.Identity) for module in model.modules()) >= gone
        assert count(model, torch.zeros(1, 1, 8, 8)).flops == outcome.metrics["flops"]
        assert (gone > 0) == any(kept == 0 for kept, _ in outcome.widths.values())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budget": "0.001s"}, ["the budget of 0.001s is less than one trial takes here"]),
        ({"device_budget": "0.001s"}, ["the device-budget of 0.001s is less than one trial takes here"]),
        ({"budget": "1d", "device_budget": "1d"}, []),
        ({}, []),
    ],
)
def test_a_budget_that_is_shorter_than_a_trial_is_told_before(
    tmp_path: Path, given: dict[str, Any], said: list[str]
) -> None:
    warnings = [each for each in plan(make_quick_config(tmp_path, **given)).warnings if "budget" in each]
    assert [each.partition(":")[0] for each in warnings] == said
