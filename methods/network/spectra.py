"""How redundant the filters of a channel group are: the principal components of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from methods.network.channels import ChannelGroup
from methods.network.units import Units
from spaces import LayerGroup


def energies(matrix: Tensor) -> tuple[float, ...]:
    """Return how the squares of a matrix are shared out over its principal components.

    Args:
        matrix: ``[filters, weights]``.

    Returns:
        Falling shares that sum to 1, computed in float64; as many as rows or columns, whichever is less. All equal
        where the matrix is zero.
    """
    squared = torch.linalg.svdvals(matrix.detach().double().cpu()).square()
    total = squared.sum()
    shares = squared / total if total > 0 else torch.full_like(squared, 1 / len(squared))
    return tuple(shares.tolist())


def filters(model: nn.Module, group: ChannelGroup) -> Tensor:
    """Lay out the weights that make the units of a group.

    Args:
        model: The network.
        group: One of its channel groups.

    Returns:
        ``[units, weights]``, on the CPU.
    """
    parts = []
    for slot in Units(model, [group]).producers:
        rows, units = slot.parameter.detach().movedim(slot.dim, 0).flatten(1).cpu(), slot.units.cpu()
        owned = units < group.channels
        order = units[owned].argsort(stable=True)  # where a unit has several channels they stand side by side
        parts.append(rows[owned][order].reshape(group.channels, -1))
    return torch.cat(parts, dim=1)


def add_energies(model: nn.Module, groups: Sequence[ChannelGroup]) -> list[LayerGroup]:
    """Describe channel groups for an allocation that looks at weights.

    Args:
        model: The network.
        groups: Its channel groups.

    Returns:
        Their layers, with ``energies``.
    """
    return [replace(group.layer, energies=energies(filters(model, group))) for group in groups]
