"""What of a dense network can be removed and what any choice of widths costs, found once and handed on.

Both follow from the structure of the network alone. A search that prunes a network many times finds them once; a
fingerprint of all that they depend on says whether they are still those of the network at hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import nn

from methods.contract.inputs import Inputs, dtypes_of, shapes_of
from methods.network.blocks import Block
from methods.network.channels import ChannelGroup
from methods.network.cost import CostModel


@dataclass(frozen=True)
class Anatomy:
    """The channel groups of a network and its cost model.

    Attributes:
        groups: The prunable channel groups, in order of execution.
        cost: Exact FLOPs and parameters of any choice of widths.
        fingerprint: Of the network that they are of, see :func:`fingerprint_of`.
        blocks: The residual blocks that can go as a whole; ``None`` where they were not looked for.
    """

    groups: tuple[ChannelGroup, ...]
    cost: CostModel
    fingerprint: str
    blocks: tuple[Block, ...] | None = None

    @classmethod
    def from_groups(
        cls,
        model: nn.Module,
        example: Inputs,
        ignored: Collection[str],
        groups: Sequence[ChannelGroup],
        cost: CostModel,
        blocks: Sequence[Block] | None = None,
    ) -> Anatomy:
        """Keep what was found.

        Args:
            model: The network.
            example: One input, ``[1, ...]``.
            ignored: Names of modules whose output channels must all stay.
            groups: Its channel groups.
            cost: Its cost model, for these groups.
            blocks: Its residual blocks that can go, if they were looked for.

        Returns:
            What can be handed on with the network or a copy of it.
        """
        every = None if blocks is None else tuple(blocks)
        return cls(tuple(groups), cost, fingerprint_of(model, example, ignored), every)

    def is_of(self, model: nn.Module, example: Inputs, ignored: Collection[str]) -> bool:
        """Tell whether this is the anatomy of a network.

        Args:
            model: The network.
            example: One input, ``[1, ...]``.
            ignored: Names of modules whose output channels must all stay.

        Returns:
            Whether everything that the groups and the cost depend on is as it was.
        """
        return self.fingerprint == fingerprint_of(model, example, ignored)


def fingerprint_of(model: nn.Module, example: Inputs, ignored: Collection[str]) -> str:
    """Hash what channel groups and costs depend on: neither weights nor the device.

    Args:
        model: The network.
        example: One input, ``[1, ...]``.
        ignored: Names of modules whose output channels must all stay.

    Returns:
        SHA-256 over the kinds and settings of all modules, the shapes of all parameters and buffers and which of them
        are shared or frozen, the kind of input, and the ignored names.
    """
    place: dict[int, int] = {}
    parts: list[object] = [shapes_of(example), dtypes_of(example), sorted(ignored)]
    for name, module in model.named_modules(remove_duplicate=False):
        parts.append((name, f"{type(module).__module__}.{type(module).__qualname__}", module.extra_repr()))
    for tensors in (
        model.named_parameters(remove_duplicate=False),
        model.named_buffers(remove_duplicate=False),
    ):
        for name, tensor in tensors:
            shared = place.setdefault(id(tensor), len(place))
            parts.append((name, list(tensor.shape), str(tensor.dtype), tensor.requires_grad, shared))
    return hashlib.sha256(repr(parts).encode()).hexdigest()
