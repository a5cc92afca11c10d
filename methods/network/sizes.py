"""Sizes written into a network's code, kept in step with the network.

A forward pass may say ``x.view(-1, 16 * 8 * 8)``, ``x[:, :8]`` or ``pad(x, (0, 0, 0, 0, 4, 4))``. When channels are
removed, such numbers no longer fit. The code of the network is not ours to edit; instead the module's forward pass is
wrapped, and the arguments of its own calls are put right, call by call. Calls whose sizes follow by themselves
(``x.flatten(1)``, ``x.view(x.size(0), -1)``) are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.network.labels import FREE, Classes, Dim
from methods.network.own_calls import READS, Path, find_table, mode_of
from methods.network.propagation import Propagation
from methods.network.tape import Call, Value, sequence

Alive = Callable[[Classes], NDArray[np.bool_]]
"""Tells of each class whether it is left."""


@dataclass(frozen=True)
class Size:
    """One number in a call, as a count of channels.

    Attributes:
        path: Where it is.
        labels: The channels that it counts; of a slice those before its start, of a list those that it picks.
        stop: Of a slice: the channels before its end.
        source: Of a list of positions: the channels they are positions of.
        batch: Whether it counts examples too, so that torch has to work it out.
        grows: Whether it grows with the batch in a place where torch cannot work it out: the code must do that itself.
        read: Whether the code reads it from a tensor. It is then told the number that stood there before anything was
            removed, but only in modules that need it: what they work out with it is no size.
        constant: Its value where it counts nothing that can be removed, and must not change with what can.
    """

    path: Path
    labels: Classes
    stop: Classes | None = None
    source: Classes | None = None
    batch: bool = False
    grows: bool = False
    read: bool = False
    constant: int | None = None

    def value(self, alive: Alive) -> Any:
        """Return what stands there when some channels are gone.

        Args:
            alive: Which classes are left.

        Returns:
            A number; for a slice its start and end, for a list of positions the new list.
        """
        if self.constant is not None:
            return self.constant
        if self.source is not None:
            left = alive(self.source)
            new = np.cumsum(left) - 1
            numbers = self._numbers()
            return [int(new[number]) for number in numbers if left[number]]
        count = int(alive(self.labels).sum())
        if self.stop is not None:
            return [count, int(alive(self.stop).sum())]
        return -1 if self.batch else count

    def _numbers(self) -> list[int]:
        return [int(number) for number in self.labels]


@dataclass(frozen=True)
class SizedCall:
    """A call whose sizes count channels.

    Attributes:
        module: Module whose own code makes it.
        mode: ``"eval"`` or ``"train"``.
        key: Which call it is, such as ``"view:0"``.
        sizes: Its numbers.
    """

    module: str
    mode: str
    key: str
    sizes: tuple[Size, ...]


@dataclass(frozen=True)
class Kept:
    """Which channels of a tensor in a call take part.

    Attributes:
        path: Where the tensor is among the arguments, or in the result.
        labels: Class of each position of each dimension.
    """

    path: Path
    labels: tuple[Classes | None, ...]


@dataclass(frozen=True)
class SummingCall:
    """A call that sums over channels without weights.

    Attributes:
        module: Module whose own code makes it.
        mode: ``"eval"`` or ``"train"``.
        key: Which call it is.
        arguments: Its tensors.
        results: What it gives.
    """

    module: str
    mode: str
    key: str
    arguments: tuple[Kept, ...]
    results: tuple[Kept, ...]


def key_of(call: Call) -> str:
    """Name a call within its module's forward pass.

    Args:
        call: The call.

    Returns:
        The function and how often it was called before, such as ``"view:0"``.
    """
    return f"{call.function}:{call.ordinal}"


# --- which numbers count channels ------------------------------------------------------------------------------


def sizes_in(call: Call, state: Propagation) -> list[Size]:
    """Find the numbers in a call that count channels.

    Args:
        call: The call.
        state: Labels of all tensors.

    Returns:
        Where they are and what they count.
    """
    reader = _READERS.get(call.function)
    return [] if reader is None else [size for size in reader(call, state) if _is_removable(size, state)]


def _is_removable(size: Size, state: Propagation) -> bool:
    removable = (state.classes.live(labels) is not None for labels in (size.labels, size.stop, size.source))
    return size.constant is not None or any(removable)


def _list_sizes(call: Call, first: int, *names: str) -> list[tuple[Path, Any]]:
    """Find the entries of a list of sizes that may be given as one argument or as several."""
    for name in names:
        if name in call.kwargs:
            value = call.kwargs[name]
            return [((name,), value)] if isinstance(value, int) else [((name, k), v) for k, v in enumerate(value)]
    if len(call.args) <= first:
        return []
    if isinstance(call.args[first], list | tuple):
        return [((first, k), value) for k, value in enumerate(call.args[first])]
    return [((k,), value) for k, value in enumerate(call.args) if k >= first]


def _argument(call: Call, place: int, name: str, default: Any = None) -> tuple[Path, Any]:
    if name in call.kwargs:
        return (name,), call.kwargs[name]
    return (place,), call.args[place] if len(call.args) > place else default


def _sizes_of(entries: Sequence[tuple[Path, Any]], dims: Sequence[Dim], state: Propagation) -> list[Size]:
    found = []
    inferred = any(value == -1 for _, value in entries)
    for (path, value), dim in zip(entries, dims, strict=False):
        if not isinstance(value, int) or value == -1:
            continue
        labels = state.classes.live(dim.labels)
        if labels is None:
            found.append(Size(path, np.zeros(0, dtype=np.int64), constant=int(value)))
        elif not (dim.batch and inferred):
            inferred |= dim.batch
            found.append(Size(path, labels, batch=dim.batch))
    return found


def _trace_view(call: Call, state: Propagation) -> list[Size]:
    out = call.output
    return _sizes_of(_list_sizes(call, 1, "shape", "size"), state.get(out), state) if isinstance(out, Value) else []


def _trace_new(call: Call, state: Propagation) -> list[Size]:
    out = call.output
    first = 1 if call.function.startswith("new_") else 0
    return _sizes_of(_list_sizes(call, first, "size"), state.get(out), state) if isinstance(out, Value) else []


def _trace_shape(call: Call, state: Propagation) -> list[Size]:
    source = call.args[0]
    if not isinstance(source, Value):
        return []
    _, dim = _argument(call, 1, "dim")
    asked = range(len(source.shape)) if dim is None else [dim % len(source.shape)]
    dims, none = state.get(source), np.zeros(0, dtype=np.int64)
    told = find_table(state.modules[call.module]).get(mode_of(call.training), {}).get(key_of(call), [])
    before = {tuple(path): value for path, value in told}  # of a network that was cut already
    return [
        Size((call.function, k), none, read=True, constant=before.get((call.function, k), source.shape[k]))
        for k in asked
        if state.classes.live(dims[k].labels) is not None
    ]


def _trace_repeat(call: Call, state: Propagation) -> list[Size]:
    source, out, found = call.args[0], call.output, []
    if not isinstance(source, Value) or not isinstance(out, Value):
        return []
    dims, extra = state.get(out), len(out.shape) - len(source.shape)
    for k, (path, value) in enumerate(_list_sizes(call, 1, "repeats", "sizes")):
        labels = state.classes.live(dims[k].labels)
        if labels is not None and value == len(labels) and (k < extra or source.shape[k - extra] == 1):
            found.append(Size(path, labels))
    return found


def _trace_tensor_split(call: Call, state: Propagation) -> list[Size]:
    path, given = _argument(call, 1, "indices_or_sections")
    _, dim = _argument(call, 2, "dim", 0)
    labels = state.get(call.args[0])[dim].labels
    if labels is None:
        return []
    if isinstance(given, int) and len(labels) % given == 0:  # equal parts stay equal
        state.classes.tie(labels.reshape(given, -1).T, f"tensor_split in {call.module} splits into equal parts")
        return []
    if isinstance(given, int):
        state.classes.pin(labels, f"tensor_split in {call.module or 'the network itself'} splits into unequal parts")
        return []
    return [Size((*path, k), labels[:place]) for k, place in enumerate(given)]


def _trace_unflatten(call: Call, state: Propagation) -> list[Size]:
    _, dim = _argument(call, 1, "dim")
    entries = _list_sizes(call, 2, "sizes", "unflattened_size")
    first = dim % len(call.args[0].shape)
    return _sizes_of(entries, state.get(call.output)[first : first + len(entries)], state)


def _trace_item(call: Call, state: Propagation) -> list[Size]:
    source, index = call.args[0], call.args[1]
    if not isinstance(source, Value):
        return []
    alone = not isinstance(index, tuple)
    items = (index,) if alone else index
    dims, found, k = state.get(source), [], 0
    taken = sum(_spans(item) for item in items)
    for place, item in enumerate(items):
        path: Path = (1,) if alone else (1, place)
        if item is Ellipsis:
            k += len(dims) - taken
            continue
        labels = dims[k].labels if k < len(dims) else None
        if labels is not None and isinstance(item, slice) and (item.step or 1) == 1:
            start, stop, _ = item.indices(len(labels))
            if (start, stop) != (0, len(labels)):
                found.append(Size(path, labels[:start], stop=labels[:stop]))
        elif labels is not None and isinstance(item, int) and not isinstance(item, bool):
            found.append(Size(path, labels[: item % len(labels)]))  # its place among those that are left
        elif labels is not None and isinstance(item, list) and item and not isinstance(item[0], bool):
            found.append(Size(path, np.array(item) % len(labels), source=labels))
        elif labels is not None and isinstance(item, Value) and item.tensor is None and item.numbers is not None:
            found.append(Size(path, item.numbers.reshape(-1) % len(labels), source=labels))
        k += _spans(item)
    return found


def _spans(item: Any) -> int:
    """How many dimensions one index takes."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    if isinstance(item, Value) and item.numbers is not None and item.numbers.dtype == bool:
        return len(item.shape)
    return 1


def _trace_index_select(call: Call, state: Propagation) -> list[Size]:
    source = call.args[0]
    _, dim = _argument(call, 1, "dim")
    path, index = _argument(call, 2, "index")
    labels = state.get(source)[dim].labels
    if labels is None or index.tensor is not None or index.numbers is None:
        return []
    return [Size(path, index.numbers.reshape(-1) % len(labels), source=labels)]


def _trace_narrow(call: Call, state: Propagation) -> list[Size]:
    labels = state.get(call.args[0])[_argument(call, 1, "dim")[1]].labels
    if labels is None:
        return []
    (at, start), (over, length) = _argument(call, 2, "start"), _argument(call, 3, "length")
    return [Size(at, labels[:start]), Size(over, labels[start : start + length])]


def _trace_split(call: Call, state: Propagation) -> list[Size]:
    outputs = list(call.output)
    _, dim = _argument(call, 2, "dim", 0)
    name = next((n for n in ("split_size_or_sections", "split_size", "split_sizes") if n in call.kwargs), "split_size")
    path, given = _argument(call, 1, name)
    parts = [state.get(value)[dim] for value in outputs]
    if isinstance(given, int):
        return [Size(path, parts[0].labels)] if parts[0].labels is not None else []
    return [Size((*path, k), part.labels) for k, part in enumerate(parts) if part.labels is not None]


def _trace_pad(call: Call, state: Propagation) -> list[Size]:
    path, pads = _argument(call, 1, "pad")
    dims, found = state.get(call.output), []
    for k in range(len(pads) // 2):
        labels = dims[len(dims) - 1 - k].labels
        if labels is None:
            continue
        front, back = pads[2 * k], pads[2 * k + 1]
        if front > 0:
            found.append(Size((*path, 2 * k), labels[:front]))
        if back > 0:
            found.append(Size((*path, 2 * k + 1), labels[len(labels) - back :]))
        source = state.get(call.args[0])[len(dims) - 1 - k].labels
        if (front < 0 or back < 0) and source is not None:  # negative padding takes channels away
            state.classes.pin(source, f"pad in {call.module or 'the network itself'} takes channels away")
    return found


def _trace_roll(call: Call, state: Propagation) -> list[Size]:
    path, shifts = _argument(call, 1, "shifts")
    _, places = _argument(call, 2, "dims", ())
    found = []
    several = not isinstance(shifts, int)
    for k, (shift, place) in enumerate(zip(sequence(shifts), sequence(places or ()), strict=False)):
        labels = state.get(call.args[0])[place].labels
        if labels is not None:  # as many are carried over the end as are left of those
            steps = shift % len(labels)
            found.append(Size((*path, k) if several else path, labels[len(labels) - steps :]))
    return found


def _trace_layer_norm(call: Call, state: Propagation) -> list[Size]:
    entries = _list_sizes(call, 1, "normalized_shape")[: len(call.args[1]) if len(call.args) > 1 else None]
    dims = [replace(dim, batch=False) for dim in state.get(call.args[0])[-len(entries) :]]  # torch works out none here
    return _sizes_of(entries, dims, state)


def _trace_groups(call: Call, state: Propagation) -> list[Size]:
    labels = next((state.group_labels[op] for op in call.ops if op in state.group_labels), None)
    place, name = (1, "num_groups") if call.function == "group_norm" else (6, "groups")
    if call.function.startswith("conv_transpose"):
        place = 6
    path, given = _argument(call, place, name)
    channels = state.get(call.args[0])[1] if call.args and isinstance(call.args[0], Value) else FREE
    return [] if labels is None or given is None else [Size(path, labels, grows=channels.batch)]


_READERS: dict[str, Callable[[Call, Propagation], list[Size]]] = {
    **dict.fromkeys(("view", "reshape", "expand", "broadcast_to"), _trace_view),
    **dict.fromkeys(("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty"), _trace_new),
    "unflatten": _trace_unflatten,
    **dict.fromkeys(READS, _trace_shape),
    "repeat": _trace_repeat,
    "tensor_split": _trace_tensor_split,
    "__getitem__": _trace_item,
    "__setitem__": _trace_item,
    "index_select": _trace_index_select,
    "narrow": _trace_narrow,
    "split": _trace_split,
    "split_with_sizes": _trace_split,
    "pad": _trace_pad,
    "roll": _trace_roll,
    "layer_norm": _trace_layer_norm,
    "rms_norm": _trace_layer_norm,
    "group_norm": _trace_groups,
    **dict.fromkeys((f"conv{n}d" for n in "123"), _trace_groups),
    **dict.fromkeys((f"conv_transpose{n}d" for n in "123"), _trace_groups),
}


def tensors_in(tree: Any, state: Propagation, path: Path = ()) -> list[Kept]:
    """Find the tensors in the arguments or the result of a call.

    Args:
        tree: Arguments, as a tuple or a mapping, or the result.
        state: Labels of all tensors.
        path: Where the tree is.

    Returns:
        Those with channels.
    """
    if isinstance(tree, Value):
        labels = tuple(state.classes.live(dim.labels) for dim in state.get(tree))
        return [Kept(path, labels)] if any(each is not None for each in labels) else []
    if isinstance(tree, Mapping):
        return [found for key, part in tree.items() for found in tensors_in(part, state, (*path, key))]
    if isinstance(tree, list | tuple):
        return [found for k, part in enumerate(tree) for found in tensors_in(part, state, (*path, k))]
    return []
