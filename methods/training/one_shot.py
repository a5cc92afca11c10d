"""Pruning in one shot: score every unit once, keep the best, cut, re-estimate batch norm, fine-tune."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.contract.method import Preview, Problem, Pruned, Record
from methods.contract.recipe import Recipe, derive_seed, learning_rate
from methods.network.architecture import describe
from methods.network.blocks import Block, list_groups_within, list_groups_without, remove_blocks
from methods.network.channels import ChannelGroup, cut
from methods.network.spectra import add_energies
from methods.training.damage import add_damages, keep_by_damage, list_block_damages
from methods.training.precision import choose_half_type
from methods.training.trainer import Hook, Trainer, evaluate, recalibrate
from spaces import ByDamage, ByEnergy, InputError, PerLayer, Sparsity

Score = Callable[[ChannelGroup], Tensor]
"""Importance of the units of a group, ``[units]``; the lowest go first."""


def keep_top(scores: Tensor, keep: int) -> list[int]:
    """Choose the units with the highest scores.

    Args:
        scores: ``[units]``; of equal scores the first units win.
        keep: How many to choose.

    Returns:
        Their indices, ascending.

    Example:
        >>> keep_top(torch.tensor([0.3, 0.9, 0.3, 0.1]), 2)
        [0, 1]
    """
    best = scores.argsort(descending=True, stable=True)[:keep]
    return sorted(best.tolist())


def draw_seed(generator: torch.Generator) -> int:
    """Draw a seed.

    Args:
        generator: Where from.

    Returns:
        A seed in ``0 .. 2**63 - 2``.
    """
    return int(torch.randint(2**63 - 1, (), generator=generator))


def prune_once(problem: Problem, sparsity: Sparsity, round_to: int, score: Score) -> Pruned:
    """Prune by scores of the dense network and fine-tune with the whole budget.

    Args:
        problem: The network, the data and the budget.
        sparsity: How many units of each group are kept.
        round_to: Widths are multiples of this.
        score: Importance of units; called once per group, in order.

    Returns:
        The smaller network.
    """
    allotted = allot(problem, sparsity, round_to)
    kept = {group.name: keep_top(score(group), allotted.keep[group.name]) for group in allotted.groups}
    model = remove_blocks(problem.model, allotted.removed) if allotted.removed else None
    return allotted.complete(cut_and_finetune(problem, allotted.groups, kept, model=model))


@dataclass(frozen=True)
class Allotted:
    """What is to be left of a network.

    Attributes:
        groups: The channel groups of the network without the blocks that go.
        keep: Kept units by name of group.
        removed: The residual blocks that go as a whole.
        moot: Names of the channel groups that go with them.
    """

    groups: list[ChannelGroup]
    keep: dict[str, int]
    removed: tuple[Block, ...] = ()
    moot: tuple[str, ...] = ()

    def complete(self, pruned: Pruned) -> Pruned:
        """Say of a pruned network what went with its blocks.

        Args:
            pruned: The network, with what is kept of the groups that are left.

        Returns:
            The same, with groups of which nothing is kept, and ``blocks_removed`` in ``extra``, where blocks went.
        """
        if not self.removed:
            return pruned
        kept = {**dict.fromkeys(self.moot, ()), **pruned.kept}
        return replace(pruned, kept=kept, extra={**pruned.extra, "blocks_removed": float(len(self.removed))})


def allot(problem: Problem, sparsity: Sparsity, round_to: int) -> Allotted:
    """Find what is to be left of a network: channel groups, how many units of each, and which residual blocks go.

    Args:
        problem: The network.
        sparsity: How many units of each group are kept, and which blocks.
        round_to: Widths are multiples of this.

    Returns:
        The groups, what is kept of each, and the residual blocks that go. A network without a block that is asked to go
        is an ``InputError``.
    """
    groups = problem.groups
    names: list[str] = []
    removed: list[Block] = []
    if isinstance(sparsity, ByEnergy):
        keep = sparsity.keep(add_energies(problem.model, groups), problem.cost.flops, round_to)
    elif isinstance(sparsity, ByDamage) and sparsity.blocks:
        keep, names = sparsity.choose_blocks(
            add_damages(problem),
            list_block_damages(problem),
            lambda rows: problem.cost_with_blocks.batch(rows)[0],
            round_to,
        )
        removed = [block for block in problem.blocks if block.name in names]
    elif isinstance(sparsity, ByDamage):
        keep = keep_by_damage(problem, sparsity, groups, round_to)
    else:
        if isinstance(sparsity, PerLayer) and any(sparsity.without.values()):
            sparsity, names = sparsity.split_blocks([block.name for block in problem.blocks])
            removed = [block for block in problem.blocks if block.name in names]
        layers = [group.layer for group in list_groups_without(groups, removed)]
        keep = sparsity.keep(layers, problem.cost.flops, round_to)
    moot = {name for block in removed for name in list_groups_within(groups, block)}
    return Allotted(
        list_groups_without(groups, removed),
        {name: width for name, width in keep.items() if name not in moot},
        tuple(removed),
        tuple(group.name for group in groups if group.name in moot),
    )


def allot_widths(problem: Problem, sparsity: Sparsity, round_to: int) -> tuple[list[ChannelGroup], dict[str, int]]:
    """Find the channel groups, and how many units of each are to be kept, for methods that keep every residual block.

    Args:
        problem: The network.
        sparsity: How many units of each group are kept.
        round_to: Widths are multiples of this.

    Returns:
        The groups, and kept units by name of group.

    Raises:
        InputError: If whole blocks are asked to go.
    """
    blocks = isinstance(sparsity, ByDamage) and sparsity.blocks
    if blocks or (isinstance(sparsity, PerLayer) and any(sparsity.without.values())):
        raise InputError("this method keeps every residual block: leave sparsity.blocks and sparsity.without out")
    allotted = allot(problem, sparsity, round_to)
    return allotted.groups, allotted.keep


def preview_widths(problem: Problem, sparsity: Sparsity, round_to: int) -> Preview:
    """Say what a network costs whose sparsity is given.

    Args:
        problem: The network.
        sparsity: How many units of each group are kept.
        round_to: Widths are multiples of this.

    Returns:
        The exact cost.
    """
    allotted = allot(problem, sparsity, round_to)
    if not allotted.removed:
        return problem.preview(allotted.keep)
    cost, left = problem.cost_with_blocks, {**allotted.keep, **{block.name: 0 for block in allotted.removed}}
    kept = {**allotted.keep, **dict.fromkeys(allotted.moot, 0)}
    return Preview(cost.flops(left), cost.params(left), kept=kept, removed=allotted.removed)


def cut_and_finetune(
    problem: Problem,
    groups: Sequence[ChannelGroup],
    kept: Mapping[str, Sequence[int]],
    *,
    model: torch.nn.Module | None = None,
    history: Sequence[Record] = (),
    extra: Mapping[str, float] | None = None,
    hook: Callable[[torch.nn.Module], Hook] | None = None,
) -> Pruned:
    """Cut a network, re-estimate batch norm and fine-tune with what is left of the budget.

    Args:
        problem: The dense network (the teacher, where the recipe distils), the data and the budget.
        groups: Channel groups of the dense network.
        kept: Units to keep by name of group.
        model: What to cut, if training changed the weights before; by default the dense network.
        history: Records so far; the last one says how many epochs and steps were used.
        extra: Results of the method so far.
        hook: Makes the hook of fine-tuning, given the cut network.

    Returns:
        The smaller network; ``extra`` also holds the task's metrics on validation before fine-tuning, such as
        ``accuracy_cut``.
    """
    recipe = problem.recipe
    smaller = cut(problem.model if model is None else model, groups, kept)
    describe(problem.model, smaller)  # a layer that cannot be stored is refused before the budget is spent
    seed = draw_seed(problem.generator)
    recalibrate(smaller, problem.train, recipe.recalibrate, recipe.batch_size, derive_seed(seed, 0))
    before = cut_metrics(smaller, problem)
    epochs, used = (int(history[-1]["epoch"]), int(history[-1]["step"])) if history else (0, 0)
    trainer = Trainer(
        smaller,
        problem.train,
        recipe,
        problem.steps - used,
        derive_seed(seed, 1),
        validation=problem.validation,
        hook=None if hook is None else hook(smaller),
        teacher=problem.model,
        rate=make_whole_schedule(problem, recipe, used),
        report=problem.report,
        epochs_before=epochs,
        steps_before=used,
        task=problem.task,
        comparable=True,
    )
    records = problem.session.train("finetune", trainer)
    return Pruned(
        model=smaller,
        kept=kept,
        history=[*history, *records],
        steps=problem.steps,
        extra={**(extra or {}), **before},
    )


def make_whole_schedule(problem: Problem, recipe: Recipe, used: int = 0) -> Callable[[int], float] | None:
    """Return the learning rates of a phase whose schedule spans the whole trial.

    Args:
        problem: The budget, and the recipe that says what a schedule spans.
        recipe: Of the phase.
        used: Steps of earlier phases.

    Returns:
        Learning rate by step of the phase; ``None`` where every phase has a schedule of its own.
    """
    if problem.recipe.span == "phase":
        return None
    spanning = recipe.with_changes(schedule=problem.recipe.schedule, warmup=problem.recipe.warmup)
    return lambda step: learning_rate(spanning, used + step, problem.steps)


def cut_metrics(model: torch.nn.Module, problem: Problem) -> dict[str, float]:
    """Measure a network that was just cut, before it is fine-tuned.

    Args:
        model: The cut network.
        problem: The validation data and the task.

    Returns:
        The task's metrics as ``NAME_cut``, such as ``accuracy_cut``.
    """
    found = evaluate(model, problem.validation, autocast=choose_half_type(problem.recipe), task=problem.task)
    return {f"{name}_cut": value for name, value in found.metrics.items()}
