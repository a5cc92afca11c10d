"""What IncReg and SPP do alike around their training: say what is ranked and how much of it goes, train, cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from methods.contract.method import Problem, Pruned, Record
from methods.contract.recipe import Recipe
from methods.network.blocks import replace_blocks
from methods.network.channels import ChannelGroup
from methods.network.units import Units
from methods.ranked.columns import Columns, allot_columns, cut_and_finetune_columns, find_unread, rates_by_layer
from methods.training.one_shot import allot, cut_and_finetune, make_whole_schedule
from methods.training.trainer import Hook, Trainer
from spaces import LayerGroup, Sparsity


@dataclass(frozen=True)
class Ranked:
    """The units of a network that are ranked while it trains, as a table with a row for each layer or channel group.

    Attributes:
        groups: The network's channel groups.
        layers: What each row stands for.
        to_remove: Units to be removed from each row.
        rates: How fast each row loses them, relative to the others.
        measure: Removed units to numbers for the record of an epoch; may wait for the device.
        finish: Cuts the removed units out and fine-tunes, given the records so far and the results.
        finetune: Uses the whole budget on the network as it is, where nothing is to be removed.
    """

    groups: Sequence[ChannelGroup]
    layers: Sequence[LayerGroup]
    to_remove: Sequence[int]
    rates: Sequence[float]
    measure: Callable[[Tensor], Record]
    finish: Callable[[Sequence[Record], Tensor, Mapping[str, float]], Pruned]
    finetune: Callable[[], Pruned]


def rank_channels(
    problem: Problem, model: nn.Module, sparsity: Sparsity, round_to: int, layer_rates: Mapping[str, float]
) -> tuple[Units, Ranked]:
    """Rank coupled channels.

    Args:
        problem: The network, the data and the budget.
        model: The copy that is trained; residual blocks that are to go are taken out of it here.
        sparsity: How many units of each group are kept.
        round_to: Widths are multiples of this.
        layer_rates: Factors by name of channel group or layer.

    Returns:
        The units, and what is to happen to them.
    """
    allotted = allot(problem, sparsity, round_to)
    groups, gone = allotted.groups, {block.name: 0 for block in allotted.removed}
    replace_blocks(model, allotted.removed)
    units, cost = Units(model, groups), problem.cost_with_blocks if gone else problem.cost

    def measure(removed: Tensor) -> Record:
        left = {name: len(kept) for name, kept in units.list_kept(removed).items()}
        return {"flops_if_cut": float(cost.flops({**left, **gone}))}

    def finish(history: Sequence[Record], removed: Tensor, extra: Mapping[str, float]) -> Pruned:
        kept = units.list_kept(removed)
        return allotted.complete(cut_and_finetune(problem, groups, kept, model=model, history=history, extra=extra))

    def finetune() -> Pruned:
        return allotted.complete(finetune_whole(problem, groups, model))

    layers = [group.layer for group in groups]
    to_remove = [group.channels - allotted.keep[group.name] for group in groups]
    rates = {
        name: rate
        for name, rate in layer_rates.items()
        if name not in allotted.moot and not any(block.holds(name) for block in allotted.removed)
    }
    by_layer = rates_by_layer(rates, layers, groups)
    return units, Ranked(groups, layers, to_remove, by_layer, measure, finish, finetune)


def rank_columns(
    problem: Problem,
    model: nn.Module,
    columns: Columns,
    sparsity: Sparsity,
    round_to: int,
    layer_rates: Mapping[str, float],
    cost: Callable[[Mapping[str, int]], int] | None = None,
) -> Ranked:
    """Rank columns of unrolled convolutions.

    Args:
        problem: The network, the data and the budget.
        model: The copy that is trained.
        columns: Its columns.
        sparsity: How many columns of each layer are kept.
        round_to: Numbers of columns are multiples of this.
        layer_rates: Factors by name of channel group or layer.
        cost: FLOPs of a choice of columns; by default the theoretical ones.

    Returns:
        What is to happen to the columns; cut are the channels that nothing reads any more.
    """
    groups, by_widths = problem.groups, problem.cost
    keep = allot_columns(columns, groups, sparsity, round_to, cost)

    def measure(removed: Tensor) -> Record:
        widths = {name: len(left) for name, left in find_unread(model, groups).items()}
        theoretical = columns.flops(columns.counts(removed))
        return {"flops_if_cut": float(by_widths.flops(widths)), "flops_without_columns": float(theoretical)}

    def finish(history: Sequence[Record], removed: Tensor, extra: Mapping[str, float]) -> Pruned:
        return cut_and_finetune_columns(problem, groups, model, history, extra)

    to_remove = [layer.channels - keep.get(layer.name, layer.channels) for layer in columns.layers]
    rates = rates_by_layer(layer_rates, columns.layers, groups)
    return Ranked(
        groups, columns.layers, to_remove, rates, measure, finish, lambda: finetune_whole(problem, groups, model)
    )


def finetune_whole(problem: Problem, groups: Sequence[ChannelGroup], model: nn.Module) -> Pruned:
    """Use the whole budget on the network as it is, where nothing is to be removed.

    Args:
        problem: The network, the data and the budget.
        groups: The channel groups that are left.
        model: The copy that is trained.

    Returns:
        The network.
    """
    every = {group.name: list(range(group.channels)) for group in groups}
    return cut_and_finetune(problem, groups, every, model=model)


def make_pruning_recipe(recipe: Recipe, lr_factor: float, decay_factor: float, decay: float | None) -> Recipe:
    """Return the recipe of the pruning phase, in which the learning rate is constant: survivors must be able to learn.

    Args:
        recipe: How the network is fine-tuned.
        lr_factor: Learning rate, in units of the recipe's.
        decay_factor: Weight decay, in units of the recipe's.
        decay: The same as a number; if given, the factor is not used.

    Returns:
        The recipe.
    """
    return recipe.with_changes(
        lr=recipe.lr * lr_factor,
        schedule="constant",
        warmup=0,
        weight_decay=recipe.weight_decay * decay_factor if decay is None else decay,
    )


def train_ranked(
    problem: Problem, model: nn.Module, recipe: Recipe, steps: int, seed: int, hook: Hook, phase: str
) -> list[Record]:
    """Train while a hook removes units.

    Args:
        problem: The data, and the dense network as teacher.
        model: Trained in place.
        recipe: Of the pruning phase.
        steps: Optimiser steps.
        seed: Decides the order of the data.
        hook: Removes units.
        phase: What the session calls this part of the trial.

    Returns:
        One record per epoch.
    """
    trainer = Trainer(
        model,
        problem.train,
        recipe,
        steps,
        seed,
        validation=problem.validation,
        hook=hook,
        rate=make_whole_schedule(problem, recipe),
        teacher=problem.model,
        report=problem.report,
        task=problem.task,
    )
    return list(problem.session.train(phase, trainer))
