"""Widths for budgets: within them, countable, buildable, better than equal shares in what they were chosen by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from methods.contract.inputs import Inputs
from methods.network.layers import ZeroPadShortcut
from search.commands.cli import app
from search.driver import allocate as module
from search.driver.allocate import allocate
from search.driver.prepare import plan
from search.records.allocation import Allotments
from search.records.listener import NullListener
from search.records.timing import Timing
from search.report.allocation import allocation_table
from search.speed.latency_table import Entry, LatencyTable
from search.study.build import build_method
from search.study.config import Latency, StudyConfig
from search.tasks.models.resnet import BasicBlock
from spaces import InputError
from tests.search.cases import make_quick_config


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    return make_quick_config(tmp_path_factory.mktemp("runs"), name="a", trials=1, methods=["magnitude"])


@pytest.fixture(scope="module")
def by_flops(config: StudyConfig) -> Allotments:
    return allocate(config, "flops", ["70%", "0.4", "10%"], NullListener())


def test_every_allocation_is_within_its_budget_and_nothing_more_fits(by_flops: Allotments, config: StudyConfig) -> None:
    planned = plan(config)
    assert [row.budget for row in by_flops.rows] == pytest.approx([0.7, 0.4, 0.1], abs=1e-4)
    for row in by_flops.rows:
        assert row.flops == planned.cost.flops(row.widths) <= row.budget * by_flops.flops + 1
        assert row.params == planned.cost.params(row.widths)
        for name, width in row.widths.items():
            if width < by_flops.units[name]:
                assert planned.cost.flops({**row.widths, name: width + 1}) > row.budget * by_flops.flops
    damages = [row.damage for row in by_flops.rows]
    assert damages == sorted(damages) and damages[-1] > 0


def test_an_allocation_is_a_point_of_a_method(by_flops: Allotments, config: StudyConfig) -> None:
    planned = plan(config)
    for row in by_flops.rows:
        found = build_method("magnitude", row.settings(by_flops.units), 1).preview(planned.problem)
        assert found is not None and found.kept == row.widths and found.flops == row.flops


def test_budgets_of_parameters(config: StudyConfig) -> None:
    found = allocate(config, "params", ["50%", "9k"], NullListener())
    assert found.rows[0].params <= found.params / 2 and found.rows[1].params <= 9_000
    assert found.rows[0].params > 0.45 * found.params


def test_budgets_of_time_spend_the_table_and_time_what_came_out(
    config: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table in which only the first group takes time: its units go, and no others."""

    def table(
        model: object, example: Inputs, groups: list[object], conditions: object, blocks: Mapping[str, object]
    ) -> LatencyTable:
        assert not blocks
        per_unit = np.zeros(len(groups))
        per_unit[0] = 1e-3
        names = tuple(group.name for group in groups)  # type: ignore[attr-defined]
        units = groups[0].channels  # type: ignore[attr-defined]
        return LatencyTable(names, 1e-3 + units * 1e-3, 1e-3, per_unit, ())

    def pair(
        conditions: object, dense: nn.Module, smaller: nn.Module, example: Inputs
    ) -> tuple[dict[str, Timing], None]:
        return {"cpu": Timing.from_seconds([2.0] * 3, [1.0] * 3)}, None

    monkeypatch.setattr(module, "measure_table", table)
    monkeypatch.setattr(module, "measure_pair", pair)
    quick = config.model_copy(update={"latency": Latency(targets=("cpu",), seconds=0.02)})
    found = allocate(quick, "latency", ["60%", "4ms"], NullListener())
    first, *others = found.units
    assert found.seconds is not None and found.seconds == pytest.approx(1e-3 + found.units[first] * 1e-3)
    for row in found.rows:
        assert row.seconds is not None and row.measured == pytest.approx(found.seconds / 2)
        assert row.seconds <= row.budget * found.seconds
        assert row.widths[first] < found.units[first]
        assert all(row.widths[name] == found.units[name] for name in others)
    assert found.rows[1].widths[first] == 3
    monkeypatch.setattr(module, "measure_pair", lambda *networks: ({}, {"cpu": "cannot be exported"}))
    untimed = allocate(
        quick.model_copy(update={"objectives": ("flops", "accuracy")}), "latency", ["60%"], NullListener()
    )
    assert untimed.rows[0].measured is None and untimed.metric == "accuracy"
    console = Console(width=100)
    with console.capture() as shown:
        console.print(allocation_table(untimed, "tiny"))
    assert "–" in shown.get() and " 0 us" not in shown.get()
    everything = allocate(quick, "latency", [], NullListener())
    assert len(everything.rows) == len(module.SHARES) - 1, "a tenth is less than what no width changes"


@pytest.mark.parametrize(
    ("resource", "budgets", "message"),
    [
        ("energy", [], "unknown resource 'energy'"),
        ("latency", ["50"], "not a latency; write a time with its unit"),
        ("flops", ["1.5"], "budget"),
        ("flops", ["0.01%"], "cannot be met; the least is"),
    ],
)
def test_budgets_that_are_none(config: StudyConfig, resource: str, budgets: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        allocate(config, resource, budgets, NullListener())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_the_terminal(by_flops: Allotments, width: int) -> None:
    console = Console(width=width, record=True, file=None)
    with console.capture() as shown:
        console.print(allocation_table(by_flops, "tiny"))
    lines = shown.get().splitlines()
    assert max(map(len, lines)) <= width
    assert "uniform" in shown.get() and "70.0 %" in shown.get()


def test_the_command_writes_what_it_shows(config: StudyConfig, tmp_path: Path) -> None:
    file = tmp_path / "widths.json"
    words = [
        "allocate",
        "--blocks",
        "--model",
        config.model,
        "--data",
        config.data,
        "--budgets",
        "50%",
        "--quiet",
        "--json",
    ]
    words += ["--directory", str(config.directory), "--to", str(file), "--set", "dense.epochs=1", "--set", "seed=0"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said == json.loads(file.read_text())
    assert said["resource"] == "flops" and len(said["rows"]) == 1
    assert said["rows"][0]["settings"]["sparsity.mode"] == "layer"
    gone = [key for key in said["rows"][0]["settings"] if key.startswith("sparsity.without[")]
    assert len(gone) == len(said["rows"][0]["removed"])


def deep() -> nn.Module:
    """A network for the digits with three blocks that can go and one that cannot."""
    stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    first, second = (BasicBlock(8, 8, 1, ZeroPadShortcut) for _ in range(2))
    wider = BasicBlock(8, 12, 2, ZeroPadShortcut)
    return nn.Sequential(
        stem,
        first,
        second,
        wider,
        BasicBlock(12, 12, 1, ZeroPadShortcut),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 10),
    )


def test_whole_blocks_go_where_they_may(config: StudyConfig) -> None:
    """Each allocation is the network that its settings make, and does no more damage than one with all blocks."""
    config = config.model_copy(update={"model": f"{__name__}:deep"})
    deeper = config.model_copy(update={"blocks": True})
    budgets = ["60%", "30%", "8%"]
    without, found = (allocate(each, "flops", budgets, NullListener()) for each in (config, deeper))
    planned = plan(deeper.model_copy(update={"allocation": "damage"}))
    names = {block.name for block in planned.problem.blocks}
    assert names == {"1", "2", "4"} and any(row.removed for row in found.rows)
    for before, row in zip(without.rows, found.rows, strict=True):
        assert set(row.removed) <= names and before.removed == ()
        assert row.flops <= row.budget * found.flops + 1
        assert row.damage <= before.damage + 1e-9
        assert all(
            (width == 0) == name.startswith(tuple(f"{block}." for block in row.removed))
            for name, width in row.widths.items()
        )
        seen = build_method("magnitude", row.settings(found.units), 1).preview(planned.problem)
        assert seen is not None and (seen.flops, seen.params, seen.kept) == (row.flops, row.params, row.widths)
    console = Console(width=120)
    with console.capture() as shown:
        console.print(allocation_table(found, "tiny"))
    assert "blocks gone" in shown.get()


def test_blocks_are_timed_by_the_table(config: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only blocks take time, blocks go, and all widths stay."""

    def table(
        model: object, example: Inputs, groups: list[object], conditions: object, blocks: Mapping[str, object]
    ) -> LatencyTable:
        names, count = tuple(group.name for group in groups), len(groups)  # type: ignore[attr-defined]
        own = [
            Entry((0,), (np.array([1, 2]),), np.array([1e-3, 1e-3]), count + number) for number in range(len(blocks))
        ]
        dense = 1e-3 * (1 + len(blocks))
        return LatencyTable(names, dense, 1e-3, np.zeros(count), tuple(own), (), tuple(blocks))

    monkeypatch.setattr(module, "measure_table", table)
    monkeypatch.setattr(
        module, "measure_pair", lambda *networks: ({"cpu": Timing.from_seconds([2.0] * 3, [1.0] * 3)}, {})
    )
    quick = config.model_copy(
        update={"latency": Latency(targets=("cpu",), seconds=0.02), "blocks": True, "model": f"{__name__}:deep"}
    )
    (row,) = allocate(quick, "latency", ["3ms"], NullListener()).rows
    assert len(row.removed) == 1 and row.seconds == pytest.approx(3e-3)
