"""The best widths for any budget of FLOPs, parameters or seconds, by measured damage: before any trial.

Damage curves are measured once and kept with the study's other analyses; the solver then spends every budget
(``spaces/budget.py``). Residual blocks may go as a whole, where that is asked for. Beside each allocation stands the
uniform one within the same budget, and for both of them the quality of the network that was cut so, batch norm
estimated again and nothing trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from methods.network.blocks import list_groups_without, remove_blocks
from methods.network.channels import cut
from methods.network.cost import count
from methods.network.importance import l1_importance
from methods.training.damage import add_damages, list_block_damages
from methods.training.evaluation import recalibrate
from methods.training.one_shot import keep_top
from search.driver.dense_setting import dense_setting
from search.driver.plan import Plan
from search.driver.prepare import plan
from search.objectives.limits import parse_latency, parse_limit
from search.objectives.quality import measure_quality
from search.records.allocation import Allotments, Allotted
from search.records.listener import Listener
from search.speed.latency_table import LatencyTable, measure_table
from search.speed.measure import measure_pair
from search.study.config import StudyConfig
from search.trials.trial import Setting, problem_of
from spaces import InputError, LayerBlock, LayerGroup, explain_unknown_name
from spaces.budget import Costs, choose_best_widths, damage_at
from spaces.layers import HIGHEST_RATIO, allowed_widths, round_down_width

RESOURCES = ("flops", "params", "latency")
"""What a budget can be of."""

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Budgets of a whole front, as shares of the dense network's cost."""

LEVELS = 400
"""Uniform shares of the units that are looked at."""


def allocate(config: StudyConfig, resource: str, budgets: Sequence[str], listener: Listener) -> Allotments:
    """Find the best widths for budgets.

    Args:
        config: Network and data; the dense network is trained unless it is cached. Its ``latency`` says where seconds
            are measured, and its ``blocks`` whether residual blocks may go as a whole.
        resource: What the budgets are of.
        budgets: Shares (``"50%"``) of the dense network's cost, counts (``"20M"``), or times (``"2ms"``); none for
            those of :data:`SHARES` that can be met.
        listener: Receives progress.

    Returns:
        The allocations.

    Raises:
        InputError: If a budget cannot be read or met; says the least that can.
    """
    if resource not in RESOURCES:
        raise InputError(explain_unknown_name("resource", resource, RESOURCES))
    if resource == "latency" and config.latency.targets is None:
        config = config.model_copy(update={"latency": config.latency.model_copy(update={"targets": ("cpu",)})})
    if resource == "latency":
        for budget in budgets:
            parse_latency(budget, 1.0, "budget")  # what cannot be read is said before anything is trained
    if config.blocks:
        config = config.model_copy(update={"allocation": "damage", "methods": ("magnitude",), "space": {}})
    listener.stage("loading data and network")
    planned = plan(config)
    for warning in planned.warnings:
        listener.warning(warning)
    if resource != "latency":
        wholes = {"flops": planned.cost.dense, "params": planned.params}
        counts = [parse_limit(budget, wholes[resource], "budget") for budget in budgets]
    listener.stage("dense network")
    setting = dense_setting(planned, listener.dense_epoch)[0].move_to_device()
    problem = problem_of(setting, config.seed)
    listener.stage("measuring damage curves")
    layers = add_damages(problem)
    blocks = list_block_damages(problem) if config.blocks else []
    if resource == "latency":
        assert planned.timed is not None
        listener.stage(f"timing modules on {planned.timed.targets[0]}")
        parts = {block.name: block.modules for block in problem.blocks} if blocks else {}
        table = measure_table(setting.model, setting.example, problem.groups, planned.timed, blocks=parts)
        times = [parse_latency(budget, table.dense, "budget") for budget in budgets]
        times = times or [share * table.dense for share in SHARES]
        spending = _Spending(resource, table.batch, times, bool(budgets), table)
    else:
        whole, column = wholes[resource], RESOURCES.index(resource)
        model = problem.cost_with_blocks if blocks else planned.cost
        wanted = counts or [math.floor(share * whole) for share in SHARES]
        spending = _Spending(resource, lambda rows: model.batch(rows)[column], wanted, bool(budgets))
    listener.stage("allocating")
    return _allot(planned, setting, layers, blocks, spending)


@dataclass(frozen=True)
class _Spending:
    """What is spent: costs of widths, budgets in the same unit and whether the user named them, the table of times."""

    resource: str
    costs: Costs
    targets: Sequence[float]
    named: bool
    table: LatencyTable | None = None


def _allot(
    planned: Plan, setting: Setting, layers: Sequence[LayerGroup], blocks: Sequence[LayerBlock], spending: _Spending
) -> Allotments:
    """Solve for every budget, cut, count, time and measure what came out."""
    units = {layer.name: layer.channels for layer in layers}
    costs, table = spending.costs, spending.table
    curves = {layer.name: list(layer.damages) for layer in layers}
    curves |= {block.name: [(0, block.damage), (1, 0.0)] for block in blocks}
    allowed = {layer.name: allowed_widths(layer, planned.round_to) for layer in layers}
    allowed |= {block.name: [0, 1] for block in blocks}
    dense = float(costs(np.array([[each[-1] for each in allowed.values()]]))[0])
    inside = {block.name: block.groups for block in blocks}
    chosen = choose_best_widths(curves, costs, spending.targets, allowed, inside)
    dense_metrics = measure_quality(setting.model, setting.validation, setting.task)
    metric = next(iter(dense_metrics))  # the task's own quality, whatever the study's objectives begin with
    measure = _measure(setting, metric)
    rows = []
    for target, widths in zip(spending.targets, chosen, strict=True):
        if widths is None and not spending.named:
            continue
        if widths is None:
            least = float(costs(np.array([[each[0] for each in allowed.values()]]))[0])
            raise InputError(
                f"a budget of {target / dense:.2%} of the {spending.resource} cannot be met; the least is "
                f"{least / dense:.2%}"
            )
        removed = [block.name for block in blocks if not widths[block.name]]
        moot = {name for block in removed for name in inside[block]}
        model, reached = measure({name: width for name, width in widths.items() if name in units}, removed)
        cost = count(model, setting.example)
        row = Allotted(
            budget=target / dense,
            widths={name: 0 if name in moot else width for name, width in widths.items() if name in units},
            removed=tuple(removed),
            flops=cost.flops,
            params=cost.params,
            seconds=None,
            measured=None,
            damage=sum(damage_at(curves[name], width) for name, width in widths.items()),
            quality=reached,
            uniform=measure(_uniform(units, costs, target, planned.round_to, len(blocks)), ())[1],
        )
        if table is not None and planned.timed is not None:
            timing = measure_pair(planned.timed, setting.model, model, setting.example)[0].get(planned.timed.targets[0])
            predicted = float(table.batch(np.array([list(widths.values())]))[0])
            row = replace(row, seconds=predicted, measured=None if timing is None else timing.share * table.dense)
        rows.append(row)
    return Allotments(
        resource=spending.resource,
        metric=metric,
        units=units,
        flops=planned.cost.dense,
        params=planned.params,
        seconds=None if table is None else table.dense,
        quality=dense_metrics[metric],
        rows=tuple(rows),
    )


def _measure(setting: Setting, metric: str) -> Callable[[Mapping[str, int], Sequence[str]], tuple[nn.Module, float]]:
    """Return what cuts a network to widths by L1 norms, estimates batch norm again and measures its quality.

    It is given kept units by name of group, and the names of residual blocks that go.
    """
    problem = problem_of(setting, 0)
    scores = {group.name: l1_importance(setting.model, group) for group in problem.groups}

    def measure(widths: Mapping[str, int], names: Sequence[str]) -> tuple[nn.Module, float]:
        removed = [block for block in problem.blocks if block.name in names] if names else []
        groups = list_groups_without(problem.groups, removed)
        kept = {group.name: keep_top(scores[group.name], widths[group.name]) for group in groups}
        smaller = cut(remove_blocks(setting.model, removed), groups, kept)
        recalibrate(smaller, setting.train, setting.recipe.recalibrate, setting.recipe.batch_size, 1)
        return smaller, measure_quality(smaller, setting.validation, setting.task)[metric]

    return measure


def _uniform(units: Mapping[str, int], costs: Costs, target: float, round_to: int, blocks: int) -> dict[str, int]:
    """Find the widest network with all blocks within a budget whose groups all keep the same share of their units."""
    levels = np.linspace(1 - HIGHEST_RATIO, 1.0, LEVELS)
    rows: NDArray[np.int64] = np.array([
        [round_down_width(level * channels + 1e-9, channels, round_to) for channels in units.values()]
        for level in levels
    ])
    present = np.ones((len(rows), blocks), dtype=np.int64)
    fits = np.flatnonzero(np.asarray(costs(np.column_stack([rows, present]))) <= target)
    row = rows[fits[-1]] if len(fits) else rows[0]
    return dict(zip(units, row.tolist(), strict=True))
