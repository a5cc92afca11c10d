"""Which channels belong together, and how to remove them: the only door to torch-pruning.

torch-pruning traces the network and finds every tensor that must lose a channel together with another
(producers, batch norms, depthwise convolutions, residual adds, consumers; Fang et al., DepGraph, 2023,
arXiv 2301.12900). Its graph objects stay in this file: outside there are :class:`ChannelGroup` tables.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import lcm
from typing import Any, Literal

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning.pruner.function import BasePruningFunc

from methods.contract.inputs import Inputs, call, outputs_in, shapes_of
from methods.network.layers import ZeroPadShortcut
from spaces import InputError, LayerGroup, unknown_name

Side = Literal["out", "in"]
Kept = Mapping[str, Sequence[int]]

# torch-pruning has no exception of its own: a network that it cannot follow ends in any of these.
_TRACING_FAILURES = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    UserWarning,
)


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
    """

    name: str
    channels: int
    stage: str
    depth: float
    members: tuple[Member, ...]

    @property
    def layer(self) -> LayerGroup:
        """The group as spaces know it: no tensors, no modules."""
        return LayerGroup(self.name, self.channels, self.stage, self.depth)

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


class _ShortcutPruner(BasePruningFunc):  # type: ignore[misc]  # torch-pruning has no types
    """Lets torch-pruning cut :class:`ZeroPadShortcut`; inputs and outputs are independent."""

    def prune_out_channels(self, layer: ZeroPadShortcut, idxs: Sequence[int]) -> nn.Module:
        layer.drop_outputs(list(idxs))
        return layer

    def prune_in_channels(self, layer: ZeroPadShortcut, idxs: Sequence[int]) -> nn.Module:
        layer.drop_inputs(list(idxs))
        return layer

    def get_out_channels(self, layer: ZeroPadShortcut) -> int:
        return layer.out_channels

    def get_in_channels(self, layer: ZeroPadShortcut) -> int:
        return layer.in_channels


def channel_groups(model: nn.Module, example: Inputs, ignored: Collection[str] = ()) -> list[ChannelGroup]:
    """Find the prunable channel groups of a network.

    Groups that reach the network's output (the classifier) or a module named in ``ignored`` are left out,
    and so are groups of a single unit.

    Args:
        model: The network; not changed.
        example: One input, ``[1, ...]``.
        ignored: Names of modules whose output channels must all stay.

    Returns:
        The groups in order of execution.

    Raises:
        InputError: If a name in ``ignored`` is not a module, the network cannot be traced, or nothing in it
            can be pruned.
    """
    names = dict(model.named_modules())
    for name in ignored:
        if name not in names:
            raise InputError(unknown_name("module", name, (n for n in names if n)))
    with _traceable(model) as traced:
        graph = _dependency_graph(traced, example)
        order, sizes = _execution(traced, example)
        found = list(_raw_groups(graph, traced, frozenset(ignored)))
    found.sort(key=lambda members: min(order.get(m.module, len(order)) for m in members))
    if not found:
        raise InputError(
            f"nothing to prune in {type(model).__name__}: no convolution or linear layer has output channels "
            "that may be removed (the classifier and ignored modules must stay)"
        )
    return [
        _name_group(members, sizes, order, depth=position / max(1, len(found) - 1))
        for position, members in enumerate(found)
    ]


def cut(model: nn.Module, groups: Sequence[ChannelGroup], kept: Kept) -> nn.Module:
    """Remove channel units physically.

    Args:
        model: The network the groups were found in; not changed.
        groups: Its channel groups.
        kept: Units to keep by group name, at least one; a group that is not named stays whole.

    Returns:
        A smaller deep copy.
    """
    smaller = copy.deepcopy(model)
    for (name, side), dropped in _dropped_channels(groups, kept).items():
        module = smaller.get_submodule(name)
        pruner = _pruner(module)
        remove = pruner.prune_out_channels if side == "out" else pruner.prune_in_channels
        _remove(module, side, sorted(dropped), remove)
    return smaller


def masked(model: nn.Module, groups: Sequence[ChannelGroup], kept: Kept) -> nn.Module:
    """Silence channel units without removing them: the slow, obvious twin of :func:`cut`.

    The weights and biases that produce a dropped unit, and the affine parameters of every norm it passes,
    become zero, so that it carries zeros wherever the activation function maps zero to zero; in any case its
    consumers read it with weight zero.

    Args:
        model: The network the groups were found in; not changed.
        groups: Its channel groups.
        kept: Units to keep by group name, at least one; a group that is not named stays whole.

    Returns:
        A deep copy of the same shape.
    """
    silent = copy.deepcopy(model)
    with torch.no_grad():
        for (name, side), dropped in _dropped_channels(groups, kept).items():
            module = silent.get_submodule(name)
            index = torch.tensor(sorted(dropped), device=next(silent.parameters()).device)
            if isinstance(module, ZeroPadShortcut):
                module.silence(index, side)
            elif side == "out":
                for tensor in module.parameters(recurse=False):
                    tensor.index_fill_(1 if _transposed(module) and tensor.ndim > 1 else 0, index, 0)
            elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                _zero_inputs(module, index)
    return silent


def _zero_inputs(module: nn.Module, index: Tensor) -> None:
    """Make a consumer blind to some of its input channels."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    convolution_groups = getattr(module, "groups", 1)
    if convolution_groups == 1:
        weight.index_fill_(0 if _transposed(module) else 1, index, 0)
        return
    # A grouped convolution stores only its own group's inputs: [out, in / groups, ...].
    outputs, inputs = weight.shape[0] // convolution_groups, weight.shape[1]
    for channel in index.tolist():
        rows = slice(channel // inputs * outputs, (channel // inputs + 1) * outputs)
        weight[rows, channel % inputs] = 0


def _dropped_channels(groups: Sequence[ChannelGroup], kept: Kept) -> dict[tuple[str, Side], set[int]]:
    """Collect, per module and side, every channel that has to go, over all groups."""
    by_name = {group.name: group for group in groups}
    dropped: dict[tuple[str, Side], set[int]] = defaultdict(set)
    for name, units in kept.items():
        if name not in by_name:
            raise InputError(unknown_name("channel group", name, by_name))
        group = by_name[name]
        if not units or not set(units) <= set(range(group.channels)):
            raise InputError(
                f"group {name!r} must keep at least one of its units 0..{group.channels - 1}, got {list(units)}"
            )
        gone = sorted(set(range(group.channels)) - set(units))
        for member in group.members:
            if gone:
                dropped[member.module, member.side].update(member.index[gone].flatten().tolist())
    return dropped


def _remove(module: nn.Module, side: Side, dropped: list[int], remove: Any) -> None:
    """Cut one side of one module; a norm or a depthwise convolution is cut on both sides by its "out"."""
    groups = getattr(module, "groups", 1)
    if side == "in" and groups > 1 and isinstance(module, nn.modules.conv._ConvNd):
        _remove_grouped_inputs(module, dropped)
        return
    remove(module, dropped)


def _remove_grouped_inputs(module: nn.modules.conv._ConvNd, dropped: list[int]) -> None:
    """Remove the same positions from every group of a grouped convolution."""
    per_group = module.in_channels // module.groups
    positions = {channel % per_group for channel in dropped}
    kept = [position for position in range(per_group) if position not in positions]
    module.in_channels = len(kept) * module.groups
    module.weight = nn.Parameter(module.weight.detach()[:, kept].clone())


def _transposed(module: nn.Module) -> bool:
    return bool(getattr(module, "transposed", False))


def _pruner(module: nn.Module) -> Any:
    """Return torch-pruning's functions for one module."""
    if isinstance(module, ZeroPadShortcut):
        return _ShortcutPruner()
    return torch_pruning.pruner.function.PrunerBox[torch_pruning.ops.module2type(module)]


@contextmanager
def _traceable(model: nn.Module) -> Generator[nn.Module]:
    """Give a copy that can be traced: in eval mode (tracing changes modes), every weight with a gradient."""
    traced = copy.deepcopy(model).eval()
    for parameter in traced.parameters():
        parameter.requires_grad_(True)
    with torch.enable_grad():
        yield traced


def _dependency_graph(model: nn.Module, example: Inputs) -> Any:
    """Trace the network; every mutable argument is fresh, for torch-pruning's defaults remember."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # a graph that torch-pruning doubts is not used
            return torch_pruning.DependencyGraph().build_dependency(
                model,
                example_inputs=example,
                # The product makes each output a node of its own, so that groups reaching it can be told apart.
                forward_fn=lambda network, x: [tensor * 1 for tensor in outputs_in(call(network, x))],
                unwrapped_parameters=[],
                customized_pruners={ZeroPadShortcut: _ShortcutPruner()},
                ignored_layers=[],
                ignored_params=[],
                verbose=False,
            )
    except _TRACING_FAILURES as error:
        raise InputError(
            f"{type(model).__name__} cannot be traced with an input of shape {shapes_of(example)}: {error}"
        ) from error


def _execution(model: nn.Module, example: Inputs) -> tuple[dict[str, int], dict[str, str]]:
    """Run once to learn in which order modules run and at which resolution."""
    order: dict[str, int] = {}
    sizes: dict[str, str] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            order.setdefault(name, len(order))
            if isinstance(output, Tensor):
                spatial = output.shape[2:] if output.ndim == 4 else (1, 1)
                sizes.setdefault(name, "x".join(str(int(side)) for side in spatial))

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return order, sizes


def _raw_groups(graph: Any, model: nn.Module, ignored: frozenset[str]) -> Iterator[list[Member]]:
    """Translate torch-pruning's groups into members, leaving out what must stay."""
    names = {module: name for name, module in model.named_modules()}
    for group in graph.get_all_groups(ignored_layers=[]):
        columns: dict[tuple[str, Side], dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        fixed = False
        for item in group:
            module = item.dep.target.module
            if isinstance(module, torch_pruning.ops._OutputOp) or isinstance(module, nn.Parameter):
                fixed = True  # the network's answer, or a bare parameter that nobody can cut safely
            name = names.get(module)
            if name is None:
                continue
            out = graph.is_out_channel_pruning_fn(item.dep.handler)
            fixed |= out and name in ignored
            side: Side = "out" if out else "in"
            for channel, root in zip(item.idxs, item.root_idxs, strict=True):
                columns[name, side][root].add(channel)
        if fixed:
            continue
        members = _tie_channels(columns, model)
        if members and len(members[0].index) > 1:
            yield members


def _tie_channels(columns: dict[tuple[str, Side], dict[int, set[int]]], model: nn.Module) -> list[Member]:
    """Merge channels into units so that grouped convolutions and group norms stay evenly filled."""
    channels = 1 + max(root for column in columns.values() for root in column)
    tie = 1
    for name, side in columns:
        tie = lcm(tie, _tie(model.get_submodule(name), side))
    if channels % tie:
        return []
    units = channels // tie
    members = []
    for (name, side), column in columns.items():
        rows = [
            sorted({c for root in range(unit, channels, units) for c in column.get(root, ())}) for unit in range(units)
        ]
        if len({len(row) for row in rows}) != 1 or not rows[0]:
            return []  # only part of the channels is coupled here: not removable unit by unit
        if not all(_takes_evenly(model.get_submodule(name), side, row) for row in rows):
            return []  # a grouped layer would be left with groups of different sizes
        members.append(Member(name, side, torch.tensor(rows)))
    return members


def _tie(module: nn.Module, side: Side) -> int:
    """How many channels of a module have to go together."""
    if isinstance(module, nn.GroupNorm):
        return module.num_groups
    if isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1:
        depthwise = module.groups == module.in_channels == module.out_channels
        return 1 if depthwise else module.groups
    return 1


def _takes_evenly(module: nn.Module, side: Side, unit: list[int]) -> bool:
    """Whether a unit takes the same positions out of every group of a grouped layer."""
    tie = _tie(module, side)
    if tie == 1:
        return True
    per_group = _channels(module, side) // tie
    positions = [sorted(c % per_group for c in unit if c // per_group == group) for group in range(tie)]
    return all(taken == positions[0] for taken in positions) and len(positions[0]) * tie == len(unit)


def _channels(module: nn.Module, side: Side) -> int:
    """Channels of a grouped convolution or a group norm on one side."""
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    assert isinstance(module, nn.modules.conv._ConvNd)
    return module.out_channels if side == "out" else module.in_channels


def _name_group(members: list[Member], sizes: dict[str, str], order: dict[str, int], depth: float) -> ChannelGroup:
    """Name a group after its first producing module in order of execution."""
    first = min((m for m in members if m.side == "out"), key=lambda m: order.get(m.module, len(order)))
    return ChannelGroup(
        name=first.module,
        channels=len(first.index),
        stage=sizes.get(first.module, "1x1"),
        depth=depth,
        members=tuple(sorted(members, key=lambda m: (order.get(m.module, len(order)), m.side))),
    )
