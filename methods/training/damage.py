"""Curves of damage against width: what cutting one channel group alone does to the loss, measured once per sweep.

Each group is cut alone to a few widths by the L1 norms of its units, batch norm is estimated again, and the loss on
some training images is compared with the dense network's; so is the network without each residual block. All that is
computed in the precision and the layout of the recipe. The analysis is shared by all trials. An allocation then adds
these damages up and spends a budget where they are least (:class:`spaces.sparsity.ByDamage`); the damage of cutting
several groups is not the sum, but ranks like it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.contract.inputs import Inputs, call
from methods.contract.loop import LoopTask, require_batches
from methods.contract.method import Problem
from methods.contract.task import Task
from methods.network.blocks import list_groups_within, remove_blocks
from methods.network.channels import ChannelGroup, cut
from methods.network.importance import l1_importance
from methods.training.evaluation import evaluation_mode, recalibrate
from methods.training.precision import choose_half_type
from spaces import ByDamage, LayerBlock, LayerGroup

WIDTHS = 8
"""Widths that each group is cut to, evenly spaced from one unit to all but a part."""

BATCHES = 4
"""Batches of training images that the loss is measured on, and batch norm is estimated on."""

BATCH = 256
"""Images in a batch."""

Pair = tuple[Inputs, Tensor]


def add_damages(problem: Problem) -> list[LayerGroup]:
    """Describe channel groups for an allocation that looks at damage.

    Args:
        problem: The network and the data; the curves come from its analyses.

    Returns:
        The groups' layers, with ``damages``.
    """
    settings = {"widths": WIDTHS, **describe_measurement(problem)}
    curves = problem.analyses.get("damage_curves", settings, lambda: _measure_damages(problem))
    layers = []
    for number, group in enumerate(problem.groups):
        pairs = curves[str(number)].tolist()
        layers.append(replace(group.layer, damages=tuple((int(width), float(damage)) for width, damage in pairs)))
    return layers


def keep_by_damage(
    problem: Problem, sparsity: ByDamage, groups: Sequence[ChannelGroup], round_to: int
) -> dict[str, int]:
    """Find the widths of least damage of some channel groups, where all others stay whole.

    Args:
        problem: The network and the data.
        sparsity: The budget, and what the damage of stages counts.
        groups: Those of the network's groups that may lose units.
        round_to: Widths are multiples of this.

    Returns:
        Kept units by name, of these groups. A budget that cannot be reached is an ``InputError``.
    """
    names = {group.name for group in groups}
    layers = [layer for layer in add_damages(problem) if layer.name in names]
    columns = [number for number, group in enumerate(problem.groups) if group.name in names]
    whole = np.array([group.channels for group in problem.groups], dtype=np.int64)

    def costs(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        widths = np.tile(whole, (len(rows), 1))
        widths[:, columns] = rows
        return problem.cost.batch(widths)[0]

    return sparsity.choose(layers, costs, round_to)


def is_worth_measuring(groups: Sequence[ChannelGroup], task: Task, images: int) -> bool:
    """Say whether all curves of damage take less time than the training of one network.

    Args:
        groups: The channel groups.
        task: What the network is for; what trains in a loop of its own has no batches to measure on.
        images: Inputs that the training takes, counted as often as it takes them.

    Returns:
        Whether it is so, where a step of training counts as three forward passes, and every width of a group as one for
        batch norm and one for the loss.
    """
    measured = sum(len(widths_of(group)) for group in groups) * 2 * BATCHES * BATCH
    return not isinstance(task, LoopTask) and measured < 3 * images


def list_block_damages(problem: Problem) -> list[LayerBlock]:
    """Describe the residual blocks that can go, with the damage that each does by going alone.

    Args:
        problem: The network and the data; the damages come from its analyses.

    Returns:
        The blocks in order of execution.
    """
    if not problem.blocks:
        return []
    names = [block.name for block in problem.blocks]
    settings = {"blocks": ",".join(names), **describe_measurement(problem)}
    damages = problem.analyses.get("block_damages", settings, lambda: _measure_blocks(problem))["damages"].tolist()
    return [
        LayerBlock(block.name, tuple(list_groups_within(problem.groups, block)), block.stage, damage)
        for block, damage in zip(problem.blocks, damages, strict=True)
    ]


def widths_of(group: ChannelGroup) -> list[int]:
    """Choose the widths at which a group's damage is measured.

    Args:
        group: The group.

    Returns:
        Ascending, without the full width.
    """
    return measured_widths(group.channels)


def measured_widths(full: int) -> list[int]:
    """Choose the widths at which damage is measured.

    Args:
        full: The width at which there is none.

    Returns:
        Ascending, from 1 on and evenly spaced, without the full width.
    """
    return sorted({max(1, round(full * part / WIDTHS)) for part in range(WIDTHS)} - {full})


def describe_measurement(problem: Problem) -> dict[str, str | int | float | bool | None]:
    """Say what decides a measured damage.

    Args:
        problem: The network, the data and the recipe.

    Returns:
        Settings of an analysis.
    """
    require_batches(problem.task, "an allocation by damage", "to measure what cuts do")
    half = choose_half_type(problem.recipe)
    precision = {} if half is None else {"half": str(half)}
    return {"batches": BATCHES, "batch": BATCH, "ignored": ",".join(sorted(problem.ignored)), **precision}


def _measure_blocks(problem: Problem) -> dict[str, Tensor]:
    """Take every block out alone; damages in the order of the blocks."""
    rise = LossRise(problem)
    damages = []
    for done, block in enumerate(problem.blocks, start=1):
        shallower = remove_blocks(problem.model, [block])
        damages.append(rise.measure(shallower))
        problem.progress("damage of blocks", done, len(problem.blocks))
    return {"damages": torch.tensor(damages, dtype=torch.float64)}


def _measure_damages(problem: Problem) -> dict[str, Tensor]:
    """Cut every group alone to every width; rows of width and damage, by number of the group."""
    orders = [l1_importance(problem.model, group).argsort(descending=True, stable=True) for group in problem.groups]

    def narrow(number: str, width: int) -> nn.Module:
        kept = {problem.groups[int(number)].name: sorted(orders[int(number)][:width].tolist())}
        return cut(problem.model, problem.groups, kept)

    full = {str(number): group.channels for number, group in enumerate(problem.groups)}
    return measure_curves(problem, full, narrow, "damage curves")


def measure_curves(
    problem: Problem, full: Mapping[str, int], narrow: Callable[[str, int], nn.Module | None], what: str
) -> dict[str, Tensor]:
    """Measure curves of damage against width, one part of the network after the other.

    Args:
        problem: The network, the data and the recipe.
        full: Width at which a part is whole, by its name.
        narrow: Gives the network in which one part has a width; it may be changed. ``None`` where that part is better
            left whole.
        what: What progress says is measured.

    Returns:
        Rows of width and damage by name, in double precision; damage falls to 0 at the full width.
    """
    rise = LossRise(problem)
    widths = {name: measured_widths(most) for name, most in full.items()}
    total, done = sum(map(len, widths.values())), 0
    curves = {}
    for name, most in full.items():
        rows = []
        for width in widths[name]:
            network = narrow(name, width)
            rows.append((float(width), 0.0 if network is None else rise.measure(network)))
            done += 1
            problem.progress(what, done, total)
        curves[name] = torch.tensor(_make_monotone([*rows, (float(most), 0.0)]), dtype=torch.float64)
    return curves


def _make_monotone(rows: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Let damage never rise with width: what more units do worse is noise of the measurement."""
    least = math.inf
    fallen = []
    for width, damage in rows:
        least = min(least, damage)
        fallen.append((width, least))
    return fallen


class LossRise:
    """Compares the loss of cut networks with that of the dense one, on the same images.

    Args:
        problem: The network, the data, and the recipe, whose precision and layout are used.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._half = choose_half_type(problem.recipe)
        self._batches = list(islice(problem.train.epoch(BATCH, 0), BATCHES))
        self._dense = self._loss(problem.model)

    def measure(self, cut_network: nn.Module) -> float:
        """Estimate batch norm again, and return by how much the loss is higher than the dense network's.

        Args:
            cut_network: The network, which may be changed.

        Returns:
            The rise of the mean loss, at least 0.
        """
        if self._problem.recipe.channels_last:
            cut_network.to(memory_format=torch.channels_last)
        with self._autocast():
            recalibrate(cut_network, self._problem.train, BATCHES, BATCH, seed=1)
        return max(0.0, self._loss(cut_network) - self._dense)

    def _autocast(self) -> torch.autocast:
        device = next(self._problem.model.parameters()).device
        return torch.autocast(device.type, self._half, enabled=self._half is not None)

    def _loss(self, model: nn.Module) -> float:
        """Return the mean loss over batches of equal size."""
        task, losses = self._problem.task, []
        with evaluation_mode(model), torch.no_grad():
            for inputs, target in self._batches:
                with self._autocast():
                    output = task.output(call(model, inputs))
                losses.append(task.loss(output.float(), target))
        return float(torch.stack(losses).mean())
