"""From a dense network to one of blocks: the joint pivot search of all its layers, and the rewriting.

Every blocked layer is a matrix whose rows and columns follow channel spaces (``methods.pivoting.channel_spaces``). With
*coupling* the orders of the spaces serve all layers at once:

* rows of a layer are always slabs of the order of the space that it makes;
* ``"perfect_shuffle"``: columns are strides of the order of the space that is read. Slabs and strides cross
  evenly, so consecutive layers mix, and the shuffle between them is a fixed, regular one;
* ``"shared_order"``: columns are slabs as well, which blocks pick as they are;
* ``"free"``: columns have an order of their own, and are gathered when the layer runs.

Where a space is pinned, rows and columns of the layers that touch it have orders of their own, and are gathered.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from methods.pivoting.arrangement import Arrangement, PivotSpec, arrange
from methods.pivoting.block_matrices import (
    Axis,
    Booleans,
    Floats,
    Integers,
    Matrix,
    Part,
    Pivots,
    Rule,
    Structure,
    mask,
)
from methods.pivoting.blocking import DENSE, Choice
from methods.pivoting.blocks import keep_blocks
from methods.pivoting.channel_spaces import ChannelSpaces, Layout
from methods.pivoting.mixing import find_unmixed_layers
from methods.pivoting.permutations import reorder
from methods.pivoting.pivots import sample_pivots, search

Coupling = Literal["free", "perfect_shuffle", "shared_order"]

_TIES: dict[Coupling, Rule | None] = {"free": None, "perfect_shuffle": "stride", "shared_order": "slab"}

_COVERAGE_SLACK = 2  # blocks that are chosen by scores mix later than the best pattern would


@dataclass(frozen=True)
class Plan:
    """All blocked layers of a network as matrices that share orders.

    Attributes:
        spaces: The channel spaces of the network.
        names: The blocked layers, in order of execution.
        matrices: Their matrices, with scores of zero.
        slots: Length of each order: those of the spaces first, then those that layers have for themselves.
        coupling: What ties the columns.
    """

    spaces: ChannelSpaces
    names: tuple[str, ...]
    matrices: tuple[Matrix, ...]
    slots: tuple[int, ...]
    coupling: Coupling

    @property
    def still(self) -> frozenset[int]:
        """Slots that keep their order."""
        return self.spaces.pinned

    def fill_scores(self, scores: Mapping[str, Floats]) -> list[Matrix]:
        """Fill in scores.

        Args:
            scores: ``[rows, columns]`` by name of layer.

        Returns:
            The matrices.
        """
        return [replace(m, scores=scores[name]) for name, m in zip(self.names, self.matrices, strict=True)]

    def masks(self, pivots: Pivots) -> dict[str, Booleans]:
        """Return which entries each layer keeps.

        Args:
            pivots: Orders and blocks.

        Returns:
            ``[rows, columns]`` by name, in the order of the dense network.
        """
        triples = zip(self.names, self.matrices, pivots.kept, strict=True)
        return {name: mask(matrix, pivots.orders, kept) for name, matrix, kept in triples}


def plan_for(
    spaces: ChannelSpaces,
    chosen: Mapping[str, Choice],
    structure: Structure,
    coupling: Coupling,
) -> Plan:
    """Set up the pivot search of a network.

    Args:
        spaces: Its channel spaces.
        chosen: How each layer is blocked; layers that are not named, or :data:`DENSE`, stay dense.
        structure: Which blocks may be kept.
        coupling: What ties the columns.

    Returns:
        The plan.
    """
    slots = list(spaces.sizes)
    names = [name for name in spaces.order if chosen.get(name, DENSE) != DENSE]
    matrices = []
    for name in names:
        choice = chosen[name]

        def axis(layout: Layout, clusters: int, rule: Rule | None) -> Axis:
            if rule is not None and not any(part.slot in spaces.pinned for part in layout):
                return Axis(layout, clusters, rule)
            slots.append(Axis(layout, 1).size)
            return Axis((Part(len(slots) - 1, slots[-1]),), clusters)

        rows = axis(spaces.makes[name], choice.row_clusters, "slab")
        columns = axis(spaces.reads[name], choice.column_clusters, _TIES[coupling])
        nothing = np.zeros((rows.size, columns.size))
        matrices.append(Matrix(nothing, rows, columns, structure, choice.blocks))
    return Plan(spaces, tuple(names), tuple(matrices), tuple(slots), coupling)


def repair_mixing(
    plan: Plan, pivots: Pivots, scores: Mapping[str, Floats], seed: int
) -> tuple[Plan, Pivots, list[str]]:
    """Repair what does not mix.

    Args:
        plan: The matrices.
        pivots: What was found for them.
        scores: Scores by name of layer.
        seed: Decides what the search leaves open.

    Returns:
        The plan, with the columns of repaired layers tied to the shared order (``"free"``) or their blocks fixed
        (``"shared_order"``); the pivots, searched again from where they were if anything was repaired; and the
        layers that could not be repaired.
    """
    for _ in plan.names:
        failing = failures(plan, pivots)
        better = _change_first(plan, failing)
        if better is None:
            return plan, pivots, failing
        plan = better
        pivots = search(plan.fill_scores(scores), plan.slots, seed=seed, start=pivots.orders, still=plan.still)
    return plan, pivots, failures(plan, pivots)


def random_pivots(plan: Plan, seed: int) -> Pivots:
    """Draw the pivots of a network.

    Args:
        plan: The matrices.
        seed: Decides everything.

    Returns:
        The pivots.
    """
    return sample_pivots(plan.matrices, plan.slots, seed, plan.still)


def failures(plan: Plan, pivots: Pivots) -> list[str]:
    """Find layers at which the network should have mixed its channels, but has not.

    Args:
        plan: The matrices.
        pivots: Orders and blocks.

    Returns:
        Names of layers.
    """
    masks = plan.masks(pivots)
    fans = {}
    for name, matrix in zip(plan.names, plan.matrices, strict=True):
        degree = max(1, matrix.blocks // matrix.rows.clusters)
        slabs = matrix.columns.rule == "slab" and matrix.columns.parts == plan.spaces.reads[name]
        fans[name] = degree if slabs else int(masks[name].sum(axis=1).min())
    slack = 1 if all(m.structure == "block_diag" for m in plan.matrices) else _COVERAGE_SLACK
    return find_unmixed_layers(plan.spaces.order, masks, plan.spaces.reads, plan.spaces.makes, fans, slack)


def _change_first(plan: Plan, failing: list[str]) -> Plan | None:
    """Change the first layer that can be changed, looking from the failing ones towards the input."""
    matrices = list(plan.matrices)
    for last in failing:
        for number in range(plan.names.index(last), -1, -1):
            matrix, layout = matrices[number], plan.spaces.reads[plan.names[number]]
            pinned = any(part.slot in plan.spaces.pinned for part in layout)
            if plan.coupling == "free" and matrix.columns.parts != layout and not pinned:
                matrices[number] = replace(matrix, columns=Axis(layout, matrix.columns.clusters, "stride"))
            elif plan.coupling == "shared_order" and matrix.fixed is None:
                kept = _spread(matrix.rows.clusters, matrix.columns.clusters, matrix.blocks)
                matrices[number] = replace(matrix, fixed=kept)
            else:
                continue
            return replace(plan, matrices=tuple(matrices))
    return None


def _spread(row_clusters: int, column_clusters: int, blocks: int) -> Booleans:
    """Let cluster ``i`` of rows read clusters ``k i .. k i + k - 1`` of columns (modulo their number).

    Repeated layer by layer this is a de Bruijn graph, in which ``log_k n`` steps lead from anywhere to anywhere.

    Returns:
        Kept blocks ``[row clusters, column clusters]``.
    """
    kept = np.zeros((row_clusters, column_clusters), dtype=bool)
    degree, more = divmod(blocks, row_clusters)
    for row in range(row_clusters):
        count = degree + (row < more)
        kept[row, (row * degree + np.arange(count)) % column_clusters] = True
    return kept


def compact(model: nn.Module, plan: Plan, pivots: Pivots) -> nn.Module:
    """Rewrite a dense network: channels into their new order, blocked layers into layers of blocks.

    Args:
        model: The dense network; not changed.
        plan: The matrices.
        pivots: Orders and blocks.

    Returns:
        A network that computes what the dense one does with zeros outside the blocks.
    """
    small = copy.deepcopy(model)
    reorder(small, plan.spaces, pivots.orders[: len(plan.spaces.sizes)])
    for name, spec in specs(plan, pivots).items():
        layer = small.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        small.set_submodule(name, keep_blocks(layer, spec).train(layer.training))
    return small


def count_separate_gathers(plan: Plan, pivots: Pivots) -> int:
    """Count the orders that layers would make when the network runs if no order were shared or folded.

    Args:
        plan: The matrices.
        pivots: Orders and blocks.

    Returns:
        How often channels would be put into another order one by one: before and after every layer, where that
        cannot be read in slabs or as it lies.
    """
    found = specs(plan, pivots, reordered=False)
    made = [
        Arrangement(matrix.columns.size, matrix.rows.size, **arrange(found[name], matrix.columns.size))
        for name, matrix in zip(plan.names, plan.matrices, strict=True)
    ]
    return sum(arrangement.gathers for arrangement in made)


def specs(plan: Plan, pivots: Pivots, reordered: bool = True) -> dict[str, PivotSpec]:
    """Say which positions the blocks of each layer read and make.

    Args:
        plan: The matrices.
        pivots: Orders and blocks.
        reordered: Whether the channels of the network are in their new order, or in that of the dense network, where
            every layer gathers for itself what belongs together.

    Returns:
        A specification by name of layer.
    """
    found = {}
    channels = pivots.orders if reordered else tuple(np.arange(len(order)) for order in pivots.orders)
    for name, matrix, kept in zip(plan.names, plan.matrices, pivots.kept, strict=True):
        rows = _positions(matrix.rows, plan.spaces.makes[name], pivots.orders, channels)
        columns = _positions(matrix.columns, plan.spaces.reads[name], pivots.orders, channels)
        if matrix.structure == "bsr":
            clusters, read = np.nonzero(kept)
            blocks = columns[read]
        else:
            clusters = np.arange(len(kept))
            blocks = np.stack([np.concatenate(columns[row]) for row in kept])
        found[name] = PivotSpec(*(torch.from_numpy(np.ascontiguousarray(a)) for a in (blocks, clusters, rows.ravel())))
    return found


def _positions(axis: Axis, layout: Layout, orders: tuple[Integers, ...], channels: tuple[Integers, ...]) -> Integers:
    """Return where the entries of each cluster lie in a tensor of such channels, ``[clusters, size]``, ascending."""
    where = np.empty(axis.size, dtype=np.int64)
    where[Axis(layout, 1).entries(channels)] = np.arange(axis.size)
    clusters = axis.clusters_of_entries(orders)
    return np.stack([np.sort(where[clusters == cluster]) for cluster in range(axis.clusters)])


def apply_masks(model: nn.Module, masks: Mapping[str, Booleans]) -> None:
    """Set the entries outside the blocks to zero, in place: the slow, obvious twin of :func:`compact`.

    Args:
        model: A dense network.
        masks: Kept entries by name of layer.
    """
    with torch.no_grad():
        for name, kept in masks.items():
            weight = model.get_submodule(name).weight
            assert isinstance(weight, Tensor)
            weight.mul_(expand_mask(kept, weight))


def expand_mask(kept: Booleans, weight: Tensor) -> Tensor:
    """Give a mask of entries the shape and type of a weight.

    Args:
        kept: ``[rows, columns]``.
        weight: ``[rows, columns, ...]``.

    Returns:
        Ones and zeros that can be multiplied with the weight.
    """
    mask = torch.from_numpy(kept).to(weight.device, weight.dtype)
    return mask.reshape(*kept.shape, *[1] * (weight.ndim - 2))
