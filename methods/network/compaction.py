"""Going on with a smaller network in the middle of training as if nothing had been cut.

Which weights are left is read off a copy of the network that holds the positions of its weights in place of their
values, and is cut like the network itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from methods.network.channels import ChannelGroup, cut, find_removed_units
from methods.network.copying import copy_network

Kept = Mapping[str, Sequence[int]]


def positions(model: nn.Module, groups: Sequence[ChannelGroup], kept: Kept) -> list[Tensor]:
    """Find where the parameters of the cut network are in the parameters of the whole one.

    Args:
        model: The whole network.
        groups: Its channel groups.
        kept: Units to keep by name of group.

    Returns:
        For each parameter of the cut network, in order, indices into the flattened parameter of the whole
        network; of the shape of the cut parameter.
    """
    index = copy_network(model).double()  # exact up to 2^53
    with torch.no_grad():
        for parameter in index.parameters():
            places = torch.arange(parameter.numel(), dtype=torch.double, device=parameter.device)
            parameter.copy_(places.view(parameter.shape))
    return [parameter.detach().long() for parameter in cut(index, groups, kept).parameters()]


def groups_after(groups: Sequence[ChannelGroup], kept: Kept) -> list[ChannelGroup]:
    """Describe the channel groups of the cut network, down to a single unit.

    Args:
        groups: Channel groups of the whole network.
        kept: Units that were kept, by name of group.

    Returns:
        The same groups in the same order with the units and channels that are left, counted again.
    """
    removed = find_removed_units(groups, {group.name: kept[group.name] for group in groups})
    structure = groups[0].structure.remove_units(removed) if groups and groups[0].structure is not None else None
    gone: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
    for group in groups:
        dropped = sorted(set(range(group.channels)) - set(kept[group.name]))
        for member in group.members:
            gone[member.module, member.side].append(member.index[dropped].flatten())
    missing = {key: torch.cat(parts).sort().values for key, parts in gone.items()}
    smaller = []
    for group in groups:
        left = list(kept[group.name])
        members = []
        for member in group.members:
            index = member.index[left]
            before = torch.searchsorted(missing[member.module, member.side], index.contiguous())
            members.append(replace(member, index=index - before))
        units = tuple(group.units[unit] for unit in left) if group.units else ()
        smaller.append(replace(group, channels=len(left), members=tuple(members), units=units, structure=structure))
    return smaller


@torch.no_grad()
def expand(smaller: nn.Module, whole: nn.Module, places: Sequence[Tensor]) -> nn.Module:
    """Put the weights of a cut network back where they came from, among zeros.

    Args:
        smaller: The cut network.
        whole: The network it was cut from; not changed.
        places: What :func:`positions` returned.

    Returns:
        A network of the whole shape.
    """
    back = copy_network(whole)
    for parameter, part, place in zip(back.parameters(), smaller.parameters(), places, strict=True):
        parameter.copy_(torch.zeros_like(parameter).reshape(-1).index_put((place,), part).view(parameter.shape))
    return back
