"""What group sparsity may touch: which channel groups, which parameters of a channel, which lanes of a shortcut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from methods.network.channels import ChannelGroup
from methods.network.layers import ZeroPadShortcut
from methods.network.units import Slot, Units
from spaces import InputError

BnMode = Literal["in_group", "affine_only", "filter_only", "gamma_only", "elementwise_bn"]
ResidualMode = Literal["coupled", "inner_only"]


def choose_prunable(groups: Sequence[ChannelGroup], model: nn.Module, mode: ResidualMode) -> list[ChannelGroup]:
    """Choose the groups that may lose units.

    Args:
        groups: All channel groups.
        model: Their network.
        mode: ``"coupled"`` for all of them, ``"inner_only"`` for those that no shortcut ties together.

    Returns:
        The chosen groups, in order.

    Raises:
        InputError: If there is none.
    """
    chosen = [group for group in groups if mode == "coupled" or not _is_tied_by_shortcut(group, model)]
    if not chosen:
        raise InputError(
            f"nothing to prune in {type(model).__name__} with residual_mode 'inner_only': shortcuts tie all channel "
            "groups together; 'coupled' prunes them"
        )
    return chosen


def _is_tied_by_shortcut(group: ChannelGroup, model: nn.Module) -> bool:
    """Whether several layers produce the channels, or a shortcut carries them without a weight."""
    makers = 0
    for member in group.producers(model):
        module = model.get_submodule(member.module)
        passes_through = getattr(module, "groups", 1) == getattr(module, "in_channels", 0) > 1
        makers += not passes_through  # a depthwise convolution has the channels it is given
    shortcuts = (isinstance(model.get_submodule(member.module), ZeroPadShortcut) for member in group.members)
    return makers > 1 or any(shortcuts)


def choose_shrunk_slots(model: nn.Module, units: Units, mode: BnMode) -> tuple[list[Slot], list[nn.Parameter]]:
    """Choose the parameters of a unit that count in its norm and are shrunk with it.

    Args:
        model: The network.
        units: Its channel units.
        mode: ``"in_group"`` for all of them; ``"filter_only"`` leaves out norms; ``"affine_only"`` takes norms
            alone, where a unit passes one, and ``"gamma_only"`` of these the weights; ``"elementwise_bn"`` treats
            every number of a norm as a group of its own.

    Returns:
        Slots of the units, and parameters to be shrunk number by number.
    """
    norms = [m for m in model.modules() if isinstance(w := getattr(m, "weight", None), Tensor) and w.ndim == 1]
    in_norms = {id(parameter) for norm in norms for parameter in norm.parameters(recurse=False)}
    gammas = {id(norm.weight) for norm in norms}
    of_filters = [*units.producers, *(slot for slot in units.affine if id(slot.parameter) not in in_norms)]
    of_norms = [slot for slot in units.affine if id(slot.parameter) in in_norms]
    match mode:
        case "in_group":
            return of_filters + of_norms, []
        case "filter_only":
            return of_filters, []
        case "elementwise_bn":
            return of_filters, [slot.parameter for slot in of_norms]
        case "affine_only" | "gamma_only":
            chosen = [slot for slot in of_norms if mode == "affine_only" or id(slot.parameter) in gammas]
            none = units.valid.numel()
            normed = torch.zeros(none + 1, dtype=torch.bool, device=units.valid.device)
            for slot in chosen:
                normed[slot.units] = True
            rest = [replace(slot, units=slot.units.masked_fill(normed[slot.units], none)) for slot in of_filters]
            return chosen + rest, []


class Shortcuts:
    """Closes the lanes of parameter-free shortcuts into and out of units that are zero.

    Such a shortcut would carry something into a channel that nothing produces any more.

    Args:
        model: The network.
        groups: Its channel groups, in the order of the rows of all tables.
        valid: Which entries of a table are units.
    """

    def __init__(self, model: nn.Module, groups: Sequence[ChannelGroup], valid: Tensor) -> None:
        none, width = valid.numel(), valid.shape[1]
        self._shortcuts = [module for module in model.modules() if isinstance(module, ZeroPadShortcut)]
        self._lanes = [module.out_channels for module in self._shortcuts]
        names = {id(module): name for name, module in model.named_modules()}
        outs, sources, intos, closed = [], [], [], []
        for module in self._shortcuts:
            ends = {"out": torch.full((module.out_channels,), none), "in": torch.full((module.in_channels + 1,), none)}
            for row, group in enumerate(groups):
                for member in group.members:
                    if member.module == names[id(module)]:
                        entries = row * width + torch.arange(group.channels)
                        ends[member.side][member.index] = entries[:, None].expand(member.index.shape)
            source = module.source.cpu()
            outs.append(ends["out"])
            sources.append(source)
            intos.append(ends["in"][source])
            closed.append(torch.full_like(source, module.in_channels))
        if self._shortcuts:
            # Of all lanes of all shortcuts in a row: the units at both ends, what they carry open and closed.
            self._ends = torch.stack([torch.cat(outs), torch.cat(intos)]).to(valid.device)
            self._open, self._closed = torch.cat(sources).to(valid.device), torch.cat(closed).to(valid.device)

    def close(self, alive: Tensor) -> None:
        """Open the lanes between units that live, and close the others: one gather for all shortcuts.

        Args:
            alive: Which units are not zero, ``[groups, widest]``.
        """
        if not self._shortcuts:
            return
        living = torch.cat([alive.flatten(), alive.new_ones(1)])
        carried = torch.where(living[self._ends].all(0), self._open, self._closed)
        torch._foreach_copy_([module.source for module in self._shortcuts], carried.split(self._lanes))
