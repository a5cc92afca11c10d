"""How each operation of ATen moves, joins and unites the classes of channels.

One function per family of operations, by name. An operation that is not here pins every class that it reads, with its
name as the reason: what is not understood is never cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn

from methods.network.labels import FREE, Classes, Dim, UnionFind
from methods.network.layers import ZeroPadShortcut
from methods.network.tape import Call, Op, Tape, Value, sequence


@dataclass(frozen=True)
class Term:
    """Multiply–accumulates of one operation.

    Attributes:
        module: Name of the module that executes it.
        coefficient: What does not change with any width.
        factors: Labels of the dimensions whose sizes are multiplied.
        per_example: Whether every example takes them anew; they are those of all examples of the pass then.
    """

    module: str
    coefficient: int
    factors: tuple[Classes, ...]
    per_example: bool = True


@dataclass(frozen=True)
class Coupling:
    """An operation that sums over channels without weights: what is left changes when a channel goes.

    Attributes:
        op: The operation.
        labels: The channels it sums over.
    """

    op: Op
    labels: Classes


@dataclass(frozen=True)
class Widths:
    """Channels that one run of a module takes and gives.

    Attributes:
        module: Name of the module.
        inputs: Class of each input channel.
        outputs: Class of each output channel.
        groups: Class of each of its groups, where whole groups are removed.
    """

    module: str
    inputs: Classes | None
    outputs: Classes | None
    groups: Classes | None = None


@dataclass(eq=False)
class Propagation:
    """Labels of all tensors of one or more passes of the same network.

    Attributes:
        names: Names of parameters and buffers by ``id``.
        modules: The network's modules by name.
        classes: The classes.
        heads: Which part of a split of a dimension carries its classes: those that attention multiplies one by one.
        tensors: Labels of parameters and buffers by name.
        dims: Labels of the tensors of the passes.
        reads: Dimensions of parameters along which channels are consumed.
        tables: Buffers whose numbers are positions, with the classes of the positions they count.
        couplings: Operations that sum over channels without weights.
        terms: Multiply–accumulates.
        widths: Channels of convolutions and linear layers.
        seen_heads: What was learnt about splits in this pass.
        terms_in_first: How many terms belong to the first pass.
        group_labels: Class of each group of an operation that loses whole groups.
    """

    names: dict[int, str]
    modules: dict[str, nn.Module]
    classes: UnionFind = field(default_factory=UnionFind)
    heads: dict[tuple[int, int], int] = field(default_factory=dict)
    tensors: dict[str, list[Dim]] = field(default_factory=dict)
    dims: dict[Value, list[Dim]] = field(default_factory=dict)
    reads: set[tuple[str, int]] = field(default_factory=set)
    tables: list[tuple[str, Classes]] = field(default_factory=list)
    couplings: list[Coupling] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    widths: list[Widths] = field(default_factory=list)
    seen_heads: dict[tuple[int, int], int] = field(default_factory=dict)
    group_labels: dict[Op, Classes] = field(default_factory=dict)
    terms_in_first: int = 0
    _op: Op | None = None
    _number: int = 0
    _splits: int = 0

    def run(self, tape: Tape) -> None:
        """Follow one pass.

        Args:
            tape: What it did.
        """
        for value in tape.inputs:
            self.dims[value] = [replace(FREE, batch=dim == 0) for dim in range(len(value.shape))]
        for op in tape.ops:
            self._op, self._splits = op, 0
            self._number += 1
            rule = _RULES.get(op.name) or _RULES.get(op.name.removesuffix("_"))
            if rule is None and _is_pointwise(op):
                rule = _elementwise
            (rule or _unknown)(self, op)
            for value in op.outputs:
                found = self.dims.setdefault(value, [FREE] * len(value.shape))
                if value.from_input:
                    self.dims[value] = [dim if not dim.sources else replace(dim, sources=frozenset()) for dim in found]
        for value in tape.outputs:
            self.pin(value, "it is the network's output")
        self.terms_in_first = self.terms_in_first or len(self.terms)

    def layer(self, weight: Value) -> str:
        """Name the layer that multiplies with a weight: the module that runs, or the one whose parameter it is."""
        assert self._op is not None
        kinds = (nn.modules.conv._ConvNd, nn.Linear, nn.MultiheadAttention, nn.RNNBase)
        name = (weight.root.tensor or "").rpartition(".")[0]
        if isinstance(self.modules.get(self._op.module), kinds) or not isinstance(self.modules.get(name), kinds):
            return self._op.module
        return name

    # --- what rules need ---------------------------------------------------------------------------------------

    def get(self, value: Value) -> list[Dim]:
        """Return the labels of a tensor, new ones for a parameter or buffer that is met for the first time."""
        if value.tensor is not None:
            if value.tensor not in self.tensors:
                self.tensors[value.tensor] = [
                    Dim(self.classes.fresh(size) if size > 1 else None, sources=frozenset({(value.tensor, dim)}))
                    for dim, size in enumerate(value.shape)
                ]
            return self.tensors[value.tensor]
        return self.dims.setdefault(value, [FREE] * len(value.shape))

    def why(self, said: str) -> str:
        """Give a reason that names the module and the operation."""
        op = self._op
        assert op is not None
        place = op.module or "the network itself"
        call = op.name if op.call is None or op.name in op.call.function else f"{op.call.function} ({op.name})"
        if op.name == "leaf":
            call = type(op.target).__name__
        return f"{call} in {place} {said}"

    def pin(self, value: Value, said: str) -> None:
        """Pin everything in a tensor."""
        for dim in self.get(value):
            if dim.labels is not None:
                self.classes.pin(dim.labels, said)

    def pin_dim(self, dim: Dim, said: str) -> Dim:
        """Pin one dimension."""
        if self.classes.live(dim.labels) is not None:
            self.classes.pin(dim.labels, self.why(said))
        return dim

    def meet(self, dims: Sequence[Dim], said: str = "puts it side by side with something of a fixed size") -> Dim:
        """Unite dimensions of the same size."""
        every = [dim.labels for dim in dims]
        if any(each is not None for each in every):
            labels = self.classes.meet(every, self.why(said))
        else:
            labels = None
        return Dim(
            labels,
            any(dim.batch for dim in dims),
            frozenset().union(*(dim.parts for dim in dims)),
            frozenset().union(*(dim.sources for dim in dims)),
        )

    def contract(self, left: Dim, right: Dim) -> None:
        """Unite two dimensions that are multiplied and summed over."""
        if left.labels is None and right.labels is None:
            return
        # A size that does not follow is told apart: the usual one is what the network is given.
        self.meet([left, right], "reads channels of a fixed number, such as the network's input")
        self.reads |= left.sources | right.sources

    def couple(self, dims: Sequence[Dim]) -> None:
        """Note a sum over channels without weights."""
        assert self._op is not None
        for dim in dims:
            live = self.classes.live(dim.labels)
            if live is not None:
                self.couplings.append(Coupling(self._op, live))

    def fresh(self, shape: Sequence[int]) -> list[Dim]:
        """Label a tensor of equal numbers, whose size may be anything."""
        return [Dim(self.classes.fresh(size, solid=False)) if size > 1 else FREE for size in shape]

    def term(self, coefficient: int, dims: Sequence[tuple[Dim, int]]) -> None:
        """Note multiply–accumulates: a coefficient times the sizes of dimensions."""
        assert self._op is not None
        factors = []
        for dim, size in dims:
            if dim.labels is None:
                coefficient *= size
            else:
                factors.append(dim.labels)
        per_example = any(value.from_input for value in self._op.outputs)
        self.terms.append(Term(self._op.module, coefficient, tuple(factors), per_example))

    def reshape(self, dims: Sequence[Dim], shape: Sequence[int], out: Sequence[int]) -> list[Dim]:
        """Carry labels through a change of shape in the order of memory.

        Args:
            dims: Labels before.
            shape: Shape before.
            out: Shape after.

        Returns:
            Labels after.
        """
        if math.prod(shape) == 0:
            return [FREE] * len(out)
        found: list[Dim] = []
        i = j = 0
        while i < len(shape) or j < len(out):
            start, begin = i, j
            a = b = 1
            if i < len(shape):
                a, i = shape[i], i + 1
            if j < len(out):
                b, j = out[j], j + 1
            while a != b:
                if a < b:
                    a, i = a * shape[i], i + 1
                else:
                    b, j = b * out[j], j + 1
            found += self._block(dims[start:i], shape[start:i], out[begin:j])
            self._splits += 1
        return found

    def _block(self, dims: Sequence[Dim], shape: Sequence[int], out: Sequence[int]) -> list[Dim]:
        """Carry labels through one block of dimensions that becomes another of as many elements."""
        batch = any(dim.batch for dim in dims)
        parts = frozenset().union(*(dim.parts for dim in dims)) if dims else frozenset()
        sources = frozenset().union(*(dim.sources for dim in dims)) if dims else frozenset()
        wide = [k for k, size in enumerate(out) if size > 1]
        found = [(k, self.classes.find(dim.labels)) for k, dim in enumerate(dims) if dim.labels is not None]
        live = [(k, labels) for k, labels in found if self.classes.live(labels) is not None]
        if len(live) > 1:  # an element would belong to two classes at once: the larger number of classes stays
            live.sort(key=lambda each: (not self.classes.solid(each[1]), -len(np.unique(each[1]))))
            for _, labels in live[1:]:
                self.classes.pin(labels, self.why("merges two dimensions of channels into one"))
        if not found:
            plain = Dim(None, batch, parts if len(wide) <= 1 else frozenset(), sources)
            return [self._tagged(plain, k, wide) for k in range(len(out))]
        live = live or found  # what is pinned goes on, so that the reason does
        axis, labels = live[0]
        view = [1] * len(shape)
        view[axis] = shape[axis]
        flat = np.broadcast_to(labels.reshape(view), tuple(shape)).reshape(tuple(out))
        carrier = wide[0] if len(wide) == 1 else self._carrier(flat, wide)
        rows = np.moveaxis(flat, carrier, 0).reshape(out[carrier], -1)
        carried = self.classes.tie(rows, self.why("splits the channels")).copy()
        result = [self._tagged(Dim(None, batch, parts, sources), k, wide) for k in range(len(out))]
        mixed = batch and len(np.unique(carried)) < len(carried)  # examples are counted along with channels
        result[carrier] = replace(result[carrier], labels=carried, batch=mixed)
        return result

    def _tagged(self, dim: Dim, k: int, wide: Sequence[int]) -> Dim:
        """Remember which part of a split a dimension is."""
        if len(wide) <= 1:
            return dim if k in wide else replace(dim, parts=frozenset(), sources=frozenset())
        return replace(dim, parts=frozenset({(self._number, self._splits, k)}))

    def _carrier(self, flat: NDArray[np.int64], wide: Sequence[int]) -> int:
        """Choose the part of a split that carries the classes: the one that unites the fewest."""
        counts = {}
        for k in wide:
            rows = np.moveaxis(flat, k, 0).reshape(flat.shape[k], -1)
            names, columns = np.unique(rows, return_inverse=True)
            pairs = (np.repeat(np.arange(len(rows)), rows.shape[1]), columns.reshape(-1) + len(rows))
            size = len(rows) + len(names)
            graph = coo_matrix((np.ones(len(pairs[0]), dtype=np.int8), pairs), shape=(size, size))
            count: Any = connected_components(graph, directed=False, return_labels=False)
            counts[k] = int(count)
        best = max(wide, key=lambda k: counts[k])
        if counts[best] == len(np.unique(flat)):
            return best  # nothing is united that was apart
        return self.heads.get((self._number, self._splits), best)

    def saw_heads(self, dims: Sequence[Dim]) -> None:
        """Learn that dimensions are multiplied one by one, as attention does with its heads."""
        for dim in dims:
            for number, split, part in dim.parts:
                self.seen_heads[number, split] = part


Rule = Callable[[Propagation, Op], None]


def _arguments(op: Op) -> dict[str, Any]:
    """Name the arguments of an operation as its schema does."""
    schema = op.target._schema.arguments
    found = {each.name: each.default_value for each in schema if each.has_default_value()}
    found |= {each.name: value for each, value in zip(schema, op.args, strict=False)}
    return found | op.kwargs


def _is_pointwise(op: Op) -> bool:
    """Whether torch says that an operation, or its form that is not in place, acts number by number."""
    if isinstance(op.target, nn.Module):
        return False
    plain = getattr(torch.ops.aten, op.name.removesuffix("_"), None)
    forms = [op.target] if plain is None else [op.target, *(getattr(plain, name) for name in plain.overloads())]
    return any(torch.Tag.pointwise in form.tags for form in forms)


def _restride(state: Propagation, op: Op) -> None:
    """Another order in memory of the same tensor; anything else is not understood."""
    source = _tensors(op)[0]
    if all(value.shape == source.shape for value in op.outputs):
        _same(state, op, state.get(source))
    else:
        _unknown(state, op)


def _tensors(op: Op) -> list[Value]:
    found = []
    for part in (*op.args, *op.kwargs.values()):
        if isinstance(part, Value):
            found.append(part)
        elif isinstance(part, list | tuple):
            found += [each for each in part if isinstance(each, Value)]
    return found


def _same(state: Propagation, op: Op, dims: Sequence[Dim]) -> None:
    for value in op.outputs:
        state.dims[value] = list(dims) if len(value.shape) == len(dims) else [FREE] * len(value.shape)


def _unknown(state: Propagation, op: Op) -> None:
    for value in _tensors(op):
        for dim in state.get(value):
            state.pin_dim(dim, "is not understood")
    for value in op.outputs:
        state.dims[value] = [FREE] * len(value.shape)


def _elementwise(state: Propagation, op: Op) -> None:
    read = _tensors(op)
    for value in op.outputs:
        dims = []
        for k, size in enumerate(value.shape):
            meeting = []
            for other in read:
                place = k - len(value.shape) + len(other.shape)
                if place >= 0 and other.shape[place] == size:
                    meeting.append(state.get(other)[place])
            dims.append(state.meet(meeting) if meeting else FREE)
        state.dims[value] = dims


def _view(state: Propagation, op: Op) -> None:
    source = _tensors(op)[0]
    for value in op.outputs:
        state.dims[value] = state.reshape(state.get(source), source.shape, value.shape)


def _permute(state: Propagation, op: Op) -> None:
    source = _tensors(op)[0]
    arguments, n = _arguments(op), len(source.shape)
    order = list(range(n))
    if "dims" in arguments:
        order = [dim % n for dim in arguments["dims"]]
    elif "dim0" in arguments:
        a, b = arguments["dim0"] % n, arguments["dim1"] % n
        order[a], order[b] = order[b], order[a]
    elif n == 2:  # t
        order = [1, 0]
    dims = state.get(source)
    _same(state, op, [dims[k] for k in order])


def _expand(state: Propagation, op: Op) -> None:
    source, out = _tensors(op)[0], op.outputs[0]
    dims, extra = state.get(source), len(out.shape) - len(source.shape)
    state.dims[out] = [
        dims[k - extra] if k >= extra and source.shape[k - extra] == size else state.fresh([size])[0]
        for k, size in enumerate(out.shape)
    ]


def _slice(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    source, step = arguments["self"], arguments.get("step") or 1
    dims, k = list(state.get(source)), arguments["dim"] % len(source.shape)
    size, dim = source.shape[k], dims[k]
    start, stop, _ = slice(arguments["start"], arguments["end"], None).indices(size)
    labels = state.classes.live(dim.labels)
    if labels is not None and step > 1:
        if size % step or start >= step or stop < size:
            state.pin_dim(dim, f"takes every {step}th channel of {size}")
            labels = None
        else:
            state.classes.tie(labels.reshape(-1, step), state.why("takes every so manyth channel"))
    dims[k] = replace(dim, labels=None if labels is None else labels[start:stop:step])
    _same(state, op, dims)


def _select(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    source = arguments["self"]
    dims, k = list(state.get(source)), arguments["dim"] % len(source.shape)
    state.pin_dim(dims.pop(k), "picks single channels")
    _same(state, op, dims)


def _split(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    source = arguments["self"]
    dims, k = list(state.get(source)), arguments["dim"] % len(source.shape)
    dim, size = dims[k], source.shape[k]
    labels = state.classes.live(dim.labels)
    each = arguments.get("split_size")
    if labels is not None and isinstance(each, int) and each < size:
        if size % each:
            state.pin_dim(dim, f"splits {size} channels into parts of {each}")
            labels = None
        else:  # equal parts stay equal
            state.classes.tie(labels.reshape(-1, each).T, state.why("splits the channels into equal parts"))
    start = 0
    for value in op.outputs:
        width = value.shape[k]
        part = replace(dim, labels=None if labels is None else labels[start : start + width])
        state.dims[value] = [*dims[:k], part, *dims[k + 1 :]]
        start += width


def _cat(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    parts = [value for value in arguments["tensors"] if value.shape != (0,)]
    out, n = op.outputs[0], len(op.outputs[0].shape)
    k = arguments["dim"] % n
    result = []
    for place in range(n):
        meeting = [state.get(value)[place] for value in parts]
        if place != k:
            result.append(state.meet(meeting))
            continue
        found = [
            np.zeros(value.shape[k], dtype=np.int64) if dim.labels is None else dim.labels
            for value, dim in zip(parts, meeting, strict=True)
        ]
        labels = np.concatenate(found) if any(dim.labels is not None for dim in meeting) else None
        result.append(Dim(labels, any(dim.batch for dim in meeting)))
    state.dims[out] = result


def _stack(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    parts, n = arguments["tensors"], len(op.outputs[0].shape)
    dims = [state.meet([state.get(value)[place] for value in parts]) for place in range(n - 1)]
    dims.insert(arguments["dim"] % n, FREE)
    _same(state, op, dims)


def _pad(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    source, pads = arguments["self"], list(arguments["pad"])
    dims = list(state.get(source))
    for k in range(len(pads) // 2):
        place = len(dims) - 1 - k
        front, back = pads[2 * k], pads[2 * k + 1]
        labels = dims[place].labels
        if labels is None or front == back == 0:
            continue
        labels = labels[max(0, -front) : len(labels) - max(0, -back)]
        # Channels of a constant can be added in any number.
        around = [state.classes.fresh(max(0, front), False), labels, state.classes.fresh(max(0, back), False)]
        dims[place] = replace(dims[place], labels=np.concatenate(around))
    _same(state, op, dims)


def _spatial(state: Propagation, op: Op) -> None:
    """Pooling and resampling: the last dimensions are positions."""
    source = _tensors(op)[0]
    count = next((int(digit) for digit in "123" if f"{digit}d" in op.name), 2)
    dims = state.get(source)
    kept, positions = dims[: len(dims) - count], dims[len(dims) - count :]
    for dim in positions:
        state.pin_dim(dim, "takes channels for positions of an image")
    _same(state, op, [*kept, *[FREE] * count])


def _flip(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    dims = list(state.get(arguments["self"]))
    for k in arguments["dims"]:
        if (labels := dims[k].labels) is not None:
            dims[k] = dims[k].relabelled(labels[::-1].copy())
    _same(state, op, dims)


def _roll(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    dims, places = list(state.get(arguments["self"])), list(sequence(arguments["dims"]))
    if not places:
        dims = [state.pin_dim(dim, "rolls over all dimensions at once") for dim in dims]
    for shift, k in zip(sequence(arguments["shifts"]), places, strict=False):
        if (labels := dims[k].labels) is not None:
            dims[k] = dims[k].relabelled(np.roll(labels, shift))
    _same(state, op, dims)


def _repeat(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    source, times = arguments["self"], list(arguments["repeats"])
    dims = [FREE] * (len(times) - len(source.shape)) + list(state.get(source))
    result = []
    for dim, count in zip(dims, times, strict=True):
        labels = None if dim.labels is None else np.tile(dim.labels, count)
        result.append(replace(dim, labels=labels, sources=dim.sources if count == 1 else frozenset()))
    _same(state, op, result)


def _index(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    source = arguments["self"]
    indices = list(arguments["indices"] if "indices" in arguments else ())
    if "index" in arguments:  # index_select
        indices = [None] * (arguments["dim"] % len(source.shape)) + [arguments["index"]]
    dims = list(state.get(source))
    used = [k for k, index in enumerate(indices) if index is not None]
    out = op.outputs[0]
    if len(used) == 1 and indices[used[0]].numbers is not None:
        k = used[0]
        table: Value = indices[k]
        numbers, dim = table.numbers, dims[k]
        assert numbers is not None
        labels = state.classes.live(dim.labels)
        own = state.get(table)
        if labels is None:
            for each in own:
                state.pin_dim(each, "reads positions that all stay")
            result = [replace(FREE, batch=each.batch) for each in own] if numbers.dtype != bool else [FREE]
        elif numbers.dtype == bool or numbers.ndim == 0:
            state.pin_dim(dim, "picks single channels")
            result = [FREE] * (len(out.shape) - len(dims) + 1)
        else:
            flat = labels[numbers.reshape(-1)]
            result = state.reshape([Dim(flat)], (numbers.size,), numbers.shape)
            if table.tensor is not None:  # its entries go with what they pick, and count what is left
                result = [state.meet([one, other]) for one, other in zip(result, own, strict=True)]
                state.tables.append((table.tensor, labels))
            elif op.call is None or op.call.function not in {"__getitem__", "index_select"}:
                state.pin_dim(dim, "picks channels by numbers that cannot be counted again")
                result = [FREE] * numbers.ndim
        state.dims[out] = [*dims[:k], *result, *dims[k + 1 :]]
        return
    for k in used:
        state.pin_dim(dims[k], "picks channels by their numbers")
        for dim in state.get(indices[k]):
            state.pin_dim(dim, "picks channels by their numbers")
    rest = [dim for k, dim in enumerate(dims) if k not in used]
    count = len(out.shape) - len(rest)
    front = used[0] if used and used == list(range(used[0], used[-1] + 1)) else 0
    state.dims[out] = [*rest[:front], *[FREE] * count, *rest[front:]]


def _embedding(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    weight, index = arguments["weight"], arguments["indices"]
    rows, columns = state.get(weight)
    state.pin_dim(rows, "looks rows up by their numbers")
    for dim in state.get(index):
        state.pin_dim(dim, "looks rows up by their numbers")
    _same(state, op, [*(replace(FREE, batch=dim.batch) for dim in state.get(index)), columns])


def _glu(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    source = arguments["self"]
    dims, k = list(state.get(source)), arguments.get("dim", -1) % len(source.shape)
    if (labels := dims[k].labels) is not None:
        half = len(labels) // 2
        state.classes.union(labels[:half], labels[half:], state.why("gates one half by the other"))
        dims[k] = dims[k].relabelled(labels[:half])
    _same(state, op, dims)


def _pixel_shuffle(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    source, factor = arguments["self"], arguments["upscale_factor"]
    dims = list(state.get(source))
    if (labels := dims[-3].labels) is not None:
        tied = state.classes.tie(labels.reshape(-1, factor**2), state.why("makes pixels of channels"))
        dims[-3] = dims[-3].relabelled(tied.copy() if len(tied) > 1 else None)
        if len(tied) == 1:
            state.classes.pin(tied, state.why("makes one image of all channels"))
    _same(state, op, [*dims[:-2], FREE, FREE])


def _pixel_unshuffle(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    dims = list(state.get(arguments["self"]))
    if (labels := dims[-3].labels) is not None:
        dims[-3] = dims[-3].relabelled(np.repeat(labels, arguments["downscale_factor"] ** 2))
    _same(state, op, [*dims[:-2], FREE, FREE])


def _channel_shuffle(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    dims, groups = list(state.get(arguments["self"])), arguments["groups"]
    if (labels := dims[1].labels) is not None:
        rows = labels.reshape(groups, -1)
        state.classes.tie(rows.T, state.why("shuffles equal groups of channels"))
        dims[1] = dims[1].relabelled(rows.T.reshape(-1).copy())
    _same(state, op, dims)


def _im2col(state: Propagation, op: Op) -> None:
    source, out = _tensors(op)[0], op.outputs[0]
    dims = state.get(source)
    channels = dims[-3]
    if channels.labels is not None:
        times = out.shape[-2] // source.shape[-3]
        channels = channels.relabelled(np.repeat(channels.labels, times))
    elif source.shape[-3] > 1:
        channels = FREE
    for dim in dims[-2:]:
        state.pin_dim(dim, "takes channels for positions of an image")
    _same(state, op, [*dims[:-3], channels, FREE])


def _col2im(state: Propagation, op: Op) -> None:
    source, out = _tensors(op)[0], op.outputs[0]
    dims = state.get(source)
    channels = dims[-2]
    if channels.labels is not None:
        rows = channels.labels.reshape(out.shape[-3], -1)
        channels = channels.relabelled(state.classes.tie(rows, state.why("folds columns into images")).copy())
    _same(state, op, [*dims[:-2], channels, FREE, FREE])


def _unfold(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    dims = list(state.get(arguments["self"]))
    k = arguments["dimension"] % len(dims)
    state.pin_dim(dims[k], "takes channels for positions")
    dims[k] = FREE
    _same(state, op, [*dims, FREE])


# --- sums with weights ------------------------------------------------------------------------------------------


def _raw(value: Value) -> bool:
    """Whether a tensor is a parameter as it is: what reads it can be made blind by zeros."""
    return value.root.tensor is not None


def _convolution(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    x, weight, bias = arguments["input"], arguments["weight"], arguments["bias"]
    transposed, groups = arguments["transposed"], arguments["groups"]
    spatial = len(weight.shape) - 2
    xs, ws, place = list(state.get(x)), list(state.get(weight)), len(x.shape) - spatial - 1
    for dim in xs[place + 1 :]:
        state.pin_dim(dim, "takes channels for positions of an image")
    for k in range(2, len(ws)):
        ws[k] = state.pin_dim(ws[k], "slides over an image")
    out, channels = op.outputs[0], xs[place]
    width = out.shape[place]
    positions = math.prod((x if transposed else out).shape[place + 1 :]) * math.prod(weight.shape[2:])
    examples = math.prod(x.shape[:place])
    made, taken = (ws[1], ws[0]) if transposed else (ws[0], ws[1])
    group_labels: Classes | None = None
    if groups == 1:
        state.contract(channels, taken)
        produced = made
        if not _raw(weight):
            state.couple([channels])
    else:
        produced, group_labels = _grouped(state, channels, made, taken, x.shape[place], width, groups, transposed)
        state.reads |= set() if group_labels is not None else taken.sources
        if group_labels is not None:
            state.group_labels[op] = group_labels
        if not _raw(weight):
            state.couple([channels])
    ws = list(state.get(weight))
    if bias is not None and width > 1:
        produced = state.meet([produced, state.get(bias)[0]])
    state.term(positions * examples, [(ws[0], weight.shape[0]), (ws[1], weight.shape[1])])
    state.widths.append(Widths(state.layer(weight), channels.labels, produced.labels, group_labels))
    state.dims[out] = [*xs[:place], replace(produced, sources=frozenset()), *[FREE] * spatial]


def _grouped(
    state: Propagation, channels: Dim, made: Dim, taken: Dim, inputs: int, outputs: int, groups: int, transposed: bool
) -> tuple[Dim, Classes | None]:
    """Tie the channels of a grouped convolution so that its groups stay equal, or go as a whole."""
    why = state.why("has groups of channels")
    reads, gives = inputs // groups, outputs // groups
    labels = channels.labels
    if reads == 1 or gives == 1:  # whole groups go: depthwise convolutions and the like
        inner = taken if not transposed else made
        state.pin_dim(inner, "keeps its groups as they are")
        outer = made if not transposed else taken
        rows = outer.labels
        if rows is None:
            state.pin_dim(channels, "has groups of channels")
            return FREE, None
        whole = state.classes.tie(rows.reshape(groups, -1), why).copy()
        if labels is None:
            state.classes.pin(whole, state.why("reads channels of a fixed number, such as the network's input"))
            return (made if not transposed else FREE), None
        state.classes.union(np.repeat(whole, reads), labels, why)
        produced = made if not transposed else Dim(np.repeat(whole, gives))
        return produced, whole
    if labels is None:
        state.pin_dim(taken, "reads channels of a fixed number, such as the network's input")
    else:  # the same positions of every group
        tied = state.classes.tie(labels.reshape(groups, -1).T, why)
        if transposed:
            state.contract(channels, taken)
        elif taken.labels is None:
            state.classes.pin(tied, why)
        else:
            state.classes.union(tied, taken.labels, why)
    if transposed:
        return Dim(None if made.labels is None else np.tile(made.labels, groups)), None
    if made.labels is not None:
        state.classes.tie(made.labels.reshape(groups, -1).T, why)
    return made, None


def _multiply(state: Propagation, op: Op) -> None:
    """Products of matrices and vectors, alone, in batches or added to something."""
    tensors = _tensors(op)
    added = tensors[0] if op.name.removesuffix("_") in {"addmm", "baddbmm", "addmv", "addbmm"} else None
    left, right = tensors[-2:]
    a, b = list(state.get(left)), list(state.get(right))
    state.contract(a[-1], b[-2 if len(b) > 1 else -1])
    batches = []
    if len(a) == 3 and len(b) == 3:
        state.saw_heads([a[0], b[0]])
        batches = [state.meet([a[0], b[0]], "multiplies matrices one by one")]
    if not _raw(left) and not _raw(right):
        state.couple([a[-1]])
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else []
    dims = [*batches, *rows, *columns]
    inner = (a[-1] if a[-1].labels is not None else b[-2 if len(b) > 1 else -1], left.shape[-1])
    sizes = [(dim, size) for dim, size in zip(dims, op.outputs[0].shape, strict=False)]
    if op.name.removesuffix("_") not in {"mv", "addmv", "dot", "vdot"}:  # what the counter of torch counts
        state.term(1, [*sizes, inner])
    if _raw(right) and left.from_input and len(b) == 2 and len(a) == 2:
        state.widths.append(Widths(state.layer(right), a[-1].labels, b[-1].labels))
    if added is not None:
        extra = state.get(added)
        for k, size in enumerate(op.outputs[0].shape):
            place = k - len(dims) + len(extra)
            if place >= 0 and added.shape[place] == size and size > 1:
                dims[k] = state.meet([dims[k], extra[place]])
    _same(state, op, dims)


def _attention(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    q, k, v = arguments["query"], arguments["key"], arguments["value"]
    mask = arguments.get("attn_mask", arguments.get("attn_bias"))
    qs, ks, vs = (list(state.get(each)) for each in (q, k, v))
    heads = []
    for place in range(len(qs) - 2):
        if q.shape[place] == k.shape[place]:
            heads.append(state.meet([qs[place], ks[place], vs[place]], "multiplies matrices one by one"))
            continue
        few = state.meet([ks[place], vs[place]])  # several queries share a key
        times = q.shape[place] // k.shape[place]
        spread = few if few.labels is None else few.relabelled(np.repeat(few.labels, times))
        heads.append(state.meet([qs[place], spread], "shares keys between heads"))
    state.saw_heads([dim for dim in (*qs[:-2], *ks[:-2], *vs[:-2]) if not dim.batch or dim.parts])
    if arguments.get("scale") is None:  # the default looks at the width of a head
        for dim in (qs[-1], ks[-1]):
            state.pin_dim(dim, "scales by the width of a head")
    state.contract(qs[-1], ks[-1])
    state.contract(ks[-2], vs[-2])
    state.couple([qs[-1], ks[-2]])
    if mask is not None:
        for place, dim in enumerate(state.get(mask)):
            back = place - len(mask.shape)
            if mask.shape[place] == 1:
                continue
            if back >= -2:
                state.pin_dim(dim, "masks positions")
            else:
                heads[back + 2] = state.meet([heads[back + 2], dim])
    batch = list(zip(heads, q.shape[:-2], strict=True))
    rows, columns = (qs[-2], q.shape[-2]), (ks[-2], k.shape[-2])
    state.term(1, [*batch, rows, columns, (qs[-1], q.shape[-1])])
    state.term(1, [*batch, rows, columns, (vs[-1], v.shape[-1])])
    for value in op.outputs:
        state.dims[value] = [FREE] * len(value.shape)
    state.dims[op.outputs[0]] = [*heads, qs[-2], vs[-1]]


# --- norms and sums without weights -----------------------------------------------------------------------------


def _batch_norm(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    x = arguments["input"]
    dims = list(state.get(x))
    vectors = [arguments.get(name) for name in ("weight", "bias", "running_mean", "running_var")]
    meeting = [dims[1], *(state.get(each)[0] for each in vectors if each is not None and each.shape[0] > 1)]
    dims[1] = state.meet(meeting)
    for value in op.outputs:
        state.dims[value] = dims if value.shape == x.shape else [FREE] * len(value.shape)


def _layer_norm(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    x = arguments["input"]
    dims = list(state.get(x))
    for k in range(1, len(arguments["normalized_shape"]) + 1):
        affine = [state.get(each)[-k] for each in (arguments.get("weight"), arguments.get("bias")) if each is not None]
        if x.shape[-k] > 1:
            dims[-k] = state.meet([dims[-k], *affine])
    state.couple(dims[-len(arguments["normalized_shape"]) :])
    for value in op.outputs:
        state.dims[value] = dims if value.shape == x.shape else [FREE] * len(value.shape)


def _group_norm(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    x, groups = arguments["input"], arguments["group"]
    dims = list(state.get(x))
    affine = [state.get(each)[0] for each in (arguments.get("weight"), arguments.get("bias")) if each is not None]
    dims[1] = state.meet([dims[1], *affine]) if x.shape[1] > 1 else dims[1]
    labels = dims[1].labels
    if labels is not None and len(labels) > groups:
        state.classes.tie(labels.reshape(groups, -1).T, state.why("normalises groups of channels"))
        state.couple([dims[1]])
    elif labels is not None:
        state.group_labels[op] = labels
    for value in op.outputs:
        state.dims[value] = dims if value.shape == x.shape else [FREE] * len(value.shape)


def _reduce(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    x = _tensors(op)[0]
    dims, n = list(state.get(x)), len(x.shape)
    named = arguments.get("dim")
    gone = set(range(n)) if named is None or named == [] else {k % n for k in sequence(named)}
    state.couple([dims[k] for k in sorted(gone)])
    for k in sorted(gone):
        if state.classes.live(dims[k].labels) is not None:
            state.reads |= dims[k].sources
    for value in op.outputs:
        if len(value.shape) == n:
            state.dims[value] = [FREE if k in gone else dim for k, dim in enumerate(dims)]
        else:
            state.dims[value] = [dim for k, dim in enumerate(dims) if k not in gone]


def _softmax(state: Propagation, op: Op) -> None:
    x = _tensors(op)[0]
    dims = state.get(x)
    state.couple([dims[_arguments(op)["dim"]]])
    _same(state, op, dims)


def _ordered(state: Propagation, op: Op) -> None:
    """What looks at the order of positions along a dimension: running sums, sorting."""
    arguments = _arguments(op)
    x = _tensors(op)[0]
    dims = list(state.get(x))
    k = arguments.get("dim", -1)
    state.pin_dim(dims[k], "looks at the order of the channels")
    dims[k] = FREE
    for value in op.outputs:
        state.dims[value] = dims


def _weight_norm(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    v, g, k = arguments["v"], arguments["g"], arguments["dim"]
    dims = list(state.get(v))
    dims[k] = state.meet([dims[k], state.get(g)[k]]) if v.shape[k] > 1 else dims[k]
    state.couple([dim for place, dim in enumerate(dims) if place != k])
    state.dims[op.outputs[0]] = dims
    for value in op.outputs[1:]:
        state.dims[value] = state.get(g)


def _create(state: Propagation, op: Op) -> None:
    """Tensors of equal numbers or noise, of a given size."""
    for value in op.outputs:
        state.dims[value] = state.fresh(value.shape)


def _plain(state: Propagation, op: Op) -> None:
    for value in op.outputs:
        state.dims.setdefault(value, [FREE] * len(value.shape))


def _in_place(state: Propagation, op: Op) -> None:
    for value in op.outputs:
        state.dims[value] = list(state.get(value))


def _as_complex(state: Propagation, op: Op) -> None:
    dims = list(state.get(_tensors(op)[0]))
    if op.name == "view_as_complex":
        state.pin_dim(dims.pop(), "makes complex numbers of pairs")
    else:
        dims.append(FREE)
    _same(state, op, dims)


def _fourier(state: Propagation, op: Op) -> None:
    arguments = _arguments(op)
    dims = list(state.get(_tensors(op)[0]))
    for k in sequence(arguments["dim"]):
        state.pin_dim(dims[k], "transforms along the channels")
        dims[k] = FREE
    _same(state, op, dims)


# --- modules that are one operation -----------------------------------------------------------------------------


def _leaf(state: Propagation, op: Op) -> None:
    module = op.target
    if isinstance(module, ZeroPadShortcut):
        _shortcut(state, op)
    elif isinstance(module, nn.MultiheadAttention):
        _multihead(state, op)
    else:
        _recurrent(state, op)


def _own(state: Propagation, op: Op, name: str, shape: Sequence[int]) -> list[Dim]:
    own = dict(op.target.named_parameters()) | dict(op.target.named_buffers())
    return state.get(Value(tuple(shape), state.names[id(own[name])]))


def _shortcut(state: Propagation, op: Op) -> None:
    module, x = op.target, _tensors(op)[0]
    dims = list(state.get(x))
    taken = dims[1].labels
    if taken is None:
        state.pin_dim(_own(state, op, "source", module.source.shape)[0], "reads channels of a fixed number")
    made = _own(state, op, "source", module.source.shape)[0]
    state.widths.append(Widths(op.module, taken, made.labels))
    _same(state, op, [dims[0], replace(made, sources=frozenset()), FREE, FREE])


def _multihead(state: Propagation, op: Op) -> None:
    module = op.target
    names = ("query", "key", "value")
    given = dict(zip(names, op.args, strict=False)) | {n: v for n, v in op.kwargs.items() if n in names}
    query, key, value = (given[name] for name in names)
    features = [state.get(each)[-1] for each in (query, key, value)]
    heads, width = module.num_heads, module.embed_dim
    every = np.arange(width).reshape(heads, -1)
    plain = module.bias_k is None and not module.add_zero_attn
    out_weight = _own(state, op, "out_proj.weight", (width, width))
    by_head = state.classes.fresh(heads)
    if not plain:
        state.classes.pin(by_head, state.why("adds keys of its own"))
    spread = np.empty(width, dtype=np.int64)
    spread[every] = by_head[:, None]
    said = state.why("keeps the columns of a head together")

    def join(dim: Dim, labels: Classes) -> None:
        if dim.labels is not None:
            state.classes.union(dim.labels, labels, said)

    if module.in_proj_weight is not None:
        rows, columns = _own(state, op, "in_proj_weight", module.in_proj_weight.shape)
        join(rows, np.tile(spread, 3))
        for feature in features:
            state.contract(feature, columns)
    else:
        for kind, feature in zip("qkv", features, strict=True):
            weight = getattr(module, f"{kind}_proj_weight")
            rows, columns = _own(state, op, f"{kind}_proj_weight", weight.shape)
            join(rows, spread)
            state.contract(feature, columns)
    if module.in_proj_bias is not None:
        join(_own(state, op, "in_proj_bias", module.in_proj_bias.shape)[0], np.tile(spread, 3))
    join(out_weight[1], spread)
    state.reads |= out_weight[1].sources
    made = out_weight[0]
    if module.out_proj.bias is not None and width > 1:
        made = state.meet([made, _own(state, op, "out_proj.bias", (width,))[0]])
    state.widths.append(Widths(op.module, features[0].labels, made.labels, by_head))
    length, source = (-2, -2) if module.batch_first or len(query.shape) == 2 else (0, 0)
    examples = math.prod(query.shape[:-1]) // query.shape[length]
    rows_q, rows_k = query.shape[length], key.shape[source]
    inside, made_dim = (Dim(spread), width), (made, width)
    for feature, each in zip(features, (query, key, value), strict=True):
        state.term(math.prod(each.shape[:-1]), [(feature, each.shape[-1]), inside])
    state.term(2 * examples * rows_q * rows_k, [inside])
    state.term(examples * rows_q, [inside, made_dim])
    state.dims[op.outputs[0]] = [*state.get(query)[:-1], replace(made, sources=frozenset())]
    for other in op.outputs[1:]:  # the weights of attention
        if len(other.shape) == 4:
            state.classes.pin(by_head, state.why("gives the weights of every head"))


def _recurrent(state: Propagation, op: Op) -> None:
    module, x = op.target, _tensors(op)[0]
    dims = list(state.get(x))
    hidden, gates = module.hidden_size, {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    ways = 2 if module.bidirectional else 1
    units = state.classes.fresh(hidden)  # every layer and direction has the same width
    if module.proj_size or len(_tensors(op)) > 1:
        state.classes.pin(units, state.why("projects its state, or is given one"))
    said = state.why("repeats one state in all its gates")
    taken = dims[-1]

    def join(name: str, shape: Sequence[int], dim: int, labels: Classes) -> None:
        own = _own(state, op, name, shape)[dim]
        if own.labels is not None:
            state.classes.union(own.labels, labels, said)
            if dim == 1:
                state.reads |= own.sources

    steps = math.prod(x.shape[:-1])
    for layer in range(module.num_layers):
        for way in range(ways):
            end = f"l{layer}{'_reverse' * way}"
            taking, feeding = getattr(module, f"weight_ih_{end}"), getattr(module, f"weight_hh_{end}")
            join(f"weight_ih_{end}", taking.shape, 0, np.tile(units, gates))
            join(f"weight_hh_{end}", feeding.shape, 0, np.tile(units, gates))
            if not module.proj_size:
                join(f"weight_hh_{end}", feeding.shape, 1, units)
            if module.bias:
                for kind in ("bias_ih", "bias_hh"):
                    join(f"{kind}_{end}", getattr(module, f"{kind}_{end}").shape, 0, np.tile(units, gates))
            if layer == 0:
                state.contract(taken, _own(state, op, f"weight_ih_{end}", taking.shape)[1])
                before: tuple[Dim, int] = (taken, x.shape[-1])
            else:
                if not module.proj_size:
                    join(f"weight_ih_{end}", taking.shape, 1, np.tile(units, ways))
                before = (Dim(np.tile(units, ways)), taking.shape[1])
            state.term(steps, [(Dim(np.tile(units, gates)), gates * hidden), before])
            state.term(steps, [(Dim(np.tile(units, gates)), gates * hidden), (Dim(units), hidden)])
    made = np.tile(units, ways) if not module.proj_size else None
    state.widths.append(Widths(op.module, taken.labels, made, None))
    for number, value in enumerate(op.outputs):
        last = made if number == 0 else (None if module.proj_size else units)
        state.dims[value] = [FREE] * (len(value.shape) - 1) + [Dim(last)]


def _rules(rule: Rule, *names: str) -> dict[str, Rule]:
    return dict.fromkeys(names, rule)


_RULES: dict[str, Rule] = {
    **_rules(
        _elementwise, "clone", "_to_copy", "detach", "alias", "lift_fresh", "lift", "copy", "copy_", "native_dropout",
        "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "bernoulli", "dropout",
        "_prelu_kernel", "masked_fill", "where", "contiguous", "to", "expand_as", "view_as", "type_as", "lerp",
        "nan_to_num", "rsqrt", "hardtanh", "threshold", "rrelu", "hardswish",
        "hardsigmoid", "silu", "mish", "gelu", "elu", "celu", "selu", "leaky_relu", "softplus", "softshrink",
        "hardshrink", "log_sigmoid_forward", "relu6", "tanh", "_reshape_alias_copy", "_conj", "real",
    ),
    **_rules(
        _view, "view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "flatten", "unflatten", "_reshape_alias",
    ),
    **_rules(_restride, "as_strided", "as_strided_"),
    **_rules(_permute, "permute", "transpose", "t", "numpy_T"),
    **_rules(_expand, "expand"),
    **_rules(_slice, "slice"),
    **_rules(_select, "select", "unbind"),
    **_rules(_split, "split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "split_with_sizes_copy"),
    **_rules(_cat, "cat"),
    **_rules(_stack, "stack"),
    **_rules(_pad, "constant_pad_nd"),
    **_rules(
        _spatial, "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d",
        "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
        "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
        "adaptive_max_pool2d", "adaptive_max_pool3d", "upsample_nearest1d", "upsample_nearest2d",
        "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d",
        "upsample_trilinear3d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_nearest_exact1d",
        "_upsample_nearest_exact2d", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
        "replication_pad2d", "replication_pad3d", "mkldnn_max_pool2d",
    ),
    **_rules(_flip, "flip"),
    **_rules(_roll, "roll"),
    **_rules(_repeat, "repeat"),
    **_rules(_index, "index", "index_select"),
    **_rules(_embedding, "embedding"),
    **_rules(_glu, "glu"),
    **_rules(_pixel_shuffle, "pixel_shuffle"),
    **_rules(_pixel_unshuffle, "pixel_unshuffle"),
    **_rules(_channel_shuffle, "channel_shuffle", "native_channel_shuffle"),
    **_rules(_im2col, "im2col"),
    **_rules(_col2im, "col2im"),
    **_rules(_unfold, "unfold"),
    **_rules(_convolution, "convolution"),
    **_rules(_multiply, "mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "vdot"),
    **_rules(
        _attention, "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_attention_math",
    ),
    **_rules(
        _batch_norm, "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
        "cudnn_batch_norm", "miopen_batch_norm", "_batch_norm_with_update", "_batch_norm_no_update", "batch_norm",
    ),
    **_rules(_layer_norm, "native_layer_norm", "_fused_rms_norm"),
    **_rules(_group_norm, "native_group_norm"),
    **_rules(
        _reduce, "mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean",
        "linalg_vector_norm", "norm", "prod", "logsumexp", "argmax", "argmin", "all", "any", "median", "aminmax",
        "count_nonzero", "nansum",
    ),
    **_rules(_softmax, "_softmax", "_log_softmax", "_safe_softmax"),
    **_rules(_ordered, "cumsum", "cumprod", "sort", "topk", "logcumsumexp", "cummax"),
    **_rules(_weight_norm, "_weight_norm_interface"),
    **_rules(
        _create, "zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty", "empty_strided",
        "new_empty_strided",
    ),
    **_rules(
        _plain, "arange", "linspace", "scalar_tensor", "rand", "randn", "randint", "eye", "randperm",
        "_local_scalar_dense", "is_nonzero", "equal", "tril_indices", "triu_indices", "bernoulli_scalar",
    ),
    **_rules(_in_place, "fill_", "zero_", "uniform_", "normal_", "bernoulli_", "random_", "exponential_"),
    **_rules(_as_complex, "view_as_complex", "view_as_real"),
    **_rules(_fourier, "_fft_r2c", "_fft_c2c", "_fft_c2r"),
    "leaf": _leaf,
}  # fmt: skip


def calls_summing(state: Propagation) -> dict[Call, list[Classes]]:
    """Gather the calls that sum over channels without weights.

    Args:
        state: Labels.

    Returns:
        The channels that each sums over.
    """
    found: dict[Call, list[Classes]] = {}
    for coupling in state.couplings:
        if coupling.op.call is not None:
            found.setdefault(coupling.op.call, []).append(coupling.labels)
    return found
