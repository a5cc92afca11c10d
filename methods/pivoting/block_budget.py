"""Which layers of a network can be blocked, what blocks cost them, and which choices go together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from methods.contract.classification import Classification
from methods.contract.data import Batch
from methods.contract.inputs import Inputs, call
from methods.contract.task import Task
from methods.network.cost import layer_flops
from methods.pivoting.block_matrices import Booleans, Floats, Structure, make_single_matrix, mask
from methods.pivoting.blocking import DENSE, Choice, Shape, choices
from methods.pivoting.channel_spaces import ChannelSpaces
from methods.pivoting.pivoted_network import Coupling, apply_masks
from methods.pivoting.pivots import search


@dataclass(frozen=True)
class Candidates:
    """The layers of a network that can be blocked.

    Attributes:
        spaces: The network's channel spaces.
        shapes: The layers, in order of execution.
        options: How each can be blocked, from dense to sparse.
        rest: Multiply–accumulates of everything else.
    """

    spaces: ChannelSpaces
    shapes: tuple[Shape, ...]
    options: Mapping[str, tuple[Choice, ...]]
    rest: int


@dataclass(frozen=True)
class Limits:
    """What blocks may look like.

    Attributes:
        structure: Which blocks may be kept.
        min_side: Blocks are at least so high and wide.
        degree: Clusters of columns per cluster of rows.
        side: Side of the blocks, if fixed.
    """

    structure: Structure
    min_side: int
    degree: int
    side: int | None


def candidates(model: nn.Module, example: Inputs, spaces: ChannelSpaces, limits: Limits) -> Candidates:
    """List the layers that can be blocked: not the first convolution, not the classifier, nothing grouped.

    Args:
        model: The network.
        example: One input, ``[1, ...]``.
        spaces: The network's channel spaces.
        limits: What blocks may look like.

    Returns:
        The layers with at least one choice besides dense.
    """
    flops = layer_flops(model, example)
    named: list[tuple[str, nn.Conv2d | nn.Linear, tuple[Choice, ...]]] = []
    for name in spaces.order:
        layer = model.get_submodule(name)
        if not isinstance(layer, nn.Conv2d | nn.Linear) or name in spaces.answers:
            continue
        if isinstance(layer, nn.Conv2d) and (name in spaces.first or layer.padding_mode != "zeros"):
            continue
        rows, columns = layer.weight.shape[:2]
        found = choices(rows, columns, limits.structure, limits.min_side, limits.degree, limits.side)
        if len(found) > 1 and name in flops:
            named.append((name, layer, tuple(found)))
    shapes = tuple(
        Shape(name, layer.weight.shape[0], layer.weight.shape[1], flops[name], index / max(len(named) - 1, 1))
        for index, (name, layer, _) in enumerate(named)
    )
    rest = sum(flops.values()) - sum(shape.flops for shape in shapes)
    return Candidates(spaces, shapes, {name: found for name, _, found in named}, rest)


def is_compatible(spaces: ChannelSpaces, coupling: Coupling, chosen: Mapping[str, Choice]) -> bool:
    """Test whether slabs and strides of every channel space cross evenly.

    Args:
        spaces: The network's channel spaces.
        coupling: What ties the columns; only perfect shuffles restrict the choices.
        chosen: How layers are blocked.

    Returns:
        Whether, wherever a blocked layer reads what another one makes, the product of their numbers of clusters
        divides the number of channels.
    """
    if coupling != "perfect_shuffle":
        return True
    makers: dict[int, int] = {}
    for name, choice in chosen.items():
        for part in spaces.makes[name]:
            makers[part.slot] = max(makers.get(part.slot, 1), choice.row_clusters)
    for name, choice in chosen.items():
        for part in spaces.reads[name]:
            even = part.channels * part.repeat % (choice.column_clusters * makers.get(part.slot, 1)) == 0
            if choice != DENSE and not even and part.slot not in spaces.pinned:
                return False
    return True


Damage = Callable[[str, Choice], float]


def energy_damage(scores: Mapping[str, Floats], structure: Structure) -> Damage:
    """Measure the damage of a choice as the share of the layer's scores that pivots cannot keep.

    Args:
        scores: Scores by name of layer.
        structure: Which blocks may be kept.

    Returns:
        The share outside the best blocks that a search from a spectral start finds, the layer taken alone.
    """

    @cache
    def damage(name: str, choice: Choice) -> float:
        return 0.0 if choice == DENSE else 1 - _pivot_layer(scores[name], structure, choice)[1]

    return damage


def loss_damage(
    model: nn.Module,
    batches: Sequence[Batch],
    scores: Mapping[str, Floats],
    structure: Structure,
    task: Task | None = None,
) -> Damage:
    """Measure the damage of a choice as the rise of the loss when the layer alone is masked.

    Args:
        model: The network; not changed.
        batches: On which the loss is taken.
        scores: Scores by name of layer, which decide the masks.
        structure: Which blocks may be kept.
        task: Whose loss is taken; classification by default.

    Returns:
        The rise of the mean loss, and a little for what is masked, so that it grows with sparsity.
    """
    task = Classification() if task is None else task
    network = copy.deepcopy(model).eval()

    def loss() -> tuple[float, float]:
        """Sum of the losses, and of how many."""
        with torch.no_grad():
            sums = [task.sums(task.output(call(network, x)), y) for x, y in batches]
        return sum(float(each["loss"]) for each in sums), sum(float(each["count"]) for each in sums)

    dense, count = loss()

    @cache
    def damage(name: str, choice: Choice) -> float:
        if choice == DENSE:
            return 0.0
        kept, retained = _pivot_layer(scores[name], structure, choice)
        weight = network.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        before = weight.detach().clone()
        apply_masks(network, {name: kept})
        rise = (loss()[0] - dense) / count
        with torch.no_grad():
            weight.copy_(before)
        return max(rise, 0.0) + 1e-3 * (1 - retained)

    return damage


def tilt_damages(damage: Damage, shapes: Sequence[Shape], tilt: float) -> Damage:
    """Let deep layers count less (positive tilt) or more.

    Args:
        damage: What a choice costs.
        shapes: The layers.
        tilt: From -1 to 1; at 1 the damage counts a quarter at the output and fourfold at the input.

    Returns:
        The weighted damage.
    """
    weight = {shape.name: 4.0 ** (-2 * tilt * (shape.depth - 0.5)) for shape in shapes}
    return lambda name, choice: weight[name] * damage(name, choice)


def _pivot_layer(scores: Floats, structure: Structure, choice: Choice) -> tuple[Booleans, float]:
    """Pivot one layer by itself: its mask, and what it retains."""
    matrix = make_single_matrix(scores, structure, (choice.row_clusters, choice.column_clusters), choice.blocks)
    found = search([matrix], scores.shape, restarts=0)
    return mask(matrix, found.orders, found.kept[0]), found.retained[0]
