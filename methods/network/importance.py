"""What a channel unit is worth by its weights alone."""

from __future__ import annotations

from torch import Tensor, nn

from methods.network.channels import ChannelGroup
from methods.network.units import Units


def l1_importance(model: nn.Module, group: ChannelGroup) -> Tensor:
    """Add up the L1 norms of a unit's filters, relative to the mean of their layer.

    Args:
        model: The network.
        group: One of its channel groups.

    Returns:
        Importance of each unit, ``[units]``; its mean over units is the number of layers that produce them.
    """
    return Units(model, [group]).importance()[0]
