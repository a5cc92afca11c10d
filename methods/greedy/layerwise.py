"""Pruning a network layer by layer, each in the network that the layers before have left, with a little tuning.

The procedure of Ye, Gong, Nie, Zhou, Klivans, Liu (2020, arXiv 2003.01794): a layer is emptied and filled greedily
until it is as accurate as the full one within a tolerance, the whole network is tuned for a tenth of an epoch, and
the next layer follows. Here a layer is cut as soon as it is chosen, its mask folded into what reads it: the same
function, and everything after runs on a smaller network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.contract.method import Problem, Record
from methods.greedy.forward_selection import RULES, Ordering, Step
from methods.greedy.readers import fold, scales_kept
from methods.greedy.selection import Judge, Layer, Search, select
from methods.network.channels import ChannelGroup, cut
from methods.network.compaction import groups_after
from methods.training.trainer import Trainer, recalibrate
from spaces import round_up_width


@dataclass(frozen=True)
class Partial:
    """A network of which some layers are pruned.

    Attributes:
        model: The cut network in eval mode, masks folded into its weights.
        groups: The channel groups of the dense network as they are now, in the same order.
        kept: Units of the dense network that are left, by name of group.
        masks: What the consumers of each unit that is left have been multiplied with, by name of group.
    """

    model: nn.Module
    groups: Sequence[ChannelGroup]
    kept: Mapping[str, Sequence[int]]
    masks: Mapping[str, Tensor]

    @staticmethod
    def from_model(model: nn.Module, groups: Sequence[ChannelGroup]) -> Partial:
        """Begin with a network of which nothing is pruned.

        Args:
            model: The network.
            groups: Its channel groups.

        Returns:
            A copy of it.
        """
        return Partial(
            copy.deepcopy(model).eval(),
            groups,
            {group.name: list(range(group.channels)) for group in groups},
            {group.name: torch.ones(group.channels, dtype=torch.float64) for group in groups},
        )

    def group(self, name: str) -> ChannelGroup:
        """Return a group as it is now.

        Args:
            name: Its name.

        Returns:
            The group.
        """
        return next(group for group in self.groups if group.name == name)

    def fold_and_cut(self, masks: Mapping[str, Tensor]) -> Partial:
        """Fold masks into the weights that read their layers, and cut what they leave out.

        Args:
            masks: By name of group, ``[units as they are now]``, zero for units that go; groups that are not
                named stay as they are.

        Returns:
            The smaller network.
        """
        model = copy.deepcopy(self.model)
        left = {group.name: list(range(group.channels)) for group in self.groups}
        for name, mask in masks.items():
            fold(model, self.group(name), mask)
            left[name] = mask.nonzero().flatten().tolist()
        return Partial(
            cut(model, self.groups, left),
            groups_after(self.groups, left),
            {name: [units[unit] for unit in left[name]] for name, units in self.kept.items()},
            {name: (mask * masks.get(name, torch.ones_like(mask)))[left[name]] for name, mask in self.masks.items()},
        )

    def trainable(self, keep_scale: bool) -> AbstractContextManager[nn.Module]:
        """Give the network to be trained in place of :attr:`model`.

        Args:
            keep_scale: Whether the factors of masks are constants in front of what is trained.

        Returns:
            A context, at the end of which :attr:`model` is trained.
        """
        scaled = [(group, mask) for group in self.groups if bool(((mask := self.masks[group.name]) != 1).any())]
        return scales_kept(self.model, scaled) if keep_scale and scaled else nullcontext(self.model)


@dataclass(frozen=True)
class Tuning:
    """What happens between layers.

    Attributes:
        steps: Optimiser steps; with none, batch norm is estimated again instead.
        lr: Learning rate, constant, of plain gradient descent.
        keep_scale: Whether the factors of masks are constants in front of what is trained.
    """

    steps: int
    lr: float
    keep_scale: bool


def tune(
    partial: Partial, problem: Problem, tuning: Tuning, history: Sequence[Record], seed: int
) -> tuple[Partial, list[Record]]:
    """Tune the whole network for a moment.

    Args:
        partial: The network; not changed.
        problem: The data, the recipe, and whom to report to.
        tuning: For how long.
        history: Records so far.
        seed: Decides the batches.

    Returns:
        The tuned network, and all records.
    """
    partial = Partial(copy.deepcopy(partial.model), partial.groups, partial.kept, partial.masks)
    recipe = problem.recipe
    if tuning.steps == 0:
        recalibrate(partial.model, problem.train, recipe.recalibrate, recipe.batch_size, seed)
        return partial, list(history)
    # Plain gradient descent with weight decay on everything, as the authors' code runs (not as its options say).
    plain = recipe.with_changes(
        optimizer="sgd",
        lr=tuning.lr,
        momentum=0.0,
        nesterov=False,
        schedule="constant",
        warmup=0.0,
        decay_norm=True,
    )
    epochs, steps = (int(history[-1]["epoch"]), int(history[-1]["step"])) if history else (0, 0)
    with partial.trainable(tuning.keep_scale) as model:
        trainer = Trainer(
            model,
            problem.train,
            plain,
            tuning.steps,
            seed,
            validation=problem.validation,
            teacher=problem.model,
            report=problem.report,
            epochs_before=epochs,
            steps_before=steps,
            task=problem.task,
        )
        records = problem.session.train(f"tune/{steps}", trainer)
    return partial, [*history, *records]


Enough = Callable[[Layer, Ordering, int], bool]
"""Whether so many units of a layer are enough, given the steps so far."""


@dataclass(frozen=True)
class Width:
    """Enough is a number of units.

    Attributes:
        units: How many.
    """

    units: int

    def __call__(self, layer: Layer, ordering: Ordering, width: int) -> bool:
        """Answer, see :data:`Enough`."""
        return width >= self.units


@dataclass(frozen=True)
class Accurate:
    """Enough is to be as good as the whole layer by the task's first metric, within a tolerance.

    Attributes:
        wanted: Quality on the subset, as :meth:`Layer.qualities` gives it.
        glance: Quality on its first batch below which the rest is not looked at.
    """

    wanted: float
    glance: float

    def __call__(self, layer: Layer, ordering: Ordering, width: int) -> bool:
        """Answer, see :data:`Enough`."""
        mask = ordering.mask(width)[None]
        if float(layer.qualities(mask, batches=1)) < self.glance:
            return False
        return float(layer.qualities(mask)) >= self.wanted


def select_units(layer: Layer, judges: Sequence[Judge], search: Search, enough: Enough, round_to: int) -> Tensor | None:
    """Select units of one layer until they are enough.

    Args:
        layer: The layer.
        judges: Objectives; of several results the one with the fewest units wins, then the one with the lower loss.
        search: How units are selected.
        enough: When to stop.
        round_to: Widths are multiples of this.

    Returns:
        The mask, ``[units]``, or None if no number below all of them is enough.
    """
    masks = [mask for judge in judges if (mask := _add_until(layer, judge, search, enough, round_to)) is not None]
    counts = [int((mask != 0).sum()) for mask in masks]
    rivals = [mask for mask, count in zip(masks, counts, strict=True) if count == min(counts)]
    return min(rivals, key=layer.loss) if len(rivals) > 1 else next(iter(rivals), None)


def _add_until(layer: Layer, judge: Judge, search: Search, enough: Enough, round_to: int) -> Tensor | None:
    """Add units by one objective until they are enough."""
    steps: list[Step] = []
    units = layer.group.channels
    for step in select(layer, judge, search):
        steps.append(step)
        width = len({step.unit for step in steps})
        if width == units:
            break
        ordering = Ordering.from_steps(steps, units, RULES[search.rule])
        if width == round_up_width(width, units, round_to) and enough(layer, ordering, width):
            return ordering.mask(width)
    return None
