"""Labels of channels on their way through the passes of a network, and what the rules of operations share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from methods.network.labels import FREE, Classes, Dim, UnionFind
from methods.network.tape import Op, Value


@dataclass(frozen=True)
class Term:
    """Multiply–accumulates of one operation.

    Attributes:
        module: Name of the module that executes it.
        coefficient: What does not change with any width.
        factors: Labels of the dimensions whose sizes are multiplied.
        per_example: Whether every example takes its own; they are those of all examples of the pass then.
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
        positions: Parts of splits that are positions of an image, and carry no classes.
        grows: Numbers of operations that do not look at the input and yet are made once for every example.
        tensors: Labels of parameters and buffers by name.
        dims: Labels of the tensors of the passes.
        reads: Dimensions of parameters along which channels are consumed.
        tables: Buffers whose numbers are positions, with the classes of the positions they count.
        couplings: Operations that sum over channels without weights.
        terms: Multiply–accumulates.
        widths: Channels of convolutions and linear layers.
        seen_heads: What was learnt about splits in this pass.
        seen_positions: What was learnt about positions of images in it.
        terms_in_first: How many terms belong to the first pass.
        group_labels: Class of each group of an operation that loses whole groups.
    """

    names: dict[int, str]
    modules: dict[str, nn.Module]
    classes: UnionFind = field(default_factory=UnionFind)
    heads: dict[tuple[int, int], int] = field(default_factory=dict)
    positions: frozenset[tuple[int, int, int]] = frozenset()
    grows: frozenset[int] = frozenset()
    tensors: dict[str, list[Dim]] = field(default_factory=dict)
    dims: dict[Value, list[Dim]] = field(default_factory=dict)
    reads: set[tuple[str, int]] = field(default_factory=set)
    tables: list[tuple[str, Classes]] = field(default_factory=list)
    couplings: list[Coupling] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    widths: list[Widths] = field(default_factory=list)
    seen_heads: dict[tuple[int, int], int] = field(default_factory=dict)
    seen_positions: set[tuple[int, int, int]] = field(default_factory=set)
    group_labels: dict[Op, Classes] = field(default_factory=dict)
    terms_in_first: int = 0
    _op: Op | None = None
    _number: int = 0
    _splits: int = 0

    def begin(self, op: Op) -> None:
        """Go on to the next operation.

        Args:
            op: The operation.
        """
        self._op, self._splits = op, 0
        self._number += 1

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
                    Dim(self.classes.make_classes(size) if size > 1 else None, sources=frozenset({(value.tensor, dim)}))
                    for dim, size in enumerate(value.shape)
                ]
            return self.tensors[value.tensor]
        return self.dims.setdefault(value, [FREE] * len(value.shape))

    def explain(self, said: str) -> str:
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
            self.classes.pin(dim.labels, self.explain(said))
        return dim

    def unite(self, dims: Sequence[Dim], said: str = "puts it side by side with something of a fixed size") -> Dim:
        """Unite dimensions of the same size."""
        every = [dim.labels for dim in dims]
        if any(each is not None for each in every):
            labels = self.classes.unite(every, self.explain(said))
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
        self.unite([left, right], "reads channels of a fixed number, such as the network's input")
        self.reads |= left.sources | right.sources

    def couple(self, dims: Sequence[Dim]) -> None:
        """Note a sum over channels without weights."""
        assert self._op is not None
        for dim in dims:
            live = self.classes.live(dim.labels)
            if live is not None:
                self.couplings.append(Coupling(self._op, live))

    def label_new(self, shape: Sequence[int]) -> list[Dim]:
        """Label a tensor of equal numbers, whose size may be anything."""
        return [Dim(self.classes.make_classes(size, solid=False)) if size > 1 else FREE for size in shape]

    def term(self, coefficient: int, dims: Sequence[tuple[Dim, int]]) -> None:
        """Note multiply–accumulates: a coefficient times the sizes of dimensions."""
        assert self._op is not None
        factors = []
        for dim, size in dims:
            if dim.labels is None:
                coefficient *= size
            else:
                factors.append(dim.labels)
        per_example = reads_input(self._op) or self._number - 1 in self.grows
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
            live.sort(key=lambda each: (not self.classes.has_solid(each[1]), -len(np.unique(each[1]))))
            for _, labels in live[1:]:
                self.classes.pin(labels, self.explain("merges two dimensions of channels into one"))
        if not found:
            plain = Dim(None, batch, parts if len(wide) <= 1 else frozenset(), sources)
            return [self._tag(plain, k, wide) for k in range(len(out))]
        live = live or found  # what is pinned goes on, so that the reason does
        axis, labels = live[0]
        view = [1] * len(shape)
        view[axis] = shape[axis]
        flat = np.broadcast_to(labels.reshape(view), tuple(shape)).reshape(tuple(out))
        carrier = wide[0] if len(wide) == 1 else self._carrier(flat, wide)
        rows = np.moveaxis(flat, carrier, 0).reshape(out[carrier], -1)
        carried = self.classes.tie(rows, self.explain("splits the channels")).copy()
        result = [self._tag(Dim(None, batch, parts, sources), k, wide) for k in range(len(out))]
        mixed = batch and len(np.unique(carried)) < len(carried)  # examples are counted along with channels
        result[carrier] = replace(result[carrier], labels=carried, batch=mixed)
        return result

    def _tag(self, dim: Dim, k: int, wide: Sequence[int]) -> Dim:
        """Remember which part of a split a dimension is."""
        if len(wide) <= 1:
            return dim if k in wide else replace(dim, parts=frozenset(), sources=frozenset())
        return replace(dim, parts=frozenset({(self._number, self._splits, k)}))

    def _carrier(self, flat: NDArray[np.int64], wide: Sequence[int]) -> int:
        """Choose the part of a split that carries the classes: the one that unites the fewest."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        counts = {}
        # What is known to be an image's rows and columns carries none, as long as something else can.
        wide = [k for k in wide if (self._number, self._splits, k) not in self.positions] or wide
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

    def pin_position(self, dim: Dim) -> None:
        """Pin a dimension that an operation takes for positions of an image, and remember which split made it."""
        self.seen_positions |= dim.parts
        self.pin_dim(dim, "takes channels for positions of an image")

    def note_heads(self, dims: Sequence[Dim]) -> None:
        """Learn that dimensions are multiplied one by one, as attention does with its heads."""
        for dim in dims:
            for number, split, part in dim.parts:
                self.seen_heads[number, split] = part


Rule = Callable[[Propagation, Op], None]
"""What an operation does to labels."""


def read_arguments(op: Op) -> dict[str, Any]:
    """Name the arguments of an operation as its schema does.

    Args:
        op: The operation.

    Returns:
        Its arguments by name, those it was not given with their defaults.
    """
    schema = op.target._schema.arguments
    found = {each.name: each.default_value for each in schema if each.has_default_value()}
    found |= {each.name: value for each, value in zip(schema, op.args, strict=False)}
    return found | op.kwargs


def list_tensors(op: Op) -> list[Value]:
    """List the tensors that an operation reads.

    Args:
        op: The operation.

    Returns:
        Those among its arguments, and in lists among them, in order.
    """
    found = []
    for part in (*op.args, *op.kwargs.values()):
        if isinstance(part, Value):
            found.append(part)
        elif isinstance(part, list | tuple):
            found += [each for each in part if isinstance(each, Value)]
    return found


def carry_over(state: Propagation, op: Op, dims: Sequence[Dim]) -> None:
    """Give what an operation makes the same labels, where it has as many dimensions.

    Args:
        state: Labels.
        op: The operation.
        dims: Labels of each dimension.
    """
    for value in op.outputs:
        state.dims[value] = list(dims) if len(value.shape) == len(dims) else [FREE] * len(value.shape)


def pin_all(state: Propagation, op: Op) -> None:
    """Pin all that an operation reads: it is not understood.

    Args:
        state: Labels.
        op: The operation.
    """
    for value in list_tensors(op):
        for dim in state.get(value):
            state.pin_dim(dim, "is not understood")
    for value in op.outputs:
        state.dims[value] = [FREE] * len(value.shape)


def reads_input(op: Op) -> bool:
    """Tell whether what an operation makes depends on the network's input.

    Args:
        op: The operation.

    Returns:
        Whether it does.
    """
    return any(value.from_input for value in op.outputs)


def is_raw(value: Value) -> bool:
    """Tell whether a tensor is a parameter as it is: what reads it can be made blind by zeros.

    Args:
        value: The tensor.

    Returns:
        Whether it is one, or a view of one.
    """
    return value.root.tensor is not None


def use_for(rule: Rule, *names: str) -> dict[str, Rule]:
    """Use one rule for several operations.

    Args:
        rule: The rule.
        names: Names of operations of ATen.

    Returns:
        The rule by name.
    """
    return dict.fromkeys(names, rule)
