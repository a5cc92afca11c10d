"""Coupled channels by the damage of their filters: scores of units, their ranking, and what is done to the filters."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from methods.contract.method import Problem
from methods.eigendamage.directions import Ranking, limit_ranking, scale_scores
from methods.eigendamage.eigenspace import ScoreNorm
from methods.eigendamage.filter_surgery import Filters
from methods.eigendamage.rotation import core_of
from methods.network.chains import groups_of
from methods.network.channels import ChannelGroup
from methods.network.cost import CostModel
from methods.network.units import Units


@dataclass(frozen=True)
class Operation:
    """What was done to the filters of a network.

    Attributes:
        groups: Channel groups of the network.
        kept: Units to keep by name of group.
        model: The network with corrected weights, not yet cut.
        damage: Predicted increase of the loss.
        flops: Multiply-accumulates after the cut.
        dense: Multiply-accumulates of the dense network.
        whole: Groups left whole because a layer of another type produces them.
    """

    groups: Sequence[ChannelGroup]
    kept: Mapping[str, Sequence[int]]
    model: nn.Module
    damage: float
    flops: int
    dense: int
    whole: Sequence[str]


def producers(problem: Problem) -> list[str]:
    """List the layers whose filters can be scored, whatever is to be ignored this time.

    Args:
        problem: The network.

    Returns:
        Names of convolutions and linear layers that produce channel groups: a function of the network alone, so that
        an analysis of them serves everybody.
    """
    groups = replace(problem, ignored=frozenset()).groups if problem.ignored else problem.groups
    able = (group for group in groups if is_scorable(problem.model, group))
    return list(dict.fromkeys(member.module for group in able for member in group.producers(problem.model)))


def is_scorable(model: nn.Module, group: ChannelGroup) -> bool:
    """Tell whether the Fisher matrix of all filters of a group can be had.

    Args:
        model: The network.
        group: One of its channel groups.

    Returns:
        Whether convolutions and linear layers alone produce it.
    """
    return all(type(model.get_submodule(each.module)) in (nn.Conv2d, nn.Linear) for each in group.producers(model))


def unit_scores(model: nn.Module, group: ChannelGroup, filters: Mapping[str, Filters]) -> Tensor:
    """Add up the damages of the filters that go with each unit.

    Args:
        model: The network.
        group: One of its channel groups.
        filters: Of all its producers.

    Returns:
        ``[units]``, an increase of the loss.
    """
    total = torch.zeros(group.channels, dtype=torch.float64)
    for member in group.producers(model):
        total += filters[member.module].scores().flatten()[member.index].sum(1)
    return total


def unit_rankings(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    filters: Mapping[str, Filters],
    cost: CostModel,
    norm: ScoreNorm,
    limit: float,
    round_to: int,
) -> tuple[list[list[int]], list[Ranking]]:
    """Rank the units of every group.

    Args:
        model: The network.
        groups: Its channel groups.
        filters: Of all their producers.
        cost: Of a choice of widths.
        norm: What scores are divided by.
        limit: Largest share of a group that may go.
        round_to: Widths are multiples of this.

    Returns:
        For each group its units in order, the costliest first, and the ranking of their scores.
    """
    orders, rankings = [], []
    prices = _prices(model, groups, cost, norm)
    for group in groups:
        scores, order = unit_scores(model, group, filters).sort(descending=True, stable=True)
        price = max(float(scores.sum()), 1e-300) if norm == "layer_sum" else prices[group.name]
        ranking = Ranking(tuple(scores.tolist()), limit_ranking(group.channels, limit), round_to)
        orders.append(order.tolist())
        rankings.append(scale_scores(ranking, 1 / price))
    return orders, rankings


def _prices(model: nn.Module, groups: Sequence[ChannelGroup], cost: CostModel, norm: ScoreNorm) -> dict[str, float]:
    """Return what goes with one unit of each group of the dense network."""
    if norm in ("per_mac", "marginal"):  # what a unit saves later depends on other groups, too
        return {group.name: float(cost.dense - cost.flops({group.name: group.channels - 1})) for group in groups}
    prices = dict.fromkeys((group.name for group in groups), 1.0)
    if norm == "per_param":
        units = Units(model, groups)
        width = units.valid.shape[1]
        for row, group in enumerate(groups):
            slots = (*units.producers, *units.affine, *units.consumers)
            each = (
                (slot.units == row * width).sum() * slot.parameter.numel() / slot.parameter.shape[slot.dim]
                for slot in slots
            )
            prices[group.name] = float(sum(each))
    return prices


def operate(
    model: nn.Module, groups: Sequence[ChannelGroup], kept: Mapping[str, Sequence[int]], filters: Mapping[str, Filters]
) -> tuple[nn.Module, float]:
    """Delete the filters of removed units and correct the others.

    Args:
        model: The network.
        groups: Its channel groups.
        kept: Units to keep by name of group.
        filters: Of the producers of all groups that lose units.

    Returns:
        A copy of the same shape with changed weights, and the predicted damage, an increase of the loss.
    """
    changed, harm = copy.deepcopy(model), 0.0
    gone: dict[str, set[int]] = {}
    for group in groups:
        units = sorted(set(range(group.channels)) - set(kept[group.name]))
        for member in group.producers(model) if units else ():
            gone.setdefault(member.module, set()).update(member.index[units].flatten().tolist())
    for name, outputs in gone.items():
        layer = core_of(changed.get_submodule(name))
        removed = torch.zeros(len(layer.weight), dtype=torch.bool)
        removed[sorted(outputs)] = True
        change, damage = filters[name].removal(removed.view(groups_of(layer), -1))
        with torch.no_grad():
            layer.weight += change.reshape(layer.weight.shape).to(layer.weight)
        harm += damage
    return changed, harm
