"""Orders of channels: rewriting a network so that its channels lie in another order.

The order of the channels between two layers is arbitrary: if rows of the producer, vectors of norms and columns
of the consumers are permuted alike, the network computes the same function, and nothing is shuffled when it
runs. Which channels must have one order is found by ``methods.pivoting.channel_spaces``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from methods.network.layers import ZeroPadShortcut
from methods.pivoting.block_matrices import Axis, Integers
from methods.pivoting.channel_spaces import ChannelSpaces, Layout, channel_spaces

__all__ = ["ChannelSpaces", "Layout", "channel_spaces", "identity_orders", "reorder"]


def identity_orders(spaces: ChannelSpaces) -> list[Integers]:
    """Return the orders in which all channels stay where they are.

    Args:
        spaces: The spaces of a network.

    Returns:
        One order per space.
    """
    return [np.arange(size) for size in spaces.sizes]


def reorder(model: nn.Module, spaces: ChannelSpaces, orders: Sequence[Integers]) -> None:
    """Permute the weights of a network, in place, so that its channels lie in other orders.

    The function that the network computes stays the same.

    Args:
        model: The network that the spaces were found in, or a copy.
        spaces: Its spaces.
        orders: Channel that comes to lie at each position, by space; those of pinned spaces must not change.

    Raises:
        ValueError: If a pinned space would change.
    """
    for space in spaces.pinned:
        if (orders[space][1:] < orders[space][:-1]).any():
            raise ValueError(f"the order of space {space} is pinned")

    def entries(layout: Layout) -> Tensor:
        return torch.from_numpy(Axis(layout, 1).entries(orders))

    with torch.no_grad():
        for name, layout in spaces.makes.items():
            layer = model.get_submodule(name)
            if isinstance(layer, ZeroPadShortcut):
                inputs = entries(spaces.reads[name]).to(layer.source.device)
                where = torch.cat([inputs.argsort(), inputs.new_tensor([len(inputs)])])  # the last one: zeros
                layer.source.copy_(where[layer.source[entries(layout).to(layer.source.device)]])
                continue
            _permute(layer, 0, entries(layout))
            _permute(layer, 1, entries(spaces.reads[name]))
        for name, layout in spaces.follows.items():
            _permute(model.get_submodule(name), 0, entries(layout))


def _permute(layer: nn.Module, dim: int, order: Tensor) -> None:
    """Permute the tensors of one layer along its outputs (0) or inputs (1)."""
    for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
        if tensor.ndim > dim and (dim == 1 or tensor.shape[0] == len(order)):
            tensor.copy_(tensor.index_select(dim, order.to(tensor.device)))
