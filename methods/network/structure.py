"""What of a network goes with which channel unit: parameters, buffers, widths, sizes in its code, multiply–accumulates.

Everything here is arrays of classes: where an array of a tensor's dimension holds the class of a removed unit, that
position goes. Class 0 stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.network.copying import copy_network
from methods.network.labels import Classes, test_for
from methods.network.layers import CutAttention, ZeroPadShortcut
from methods.network.own_calls import Excluding, Learning, Table, find_table, install
from methods.network.propagation import Term, Widths
from methods.network.sizes import Alive, Kept, Size, SizedCall, SummingCall
from methods.network.tape import tensor_names

Labels = tuple[Classes | None, ...]

Stale = frozenset[tuple[str, str, str, tuple[int | str, ...]]]
"""Sizes in a network's code: module, mode, call and path of each."""

Factors = dict[tuple[str, str, str], tuple[float, ...]]
"""Plain numbers that a network's code multiplies tensors with, by module, mode and call."""

OWN_WIDTHS = (
    "channels", "d_model", "dim", "dim_in", "dim_out", "embed_dim",
    "embed_dims", "embedding_dim", "hidden_dim", "hidden_size", "in_channels", "in_chs", "in_dim", "in_features",
    "num_channels", "num_features", "out_channels", "out_chs", "out_dim", "out_features",
    "width",
)  # fmt: skip
"""Under which names modules that are not torch's layers keep a width that they take or make."""

OWN_INNER = ("all_head_size", "attention_dim", "attn_dim", "inner_dim", "kv_dim", "qk_dim", "value_dim")
"""Under which names they keep a width that only they themselves see, such as that of all heads."""

OWN_HEADS = (
    "heads", "n_head", "n_heads", "nhead", "num_attention_heads", "num_attn_heads", "num_heads",
    "num_key_value_heads", "num_kv_heads",
)  # fmt: skip
"""Under which names they keep their number of heads."""


@dataclass(frozen=True)
class Attribute:
    """A number, or a tuple of numbers, that a module keeps of its widths.

    Attributes:
        module: Name of the module.
        name: Name of the attribute.
        labels: The channels that it counts; for a tuple one entry per number, None for a number that stays.
        tuple_: Whether it is a tuple.
        own: Whether the module is not one of torch's layers, and its code may use the number for anything.
    """

    module: str
    name: str
    labels: Labels
    tuple_: bool = False
    own: bool = False


@dataclass(frozen=True)
class Structure:
    """What goes with which unit.

    Attributes:
        tensors: For each parameter and buffer, by its first name, the class of each position of each dimension.
        reads: Dimensions along which parameters consume channels.
        tables: Buffers whose numbers are positions, and the classes of the positions that they count.
        attributes: Numbers that modules keep of their widths.
        widths: Channels of convolutions and linear layers.
        sized: Calls whose sizes count channels.
        stale: Which of these sizes do not follow by themselves: module, mode, call and path.
        summing: Calls that sum over channels without weights.
        terms: Multiply–accumulates.
        inexact: Modules that sum over channels where no mask can be exact.
        own_numbers: Whether attributes of modules that are not torch's layers are kept in step.
    """

    tensors: Mapping[str, Labels]
    reads: frozenset[tuple[str, int]]
    tables: tuple[tuple[str, Classes], ...]
    attributes: tuple[Attribute, ...]
    widths: tuple[Widths, ...]
    sized: tuple[SizedCall, ...]
    stale: Stale
    summing: tuple[SummingCall, ...]
    terms: tuple[Term, ...]
    inexact: tuple[str, ...] = ()
    own_numbers: bool = True

    def map_classes(self, change: Callable[[Classes], Classes]) -> Structure:
        """Return the same structure with every array of classes changed.

        Args:
            change: Is given an array of classes and returns another one.

        Returns:
            The changed structure.
        """

        def change_labels(labels: Classes | None) -> Classes | None:
            return None if labels is None else change(labels)

        def change_size(one: Size) -> Size:
            if one.source is None:
                return replace(one, labels=change(one.labels), stop=change_labels(one.stop))
            return replace(one, source=change(one.source))

        def change_kept(one: Kept) -> Kept:
            return replace(one, labels=tuple(map(change_labels, one.labels)))

        return replace(
            self,
            tensors={name: tuple(map(change_labels, labels)) for name, labels in self.tensors.items()},
            tables=tuple((name, change(labels)) for name, labels in self.tables),
            attributes=tuple(replace(a, labels=tuple(map(change_labels, a.labels))) for a in self.attributes),
            widths=tuple(
                replace(
                    w, inputs=change_labels(w.inputs), outputs=change_labels(w.outputs), groups=change_labels(w.groups)
                )
                for w in self.widths
            ),
            sized=tuple(replace(call, sizes=tuple(map(change_size, call.sizes))) for call in self.sized),
            summing=tuple(
                replace(
                    call,
                    arguments=tuple(map(change_kept, call.arguments)),
                    results=tuple(map(change_kept, call.results)),
                )
                for call in self.summing
            ),
            terms=tuple(replace(term, factors=tuple(map(change, term.factors))) for term in self.terms),
        )

    def list_reads(self, modules: Iterable[str]) -> Stale:
        """List the places where modules read sizes that count channels.

        Args:
            modules: Names of modules.

        Returns:
            Module, mode, call and path of each, as in :attr:`stale`.
        """
        names = set(modules)
        calls = (call for call in self.sized if call.module in names)
        return frozenset((c.module, c.mode, c.key, size.path) for c in calls for size in c.sizes if size.read)

    def drop_modules(self, gone: Callable[[str], bool]) -> Structure:
        """Describe the network that is left when modules have been taken out whole.

        Args:
            gone: Tells by its name whether a module is among them.

        Returns:
            The structure without what belongs to them.
        """

        def owner(name: str) -> str:
            return name.rpartition(".")[0]

        return replace(
            self,
            tensors={name: labels for name, labels in self.tensors.items() if not gone(owner(name))},
            reads=frozenset(read for read in self.reads if not gone(owner(read[0]))),
            tables=tuple(table for table in self.tables if not gone(owner(table[0]))),
            attributes=tuple(attribute for attribute in self.attributes if not gone(attribute.module)),
            widths=tuple(widths for widths in self.widths if not gone(widths.module)),
            sized=tuple(call for call in self.sized if not gone(call.module)),
            stale=frozenset(place for place in self.stale if not gone(place[0])),
            summing=tuple(call for call in self.summing if not gone(call.module)),
            terms=tuple(term for term in self.terms if not gone(term.module)),
            inexact=tuple(name for name in self.inexact if not gone(name)),
        )

    def remove_units(self, removed: Iterable[int]) -> Structure:
        """Describe the network that is left when units have been removed.

        Args:
            removed: Classes of the removed units.

        Returns:
            The structure without their positions.
        """
        alive = test_for_alive(removed)
        renumbered = []
        for call in self.sized:
            sizes = [
                one if one.source is None else replace(one, labels=np.array(one.value(alive), dtype=np.int64))
                for one in call.sizes
            ]
            renumbered.append(replace(call, sizes=tuple(sizes)))
        return replace(self, sized=tuple(renumbered)).map_classes(lambda labels: labels[alive(labels)])


def test_for_alive(removed: Iterable[int]) -> Alive:
    """Tell which classes are left.

    Args:
        removed: Classes that are gone.

    Returns:
        A function from an array of classes to an array of truth values.
    """
    gone = test_for(removed)

    def is_alive(labels: Classes) -> NDArray[np.bool_]:
        return ~gone(labels)

    return is_alive


def cut_network(model: nn.Module, structure: Structure, removed: Iterable[int]) -> nn.Module:
    """Remove units from a copy of a network.

    Args:
        model: The network; not changed.
        structure: What goes with which unit.
        removed: Classes of the units to remove.

    Returns:
        The smaller copy.
    """
    removed = set(removed)
    smaller = copy_network(model)
    if not removed:
        return smaller
    alive = test_for_alive(removed)
    _cut_tensors(smaller, structure, alive)
    modules = dict(smaller.named_modules(remove_duplicate=False))
    for attribute in structure.attributes:
        if attribute.own and not structure.own_numbers:
            continue
        _set_attribute(modules[attribute.module], attribute, alive)
    for widths in structure.widths:
        module = modules[widths.module]
        if isinstance(module, ZeroPadShortcut) and widths.inputs is not None:
            module.drop_inputs(np.flatnonzero(~alive(widths.inputs)).tolist())
        if isinstance(module, ZeroPadShortcut):
            module.out_channels = len(module.source)
        elif isinstance(module, nn.MultiheadAttention):
            _replace_attention(smaller, widths, alive)
    for name, table in sizes_after(structure, alive, stale_only=True).items():
        install(modules[name], table)
    return smaller


def _cut_tensors(model: nn.Module, structure: Structure, alive: Alive) -> None:
    """Take the positions of removed units out of all parameters and buffers; what is shared stays shared."""
    named = {name: tensor for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    smaller: dict[int, Tensor] = {}
    for name, labels in structure.tensors.items():
        tensor = named[name]
        data = tensor.detach()
        for dim, classes in enumerate(labels):
            if classes is not None and not (left := alive(classes)).all():
                index = torch.as_tensor(np.flatnonzero(left), device=data.device)
                data = data.index_select(dim, index)
        if data.shape != tensor.shape:
            smaller[id(tensor)] = data.clone(memory_format=torch.contiguous_format)
    for name, classes in structure.tables:
        left = alive(classes)
        if not left.all() and not isinstance(_owner(model, name), ZeroPadShortcut):
            new = torch.as_tensor(np.cumsum(left) - 1, device=named[name].device)
            now = smaller.get(id(named[name]), named[name])
            smaller[id(named[name])] = new[now].to(now.dtype)
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and id(parameter) in smaller:
                data = smaller[id(parameter)]
                if not isinstance(data, nn.Parameter):
                    data = nn.Parameter(data, requires_grad=parameter.requires_grad)
                    smaller[id(parameter)] = data
                setattr(module, name, data)  # recurrent layers keep a list of their parameters
        for name, buffer in module._buffers.items():
            if buffer is not None and id(buffer) in smaller:
                module._buffers[name] = smaller[id(buffer)]


def _owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def _set_attribute(module: nn.Module, attribute: Attribute, alive: Alive) -> None:
    """Bring one number of a module up to date."""
    counts = [None if labels is None else int(alive(labels).sum()) for labels in attribute.labels]
    if attribute.tuple_:
        before = getattr(module, attribute.name)
        value = tuple(old if new is None else new for old, new in zip(before, counts, strict=True))
        setattr(module, attribute.name, type(before)(value) if isinstance(before, list) else value)
    elif counts[0] is not None:
        setattr(module, attribute.name, counts[0])


def _replace_attention(model: nn.Module, widths: Widths, alive: Alive) -> None:
    """Put a layer in place of an attention that no longer has as many columns as the embedding is wide."""
    module: Any = model.get_submodule(widths.module)
    assert widths.groups is not None
    left = alive(widths.groups)
    parts = [labels for labels in (widths.inputs, widths.outputs, widths.groups) if labels is not None]
    if all(alive(labels).all() for labels in parts) and module.out_proj.weight.shape[0] == module.embed_dim:
        return
    narrower = CutAttention.from_attention(module, int(left.sum()))
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is module:
                parent._modules[name] = narrower


def sizes_after(structure: Structure, alive: Alive, stale_only: bool) -> dict[str, Table]:
    """Work out the sizes in the code of a network that has lost units.

    Args:
        structure: What goes with which unit.
        alive: Which classes are left.
        stale_only: Whether sizes that follow by themselves are left out.

    Returns:
        By module: what stands where.
    """
    tables: dict[str, Table] = defaultdict(dict)
    for call in structure.sized:
        entries: list[list[Any]] = []
        for size in call.sizes:
            if size.grows:
                continue
            if (stale_only or size.read) and (call.module, call.mode, call.key, size.path) not in structure.stale:
                continue
            entries.append([list(size.path), size.value(alive)])
        if entries:
            tables[call.module].setdefault(call.mode, {}).setdefault(call.key, []).extend(entries)
    return dict(tables)


def learn_stale(
    model: nn.Module, structure: Structure, removed: Iterable[int], run: Callable[[nn.Module], Any]
) -> tuple[Stale, Factors]:
    """Find the sizes in a network's code that do not follow when units are removed, and the factors in it.

    Args:
        model: The network, on any device; not changed.
        structure: What goes with which unit.
        removed: Classes of the units that are removed to see.
        run: Runs a network.

    Returns:
        Module, mode, call and path of each such size; and by module, mode and call the plain numbers that tensors are
        multiplied with. Any error of the network goes through.
    """
    removed = set(removed)
    smaller = cut_network(model, replace(structure, stale=frozenset()), removed)
    modules = dict(smaller.named_modules(remove_duplicate=False))
    learners = {}
    tables: dict[str, Table] = {made.module: {} for made in structure.sized}
    for name, table in (tables | sizes_after(structure, test_for_alive(removed), stale_only=False)).items():
        module = modules[name]
        install(module, {})
        learners[name] = Learning(module, module.forward, table)
        module.__dict__["forward"] = learners[name]
    run(smaller)
    stale = frozenset(
        (name, mode, key, tuple(path))
        for name, learner in learners.items()
        for mode, calls in learner.found.items()
        for key, entries in calls.items()
        for path, _ in entries
    )
    return stale, {
        (name, mode, key): numbers
        for name, learner in learners.items()
        for (mode, key), numbers in learner.factors.items()
    }


def mask_network(model: nn.Module, structure: Structure, removed: Iterable[int]) -> nn.Module:
    """Silence units in a copy of a network.

    Args:
        model: The network; not changed.
        structure: What goes with which unit.
        removed: Classes of the units to silence.

    Returns:
        A copy of the same shape.
    """
    removed = set(removed)
    silent = copy_network(model)
    if not removed:
        return silent
    alive = test_for_alive(removed)
    named = dict(silent.named_parameters())
    with torch.no_grad():
        for name, labels in structure.tensors.items():
            if name not in named:
                continue
            for dim, classes in enumerate(labels):
                if classes is not None and not (left := alive(classes)).all():
                    index = torch.as_tensor(np.flatnonzero(~left), device=named[name].device)
                    named[name].index_fill_(dim, index, 0)
    modules = dict(silent.named_modules(remove_duplicate=False))
    for widths in structure.widths:
        module = modules[widths.module]
        if isinstance(module, ZeroPadShortcut):
            for side, classes in (("in", widths.inputs), ("out", widths.outputs)):
                if classes is not None:
                    gone = torch.as_tensor(np.flatnonzero(~alive(classes)), device=module.source.device)
                    module.silence(gone, side)  # type: ignore[arg-type]
    for module in modules.values():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # else all of it is one operation, whose norms leave nothing out
    for name, calls in _find_excluded(structure, alive).items():
        module = modules[name]
        module.__dict__["forward"] = Excluding(module, module.forward, calls)
    return silent


def _find_excluded(structure: Structure, alive: Alive) -> dict[str, dict[str, dict[str, Any]]]:
    """Work out which positions take part in the sums over channels."""
    sized = {(call.module, call.mode, call.key): call.sizes for call in structure.sized}
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for call in structure.summing:
        arguments = [(one.path, _positions(one, alive)) for one in call.arguments]
        if not any(kept for _, kept in arguments):
            continue
        results = [(one.path, [(dim, index, size) for dim, index, size in _places(one, alive)]) for one in call.results]
        sizes = [[list(size.path), size.value(alive)] for size in sized.get((call.module, call.mode, call.key), ())]
        found[call.module][call.mode][call.key] = (
            [(path, [(dim, index) for dim, index, _ in kept]) for path, kept in arguments if kept],
            [(path, kept) for path, kept in results if kept],
            sizes,
        )
    return {name: dict(modes) for name, modes in found.items()}


def _positions(one: Kept, alive: Alive) -> list[tuple[int, NDArray[np.int64], int]]:
    return [
        (dim, np.flatnonzero(left), len(left))
        for dim, classes in enumerate(one.labels)
        if classes is not None and not (left := alive(classes)).all()
    ]


_places = _positions


def describe_sizes(model: nn.Module) -> dict[str, Table]:
    """List the sizes that are put right in a network's code.

    Args:
        model: The network.

    Returns:
        What stands where, by module.
    """
    return {name: table for name, module in model.named_modules() if (table := find_table(module))}


def name_shared(model: nn.Module) -> dict[str, str]:
    """Name every parameter and buffer that has several names by its first.

    Args:
        model: The network.

    Returns:
        The first name by every name.
    """
    first = tensor_names(model)
    every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: first[id(tensor)] for name, tensor in every}
