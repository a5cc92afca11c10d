"""What reads the channels of a group, and the mask put there.

The mask of a group multiplies its channels where they are read: at the input of every convolution and linear layer
that consumes them. That is behind norm, activation, pooling and depthwise stage, so that the factor of a mask can
always be folded exactly into the weights that read. Shortcuts without parameters sum over nothing: they pass a
channel on as it is, or not at all.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from methods.network.channels import ChannelGroup
from methods.network.layers import ZeroPadShortcut

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Reader:
    """A module that reads the channels of a group.

    Attributes:
        module: Its name.
        index: Its input channels that belong to each unit, ``[units, multiplicity]``, ascending in each row.
        channels: Number of its input channels.
        dim: Dimension of its input that counts channels.
        lane: Whether it passes channels on without weights.
    """

    module: str
    index: Tensor
    channels: int
    dim: int
    lane: bool

    def factors(self, masks: Tensor, others: float = 1.0) -> Tensor:
        """Spread masks over the input channels.

        Args:
            masks: ``[masks, units]``.
            others: The factor of channels of other groups.

        Returns:
            What each channel is multiplied with, ``[masks, channels]``.
        """
        seen = (masks != 0).to(masks.dtype) if self.lane else masks
        index = self.index.to(masks.device)
        spread = seen[:, :, None].expand(-1, -1, index.shape[1]).flatten(1)
        return masks.new_full((len(masks), self.channels), others).index_copy(1, index.flatten(), spread)

    def mask_inputs(self, inputs: Tensor, factors: Tensor) -> Tensor:
        """Multiply inputs by masks.

        Args:
            inputs: ``[masks, batch, ...]``, or ``[1, batch, ...]`` where all masks are applied to the same.
            factors: ``[masks, channels]``.

        Returns:
            ``[masks * batch, ...]``, the batch under one mask in a row.
        """
        shape = [1] * inputs.ndim
        shape[0] = len(factors)
        shape[self.dim if self.dim < 0 else 1 + self.dim] = self.channels
        return (inputs * factors.to(inputs.dtype).view(shape)).flatten(0, 1)


def readers(model: nn.Module, group: ChannelGroup) -> list[Reader]:
    """List what reads the channels of a group.

    Args:
        model: The network.
        group: One of its channel groups.

    Returns:
        The readers; modules that :func:`find_unreadable` names are left out.
    """
    found = []
    for member in group.members:
        module = model.get_submodule(member.module)
        if member.side != "in" or not isinstance(module, (*WEIGHTED, ZeroPadShortcut)):
            continue
        channels = module.in_features if isinstance(module, nn.Linear) else module.in_channels
        dim = -1 if isinstance(module, nn.Linear) else 1
        index = member.index.sort(dim=1).values
        found.append(Reader(member.module, index, channels, dim, isinstance(module, ZeroPadShortcut)))
    return found


def find_unreadable(model: nn.Module, group: ChannelGroup) -> list[str]:
    """Name the modules that read the channels of a group in a way no mask is defined for.

    Args:
        model: The network.
        group: One of its channel groups.

    Returns:
        Their names; where nothing reads the channels with weights, the name of the group.
    """
    inputs = [member.module for member in group.members if member.side == "in"]
    known = {reader.module: reader for reader in readers(model, group)}
    others = [name for name in inputs if name not in known]
    if not others and all(reader.lane for reader in known.values()):
        return [group.name]
    return others


def readers_without_covariance(model: nn.Module, group: ChannelGroup) -> list[str]:
    """Name the readers of a group whose inputs have no covariance (``methods.curvature.covariances``).

    Args:
        model: The network.
        group: One of its channel groups.

    Returns:
        Names of convolutions over one or three dimensions.
    """
    modules = {reader.module: model.get_submodule(reader.module) for reader in readers(model, group) if not reader.lane}
    return [name for name, module in modules.items() if not isinstance(module, nn.Conv2d | nn.Linear)]


def fold(model: nn.Module, group: ChannelGroup, mask: Tensor) -> None:
    """Multiply the weights that read the channels of a group by its mask, in place.

    Args:
        model: The network.
        group: One of its channel groups.
        mask: ``[units]``.
    """
    with torch.no_grad():
        for name, scale in _scales(model, group, mask).items():
            weight = model.get_submodule(name).weight
            assert isinstance(weight, Tensor)
            weight.mul_(scale)


class _Scaled(nn.Module):
    """A weight as a constant factor times what is trained."""

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, trained: Tensor) -> Tensor:
        return trained * self.scale

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / self.scale


@contextmanager
def scales_kept(model: nn.Module, masks: Sequence[tuple[ChannelGroup, Tensor]]) -> Generator[nn.Module]:
    """Train as if the factors of masks, which are folded into weights, were constants in front of the layers.

    Args:
        model: The network, with masks folded in; it has the trained weights afterwards, folded as before.
        masks: Channel groups of this network and what their masks are, ``[units]``, nowhere zero.

    Yields:
        What is to be trained in its place: a copy that computes the same.
    """
    trained = copy.deepcopy(model)
    factors: dict[str, Tensor] = {}
    for group, mask in masks:
        for name, scale in _scales(model, group, mask).items():
            factors[name] = factors.get(name, torch.ones_like(scale)) * scale
    for name, scale in factors.items():
        parametrize.register_parametrization(trained.get_submodule(name), "weight", _Scaled(scale))
    yield trained
    for name in factors:
        parametrize.remove_parametrizations(trained.get_submodule(name), "weight")
    model.load_state_dict(trained.state_dict())


def _scales(model: nn.Module, group: ChannelGroup, mask: Tensor) -> dict[str, Tensor]:
    """Return what the weights of the readers are multiplied with, in shapes that broadcast."""
    scales = {}
    for reader in readers(model, group):
        if reader.lane:
            continue
        module: Any = model.get_submodule(reader.module)
        weight = module.weight
        factors = reader.factors(mask[None].to(weight.device, weight.dtype))[0]
        groups = getattr(module, "groups", 1)
        # A grouped convolution stores only its own group's inputs: [out, in / groups, ...].
        rows = factors.view(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1).reshape(weight.shape[0], -1)
        scales[reader.module] = rows.view(*rows.shape, *[1] * (weight.ndim - 2)).clone()
    return scales
