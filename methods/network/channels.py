"""Which channels belong together, and how to remove them.

The network is run once in each mode and written down (:mod:`methods.network.tape`). Labels of channels are carried
through every operation (:mod:`methods.network.rules`): what must lose a channel together with another has the same
class. What may be removed is then removed to see (:func:`analyse`): a group whose removal the network does not
survive is left out, with the reason.

Coupled structures as in Fang et al., DepGraph, 2023, arXiv 2301.12900; found here on the level of ATen, by index.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs, move
from methods.network.copying import copy_network
from methods.network.labels import Classes, test_for
from methods.network.own_calls import READS, mode_of
from methods.network.propagation import Propagation, reads_input
from methods.network.rules import products
from methods.network.rules.following import calls_summing, follow
from methods.network.sizes import SizedCall, SummingCall, key_of, sizes_in, tensors_in
from methods.network.structure import (
    OWN_HEADS,
    OWN_INNER,
    OWN_WIDTHS,
    Attribute,
    Structure,
    cut_network,
    mask_network,
)
from methods.network.survival import Survival, repeat_examples
from methods.network.tape import LEAVES, Tape, Value, record, tensor_names
from spaces import InputError, LayerGroup, unknown_name

SECONDS = 120.0
"""Longest time that one pass of a network may be followed."""

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
            raise InputError(unknown_name("module", name, (n for n in names if n)))
    followed = _follow(model, example)
    _pin_fixed(followed, model, ignored, frozen)
    groups, structure = _groups(followed)
    groups, structure, lost = Survival(model, example, structure).narrow_down(groups)
    last = max(1, len(groups) - 1)
    groups = [replace(group, depth=place / last, structure=structure) for place, group in enumerate(groups)]
    return Analysis(groups, _stays(followed, groups, lost), _couplings(followed, groups))


def cut(model: nn.Module, groups: Sequence[ChannelGroup], kept: Kept) -> nn.Module:
    """Remove channel units physically.

    Args:
        model: The network the groups were found in; not changed.
        groups: Its channel groups.
        kept: Units to keep by group name, at least one; a group that is not named stays whole.

    Returns:
        A smaller deep copy.
    """
    removed = _removed(groups, kept)
    structure = _structure(groups)
    return copy_network(model) if structure is None else cut_network(model, structure, removed)


def masked(model: nn.Module, groups: Sequence[ChannelGroup], kept: Kept) -> nn.Module:
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
    removed = _removed(groups, kept)
    structure = _structure(groups)
    return copy_network(model) if structure is None else mask_network(model, structure, removed)


def removed_units(groups: Sequence[ChannelGroup], kept: Kept) -> set[int]:
    """List the classes of the units that are not kept.

    Args:
        groups: Channel groups.
        kept: Units to keep by group name, at least one; a group that is not named stays whole.

    Returns:
        Classes in the groups' structure.
    """
    return _removed(groups, kept)


def _structure(groups: Sequence[ChannelGroup]) -> Structure | None:
    return groups[0].structure if groups else None


def _removed(groups: Sequence[ChannelGroup], kept: Kept) -> set[int]:
    by_name = {group.name: group for group in groups}
    removed: set[int] = set()
    for name, units in kept.items():
        if name not in by_name:
            raise InputError(unknown_name("channel group", name, by_name))
        group = by_name[name]
        if not units or not set(units) <= set(range(group.channels)):
            raise InputError(
                f"group {name!r} must keep at least one of its units 0..{group.channels - 1}, got {list(units)}"
            )
        left = set(units)
        removed |= {unit for number, unit in enumerate(group.units) if number not in left}
    return removed


# --- following the network --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Followed:
    """A network's passes and their labels."""

    model: nn.Module
    state: Propagation
    tapes: list[Tape]

    @property
    def order(self) -> dict[str, int]:
        """When each module first ran."""
        order: dict[str, int] = {}
        for tape in self.tapes:
            for run in tape.modules:
                order.setdefault(run.name, len(order))
        return order


def _follow(model: nn.Module, example: Any) -> _Followed:
    """Run the network in both modes, and carry labels through both passes."""
    copied = copy_network(model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    one = move(example, device)
    tapes = [record(copied, repeat_examples(one, 2), training, SECONDS) for training in (False, True)]
    grows = _growing(copied, one, tapes[0])
    names = tensor_names(copied)
    state = Propagation(names, dict(copied.named_modules()), grows=grows)
    for tape in tapes:
        follow(state, tape)
    if state.seen_heads or state.seen_positions:  # once more, now that it is known what heads and images are
        heads, positions = state.seen_heads, frozenset(state.seen_positions)
        state = Propagation(names, dict(copied.named_modules()), heads=heads, positions=positions, grows=grows)
        for tape in tapes:
            follow(state, tape)
    return _Followed(copied, state, tapes)


def _growing(model: nn.Module, example: Any, tape: Tape) -> frozenset[int]:
    """List the products of the pass that do not look at the input and yet are made once for every example."""

    def sizes(each: Tape) -> dict[int, Any]:
        ops = enumerate(each.ops)
        return {k: [v.shape for v in op.outputs] for k, op in ops if op.name in products.RULES and not reads_input(op)}

    two = sizes(tape)
    if not two:
        return frozenset()
    three = sizes(record(model, repeat_examples(example, 3), False, SECONDS))
    return frozenset(k for k, shapes in two.items() if three.get(k, shapes) != shapes)


def _pin_fixed(followed: _Followed, model: nn.Module, ignored: Collection[str], frozen: Collection[str]) -> None:
    """Pin what the user wants to keep, and what is frozen."""
    state = followed.state
    allowed = {name for name in frozen}
    saved = model.state_dict().keys()
    buffers = dict(model.named_buffers())
    for name in buffers.keys() - set(saved):
        buffer = buffers[name]
        for k, dim in enumerate(state.tensors.get(name, ())):
            # Where it is the same for every channel, the first of them say all; else only a file could.
            if not bool((buffer == buffer.narrow(k, 0, 1)).all()):
                state.classes.pin(dim.labels, f"{name} is a buffer that is not saved")
    for name, parameter in model.named_parameters():
        labels = state.tensors.get(name)
        if labels is None:
            continue
        owner = name.rpartition(".")[0]
        made = [dim for k, dim in enumerate(labels) if (name, k) not in state.reads]
        if any(_within(owner, above) for above in ignored):
            for dim in made:
                state.classes.pin(dim.labels, f"{owner} is to be ignored")
        if not parameter.requires_grad and parameter.ndim > 1 and not any(_within(owner, above) for above in allowed):
            for dim in made:
                state.classes.pin(dim.labels, f"{owner or name} is frozen")


def _within(name: str, above: str) -> bool:
    return name == above or not above or name.startswith(f"{above}.")


# --- from classes to groups -------------------------------------------------------------------------------------


def _groups(followed: _Followed) -> tuple[list[ChannelGroup], Structure]:
    """Sort classes into groups: those whose units look the same everywhere."""
    state = followed.state
    sized, summing, inexact = _calls(followed)
    places: dict[int, list[tuple[str, int, int]]] = defaultdict(list)  # of each class: tensor, dimension, how often
    first: dict[int, tuple[int, str, int]] = {}  # of each class: its first producer and the place there
    order = followed.order
    seen_in_data = _classes_of_data(followed)
    owners = _owners(followed)
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
        attributes=tuple(_attributes(followed)),
        widths=tuple({each.module: each for each in reversed(state.widths)}.values()),
        sized=tuple(sized),
        stale=frozenset(),
        summing=tuple(summing),
        terms=tuple(state.terms[: state.terms_in_first]),
        inexact=tuple(inexact),
    ).mapped(settle)
    sizes = _resolutions(followed.tapes[0])
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


def _calls(followed: _Followed) -> tuple[list[SizedCall], list[SummingCall], list[str]]:
    """List the calls that have sizes or sum over channels; the same call of a module that runs twice must agree."""
    state = followed.state
    sized: dict[tuple[str, str, str], SizedCall] = {}
    summing: dict[tuple[str, str, str], SummingCall] = {}
    sums = calls_summing(state)
    for tape in followed.tapes:
        mode = mode_of(tape.training)
        for made in tape.calls:
            key = (made.module, mode, key_of(made))
            found = SizedCall(*key, tuple(sizes_in(made, state)))
            if key not in sized:
                sized[key] = found
            elif not _agree(sized[key], found, state) and made.function in READS:
                sized[key] = SizedCall(*key, ())
            elif not _agree(sized[key], found, state):
                why = f"{made.function} in {made.module or 'the network itself'} has other sizes when it runs again"
                for size in (*sized[key].sizes, *found.sizes):
                    for labels in (size.labels if size.source is None else None, size.stop, size.source):
                        state.classes.pin(labels, why)
            if made in sums:
                arguments = [*tensors_in(made.args, state), *tensors_in(made.kwargs, state)]
                summing[key] = SummingCall(*key, tuple(arguments), tuple(tensors_in(made.output, state)))
    inexact = {c.op.module for c in state.couplings if c.op.call is None}
    return [call for call in sized.values() if call.sizes], list(summing.values()), sorted(inexact)


def _agree(one: SizedCall, other: SizedCall, state: Propagation) -> bool:
    if [size.path for size in one.sizes] != [size.path for size in other.sizes]:
        return False
    for a, b in zip(one.sizes, other.sizes, strict=True):
        for left, right in ((a.labels, b.labels), (a.stop, b.stop)):
            if (left is None) != (right is None):
                return False
            if left is not None and right is not None and a.source is None:
                if not np.array_equal(state.classes.find(left), state.classes.find(right)):
                    return False
    return True


def _classes_of_data(followed: _Followed) -> set[int]:
    """List the classes of channels that carry something of the input."""
    state, found = followed.state, set()
    for value, dims in state.dims.items():
        if value.from_input:
            for dim in dims:
                if dim.labels is not None:
                    found.update(np.unique(state.classes.find(dim.labels)).tolist())
    for widths in state.widths:  # heads and states live inside a layer
        for labels in (widths.inputs, widths.outputs, widths.groups):
            if labels is not None:
                found.update(np.unique(state.classes.find(labels)).tolist())
    return found


def _owners(followed: _Followed) -> dict[tuple[str, int], str]:
    """Say which module each dimension of a parameter belongs to: the layer, also where it is computed from parts."""
    modules = dict(followed.model.named_modules())
    owners = {}
    for name, dims in followed.state.tensors.items():
        owner = name.rpartition(".")[0]
        while ".parametrizations" in f".{owner}" or (owner and isinstance(modules.get(owner), nn.ParameterList)):
            owner = owner.rpartition(".")[0]
        parent = owner.rpartition(".")[0]
        if isinstance(modules.get(parent), nn.MultiheadAttention):
            owner = parent
        for k in range(len(dims)):
            owners[name, k] = owner
    return owners


_COUNTS: tuple[tuple[type[nn.Module], str, str], ...] = (
    (nn.modules.conv._ConvNd, "in_channels", "inputs"),
    (nn.modules.conv._ConvNd, "out_channels", "outputs"),
    (nn.modules.conv._ConvNd, "groups", "groups"),
    (nn.Linear, "in_features", "inputs"),
    (nn.Linear, "out_features", "outputs"),
    (nn.RNNBase, "input_size", "inputs"),
)
"""Attributes of layers that count their channels."""


def _attributes(followed: _Followed) -> list[Attribute]:
    """List the numbers that modules keep of their widths."""
    state, found = followed.state, []
    modules = dict(followed.model.named_modules())
    for widths in state.widths:
        module = modules[widths.module]
        for kind, name, which in _COUNTS:
            labels = getattr(widths, which)
            if isinstance(module, kind) and labels is not None:
                found.append(Attribute(widths.module, name, (labels,)))
        if isinstance(module, nn.RNNBase) and widths.outputs is not None:
            found.append(Attribute(widths.module, "hidden_size", (widths.outputs[: module.hidden_size],)))
    for run in (run for tape in followed.tapes for run in tape.modules):
        module, dims = run.module, state.get(run.inputs[0]) if run.inputs else []
        channels = dims[1].labels if len(dims) > 1 else None
        if isinstance(module, nn.modules.batchnorm._NormBase) and channels is not None:
            found.append(Attribute(run.name, "num_features", (channels,)))
        elif isinstance(module, nn.GroupNorm) and channels is not None:
            found.append(Attribute(run.name, "num_channels", (channels,)))
            if module.num_groups == module.num_channels:
                found.append(Attribute(run.name, "num_groups", (channels,)))
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            last = tuple(dim.labels for dim in dims[len(dims) - len(module.normalized_shape) :])
            found.append(Attribute(run.name, "normalized_shape", last, tuple_=True))
        elif isinstance(module, nn.Embedding):
            found.append(Attribute(run.name, "embedding_dim", (state.get(run.outputs[0])[-1].labels,)))
        elif isinstance(module, nn.PReLU) and module.num_parameters > 1:
            found.append(Attribute(run.name, "num_parameters", (channels,)))
    unique = {(one.module, one.name): one for one in [*_own_numbers(followed), *found]}
    return list(unique.values())


def _own_numbers(followed: _Followed) -> Iterator[Attribute]:
    """List the widths and numbers of heads that modules which are not torch's layers keep."""
    state = followed.state
    split: dict[str, list[Classes]] = defaultdict(list)  # channels in the results of a module's own changes of shape
    for made in (made for tape in followed.tapes for made in tape.calls):
        if made.function in {"view", "reshape", "unflatten"} and isinstance(made.output, Value):
            split[made.module] += [dim.labels for dim in state.get(made.output) if dim.labels is not None]
    inside: dict[str, list[Classes]] = defaultdict(list)  # channels that the layers of a module take and make
    for widths in state.widths:
        both = (each for each in (widths.inputs, widths.outputs) if each is not None)
        inside[widths.module.rpartition(".")[0]] += both
    for run in (run for tape in followed.tapes for run in tape.modules):
        if isinstance(run.module, LEAVES):  # cut by rules of their own
            continue
        numbers = {name: value for name, value in vars(run.module).items() if type(value) is int and value > 1}
        taken, given = (
            [dim.labels for value in values for dim in state.get(value) if dim.labels is not None]
            for values in (run.inputs, run.outputs)
        )
        for name, value in numbers.items():
            if name in OWN_HEADS:
                candidates = [each for each in split[run.name] if len(np.unique(each)) == len(each)]
            elif name in OWN_INNER:
                outer = {state.classes.find(each).tobytes() for each in (*taken, *given)}
                candidates = sorted(inside[run.name], key=lambda each: state.classes.find(each).tobytes() in outer)
            elif name in OWN_WIDTHS:
                candidates = [*([*given, *taken] if "out" in name else [*taken, *given]), *inside[run.name]]
            else:
                continue
            live = (each for each in candidates if len(each) == value and state.classes.live(each) is not None)
            if (labels := next(live, None)) is not None:
                yield Attribute(run.name, name, (labels,), own=True)


def _members(
    followed: _Followed, structure: Structure, chosen: Sequence[Sequence[int]], order: Mapping[str, int]
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
    owners = _owners(followed)
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


def _resolutions(tape: Tape) -> dict[str, str]:
    """Say at which resolution each module works."""
    sizes: dict[str, str] = {}
    for run in tape.modules:
        if run.outputs:
            shape = run.outputs[0].shape
            sizes.setdefault(run.name, "x".join(map(str, shape[2:] if len(shape) == 4 else (1, 1))))
    return sizes


def _stays(followed: _Followed, groups: Sequence[ChannelGroup], lost: Mapping[str, str]) -> dict[str, str]:
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
                reasons.setdefault(widths.module, why or _alone(root, groups, lost))
    return reasons


def _alone(root: int, groups: Sequence[ChannelGroup], lost: Mapping[str, str]) -> str:
    return next(iter(lost.values()), "its channels are a single unit, or have no layer of their own that makes them")


def _couplings(followed: _Followed, groups: Sequence[ChannelGroup]) -> dict[str, list[str]]:
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
