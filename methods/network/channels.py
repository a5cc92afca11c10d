"""Which channels belong together, and how to remove them.

The network is run once in each mode and written down (:mod:`methods.network.tape`). Labels of channels are carried
through every operation (:mod:`methods.network.rules`): what must lose a channel together with another has the same
class. What may be removed is then removed to see (:func:`analyse`): a group whose removal the network does not
survive is left out, with the reason.

Coupled structures as in Fang et al., DepGraph, 2023, arXiv 2301.12900; found here on the level of ATen, by index.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs
from methods.network.copying import copy_network
from methods.network.followed import Followed, classes_of_data, follow_network, owners_of, pin_fixed, resolutions_of
from methods.network.kept_numbers import calls_with_sizes, find_counting_attributes
from methods.network.labels import Classes, test_for
from methods.network.structure import (
    Structure,
    cut_network,
    mask_network,
)
from methods.network.survival import Survival
from spaces import InputError, LayerGroup, explain_unknown_name

Side = Literal["out", "in"]
Kept = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Member:
    """One module that loses channels with its group.

    Attributes:
        module: Name of the module in the network.
        side: ``"out"`` for the channels a module produces (also those a norm or a depthwise convolution
            passes through), ``"in"`` for those it consumes.
        index: Channel indices of the module that belong to each unit, ``[units, multiplicity]``.
    """

    module: str
    side: Side
    index: Tensor


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only be removed together.

    A *unit* is the smallest thing that can be removed alone: one channel of every coupled tensor; where
    grouped convolutions take part, one channel of each of their groups.

    Attributes:
        name: Name of the first layer that produces the channels.
        channels: Number of units.
        stage: Resolution of the feature map, such as ``"16x16"`` (``"1x1"`` for vectors).
        depth: Place in the network from 0 (first group) to 1 (last group).
        members: Every module that takes part.
        units: Class of each unit in :attr:`structure`.
        structure: What of the network goes with which unit; shared by all groups of a network.
    """

    name: str
    channels: int
    stage: str
    depth: float
    members: tuple[Member, ...]
    units: tuple[int, ...] = field(default=(), repr=False, compare=False)
    structure: Structure | None = field(default=None, repr=False, compare=False)

    @property
    def layer(self) -> LayerGroup:
        """The group as spaces know it: no tensors, no modules."""
        return LayerGroup(self.name, self.channels, self.stage, self.depth)

    def spare_one(self) -> ChannelGroup:
        """Let the first unit stay for good, where a network does not run with a single one.

        Returns:
            The group of all other units.
        """
        members = tuple(replace(member, index=member.index[1:]) for member in self.members)
        return replace(self, channels=self.channels - 1, members=members, units=self.units[1:])

    def producers(self, model: nn.Module) -> list[Member]:
        """Return the members whose weights make the channels (convolutions and linear layers).

        Args:
            model: The network of this group.

        Returns:
            Out-side members with a weight of two or more dimensions.
        """
        return [
            member
            for member in self.members
            if member.side == "out"
            and isinstance(weight := getattr(model.get_submodule(member.module), "weight", None), Tensor)
            and weight.ndim >= 2
        ]


@dataclass(frozen=True)
class Analysis:
    """What can be removed from a network, and what cannot.

    Attributes:
        groups: The prunable channel groups in order of execution.
        stays: Reason by name of layer, for every convolution and linear layer that keeps some of its channels.
        couplings: Modules that sum over the channels of a group without weights (norms over channels, softmax), by
            name of group: there the units that are left change when one goes.
    """

    groups: list[ChannelGroup]
    stays: dict[str, str]
    couplings: dict[str, list[str]]


def channel_groups(
    model: nn.Module, example: Inputs, ignored: Collection[str] = (), frozen: Collection[str] = ()
) -> list[ChannelGroup]:
    """Find the prunable channel groups of a network.

    Groups that reach the network's output (the classifier), a frozen layer or a module named in ``ignored`` are left
    out, and so are groups of a single unit.

    Args:
        model: The network; not changed.
        example: One input, ``[1, ...]``, or a tuple or mapping of inputs.
        ignored: Names of modules whose output channels must all stay.
        frozen: Names of modules that may be pruned although their parameters are frozen.

    Returns:
        The groups in order of execution.

    Raises:
        InputError: If a name is not a module, the network cannot be traced, or nothing in it can be pruned.
    """
    found = analyse(model, example, ignored, frozen)
    if not found.groups:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(found.stays.items())[:3])
        raise InputError(
            f"nothing to prune in {type(model).__name__}: no convolution or linear layer has output channels "
            f"that may be removed (the classifier and ignored modules must stay){'; ' * bool(reasons)}{reasons}"
        )
    return found.groups


def analyse(
    model: nn.Module,
    example: Inputs,
    ignored: Collection[str] = (),
    frozen: Collection[str] = (),
) -> Analysis:
    """Find what can be removed from a network and why the rest must stay.

    Args:
        model: The network; not changed.
        example: One input, ``[1, ...]``, or a tuple or mapping of inputs.
        ignored: Names of modules whose output channels must all stay.
        frozen: Names of modules that may be pruned although their parameters are frozen.

    Returns:
        Groups and reasons.

    Raises:
        InputError: If a name is not a module, or the network cannot be traced.
    """
    names = dict(model.named_modules(remove_duplicate=False))
    for name in (*ignored, *frozen):
        if name not in names:
            raise InputError(explain_unknown_name("module", name, (n for n in names if n)))
    followed = follow_network(model, example)
    pin_fixed(followed, model, ignored, frozen)
    groups, structure = _groups(followed)
    groups, structure, lost = Survival(model, example, structure).narrow_down(groups)
    last = max(1, len(groups) - 1)
    groups = [replace(group, depth=place / last, structure=structure) for place, group in enumerate(groups)]
    return Analysis(groups, _explain_kept_layers(followed, groups, lost), _couplings(followed, groups))


def cut(model: nn.Module, groups: Sequence[ChannelGroup], kept: Kept) -> nn.Module:
    """Remove channel units physically.

    Args:
        model: The network the groups were found in; not changed.
        groups: Its channel groups.
        kept: Units to keep by group name, at least one; a group that is not named stays whole.

    Returns:
        A smaller deep copy.
    """
    removed = _find_removed(groups, kept)
    structure = _structure(groups)
    return copy_network(model) if structure is None else cut_network(model, structure, removed)


def mask_units(model: nn.Module, groups: Sequence[ChannelGroup], kept: Kept) -> nn.Module:
    """Silence channel units without removing them: the slow, obvious twin of :func:`cut`.

    All parameters of a dropped unit become zero: what produces it, what norms do to it, and what reads it. Where
    the network sums over channels without weights (layer and group norms, softmax and means over channels), the
    sum leaves dropped units out.

    Args:
        model: The network the groups were found in; not changed.
        groups: Its channel groups.
        kept: Units to keep by group name, at least one; a group that is not named stays whole.

    Returns:
        A deep copy of the same shape.
    """
    removed = _find_removed(groups, kept)
    structure = _structure(groups)
    return copy_network(model) if structure is None else mask_network(model, structure, removed)


def find_removed_units(groups: Sequence[ChannelGroup], kept: Kept) -> set[int]:
    """List the classes of the units that are not kept.

    Args:
        groups: Channel groups.
        kept: Units to keep by group name, at least one; a group that is not named stays whole.

    Returns:
        Classes in the groups' structure.
    """
    return _find_removed(groups, kept)


def _structure(groups: Sequence[ChannelGroup]) -> Structure | None:
    return groups[0].structure if groups else None


def _find_removed(groups: Sequence[ChannelGroup], kept: Kept) -> set[int]:
    by_name = {group.name: group for group in groups}
    removed: set[int] = set()
    for name, units in kept.items():
        if name not in by_name:
            raise InputError(explain_unknown_name("channel group", name, by_name))
        group = by_name[name]
        if not units or not set(units) <= set(range(group.channels)):
            raise InputError(
                f"group {name!r} must keep at least one of its units 0..{group.channels - 1}, got {list(units)}"
            )
        left = set(units)
        removed |= {unit for number, unit in enumerate(group.units) if number not in left}
    return removed


def _groups(followed: Followed) -> tuple[list[ChannelGroup], Structure]:
    """Sort classes into groups: those whose units look the same everywhere."""
    state = followed.state
    sized, summing, inexact = calls_with_sizes(followed)
    places: dict[int, list[tuple[str, int, int]]] = defaultdict(list)  # of each class: tensor, dimension, how often
    first: dict[int, tuple[int, str, int]] = {}  # of each class: its first producer and the place there
    order = followed.order
    seen_in_data = classes_of_data(followed)
    owners = owners_of(followed)
    for name, dims in state.tensors.items():
        for k, dim in enumerate(dims):
            labels = state.classes.live(dim.labels)
            if labels is None:
                continue
            roots, at, counts = np.unique(labels, return_index=True, return_counts=True)
            owner = owners.get((name, k), name.rpartition(".")[0])
            makes = (name, k) not in state.reads and len(dims) > 1
            for root, place, count in zip(roots.tolist(), at.tolist(), counts.tolist(), strict=True):
                if root == 0 or root in state.classes.pinned or root not in seen_in_data:
                    continue
                places[root].append((name, k, count))
                if makes:
                    candidate = (order.get(owner, len(order)), owner or name, place)
                    first[root] = min(first.get(root, candidate), candidate)
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for root, found in places.items():
        if root in first:
            alike[first[root][:2], tuple(found)].append(root)
    chosen = sorted(
        (sorted(roots, key=lambda root: first[root][2]) for roots in alike.values() if len(roots) > 1),
        key=lambda roots: first[roots[0]],
    )
    is_unit = test_for(root for roots in chosen for root in roots)

    def settle(labels: Classes) -> Classes:
        roots = state.classes.find(labels)
        return np.where(is_unit(roots), roots, 0)

    structure = Structure(
        tensors={name: tuple(dim.labels for dim in dims) for name, dims in state.tensors.items()},
        reads=frozenset(state.reads),
        tables=tuple({name: labels for name, labels in state.tables}.items()),
        attributes=tuple(find_counting_attributes(followed)),
        widths=tuple({each.module: each for each in reversed(state.widths)}.values()),
        sized=tuple(sized),
        stale=frozenset(),
        summing=tuple(summing),
        terms=tuple(state.terms[: state.terms_in_first]),
        inexact=tuple(inexact),
    ).map_classes(settle)
    sizes = resolutions_of(followed.tapes[0])
    groups = []
    taken: dict[str, int] = defaultdict(int)
    for group, members in zip(chosen, _members(followed, structure, chosen, order), strict=True):
        name = first[group[0]][1]
        taken[name] += 1
        groups.append(
            ChannelGroup(
                name=name if taken[name] == 1 else f"{name}#{taken[name]}",
                channels=len(group),
                stage=sizes.get(name, "1x1"),
                depth=0.0,
                members=tuple(members),
                units=tuple(group),
            )
        )
    return groups, structure


def _members(
    followed: Followed, structure: Structure, chosen: Sequence[Sequence[int]], order: Mapping[str, int]
) -> list[list[Member]]:
    """List the modules that take part in each group, with the channels of each unit."""
    sides: dict[tuple[str, Side], Classes] = {}
    by_module: set[str] = set()
    for widths in structure.widths:
        for side, labels in (("out", widths.outputs), ("in", widths.inputs)):
            passes = widths.groups is not None and widths.inputs is not None and side == "in"
            if labels is not None and not (passes and widths.groups is not None and len(widths.groups) == len(labels)):
                sides.setdefault((widths.module, side), labels)  # type: ignore[arg-type]
        by_module.add(widths.module)
    owners = owners_of(followed)
    for name, dims in structure.tensors.items():
        for k, labels in enumerate(dims):
            owner = owners[name, k]
            if labels is not None and owner not in by_module:
                side = "in" if (name, k) in structure.reads else "out"
                sides.setdefault((owner, side), labels)  # type: ignore[arg-type]
    group_of = {root: number for number, roots in enumerate(chosen) for root in roots}
    found: list[list[Member]] = [[] for _ in chosen]
    for (module, side), labels in sides.items():
        places: dict[int, list[int]] = defaultdict(list)  # of each class
        for place, root in enumerate(labels.tolist()):
            if root:
                places[root].append(place)
        for number in {group_of[root] for root in places}:
            rows = [places.get(root, []) for root in chosen[number]]
            if len({len(row) for row in rows}) == 1:
                found[number].append(Member(module, side, torch.tensor(rows)))
    return [sorted(members, key=lambda m: (order.get(m.module, len(order)), m.side)) for members in found]


def _explain_kept_layers(followed: Followed, groups: Sequence[ChannelGroup], lost: Mapping[str, str]) -> dict[str, str]:
    """Say why layers keep channels."""
    state = followed.state
    units = {unit for group in groups for unit in group.units}
    reasons: dict[str, str] = {}
    for widths in state.widths:
        if widths.outputs is None:
            continue
        for root in np.unique(state.classes.find(widths.outputs)).tolist():
            if root and root not in units:
                why = state.classes.pinned.get(root) or lost.get(widths.module, "")
                reasons.setdefault(widths.module, why or _explain_no_group(root, groups, lost))
    return reasons


def _explain_no_group(root: int, groups: Sequence[ChannelGroup], lost: Mapping[str, str]) -> str:
    return next(iter(lost.values()), "its channels are a single unit, or have no layer of their own that makes them")


def _couplings(followed: Followed, groups: Sequence[ChannelGroup]) -> dict[str, list[str]]:
    """Say which modules sum over the channels of a group without weights."""
    state, found = followed.state, {}
    for group in groups:
        units = set(group.units)
        places = {
            f"{coupling.op.name} in {coupling.op.module or 'the network itself'}"
            for coupling in state.couplings
            if units & set(np.unique(state.classes.find(coupling.labels)).tolist())
        }
        if places:
            found[group.name] = sorted(places)
    return found
