"""Channel spaces: which tensors of a network have their channels in one order.

A *channel space* is a set of channels that have one order throughout the network. Spaces are found by following
the tensors of a ``torch.fx`` graph and joining spaces where an operation needs equal orders:

* activations, pooling, dropout, norms and depthwise convolutions hand the order through;
* additions and products join the spaces of their operands;
* concatenations put layouts behind each other, flattening repeats each channel once per pixel;
* anything that is not known to treat channels alike is a barrier, and *pins* the spaces that touch it to the
  order they have; so do the network's input and answer.

A network that cannot be traced has all its spaces pinned, layer by layer.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from methods.contract.inputs import Inputs, arguments, call
from methods.network.layers import ZeroPadShortcut
from methods.pivoting.block_matrices import Axis, Part
from spaces.errors import kind_and_line

Layout = tuple[Part, ...]
"""What the channels of a tensor are: stretches that follow spaces (``Part.slot`` is the number of the space)."""

_PASSING = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardtanh, nn.Hardsigmoid, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign,
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d,
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.ZeroPad2d, nn.ReflectionPad2d,
)  # fmt: skip
"""Modules that treat every channel alike."""

_FOLLOWING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.PReLU, nn.LayerNorm)
"""Modules with vectors of one number per channel."""

_PASSING_CALLS: frozenset[Any] = frozenset({
    torch.relu, torch.tanh, torch.sigmoid, torch.abs, torch.neg, torch.sqrt, torch.exp, torch.clamp,
    F.relu, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish, F.hardswish, F.hardtanh,
    F.hardsigmoid, F.tanh, F.sigmoid, F.softplus, F.dropout, F.dropout2d, F.alpha_dropout,
    F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.interpolate, operator.neg,
    "relu", "relu_", "tanh", "sigmoid", "abs", "neg", "clamp", "contiguous", "clone", "float", "detach",
})  # fmt: skip
_ELEMENTWISE: frozenset[Any] = frozenset({
    operator.add, operator.sub, operator.mul, operator.truediv, operator.iadd, operator.isub, operator.imul,
    torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.minimum,
    "add", "add_", "sub", "sub_", "mul", "mul_", "div",
})  # fmt: skip
_FLATTENING: frozenset[Any] = frozenset({torch.flatten, torch.reshape, "flatten", "view", "reshape"})
_AVERAGING: frozenset[Any] = frozenset({torch.mean, torch.sum, torch.amax, "mean", "sum", "amax"})
_JOINING: frozenset[Any] = frozenset({torch.cat, torch.concat})
_SIZES: frozenset[Any] = frozenset({"size", "dim", "numel", getattr})

# What torch.fx raises at networks it cannot follow, and the networks themselves when run on its proxies.
_UNTRACEABLE = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
    ArithmeticError,
    NameError,
)


@dataclass(frozen=True)
class ChannelSpaces:
    """The channel spaces of a network.

    Attributes:
        sizes: Channels of each space.
        pinned: Spaces whose order cannot be changed.
        reads: By convolution or linear layer (of one group), what its input channels are.
        makes: The same of its output channels.
        follows: By norm, depthwise convolution and the like, what its channels are.
        first: Layers that read the network's input.
        answers: Layers that make the network's answer.
        order: Names of the layers in order of execution.
        untraceable: Why the network could not be traced; empty if it could.
    """

    sizes: tuple[int, ...]
    pinned: frozenset[int]
    reads: Mapping[str, Layout]
    makes: Mapping[str, Layout]
    follows: Mapping[str, Layout]
    first: frozenset[str]
    answers: frozenset[str]
    order: tuple[str, ...]
    untraceable: str = ""


def channel_spaces(model: nn.Module, example: Inputs) -> ChannelSpaces:
    """Find out which channels of a network share an order.

    Args:
        model: The network; not changed.
        example: One input, ``[1, ...]``.

    Returns:
        The spaces; where the network cannot be traced, ``untraceable`` says why and every layer has pinned
        spaces of its own.
    """
    still = copy.deepcopy(model).eval()
    try:
        return _Walk(still, _trace(still)).result(example)
    except _UNTRACEABLE as error:
        return _pin_every_layer(still, example, kind_and_line(error))


class _Tracer(fx.Tracer):
    """Does not look into layers of ours."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, ZeroPadShortcut) or super().is_leaf_module(m, module_qualified_name)


def _trace(model: nn.Module) -> fx.Graph:
    """Trace a network in eval mode, and make sure that it does the same operations while training."""
    graph = _Tracer().trace(model)
    training = _Tracer().trace(copy.deepcopy(model).train())
    if [(n.op, n.target) for n in graph.nodes] != [(n.op, n.target) for n in training.nodes]:
        raise ValueError("the network does other operations while training")
    return graph


class _Shapes(fx.Interpreter):
    """Runs a graph and notes what each node gives."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(fx.GraphModule(model, graph))
        self.results: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.results[n.name] = tuple(result.shape) if isinstance(result, Tensor) else None
        return result


@dataclass(frozen=True)
class _Value:
    """The channels of a tensor and the dimension they lie along."""

    layout: Layout
    dim: int


class _Walk:
    """One walk through a graph, in order of execution."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self.model, self.graph = model, graph
        self.parent: list[int] = []
        self.sizes: list[int] = []
        self.pinned: set[int] = set()
        self.values: dict[str, _Value | None] = {}
        self.reads: dict[str, Layout] = {}
        self.makes: dict[str, Layout] = {}
        self.follows: dict[str, Layout] = {}
        self.first: set[str] = set()
        self.inputs: set[str] = set()

    def result(self, example: Inputs) -> ChannelSpaces:
        """Walk, then number the joined spaces again."""
        shapes = _Shapes(self.model, self.graph)
        with torch.no_grad():
            names = [str(node.target) for node in self.graph.nodes if node.op == "placeholder"]
            shapes.run(*arguments(example, names))
        self.shapes = shapes.results
        answer: list[Part] = []
        for node in self.graph.nodes:
            if node.op == "output":
                answer += [part for value in self._operands(node) for part in value.layout]
                self._pin(node)
            elif node.op == "placeholder":
                self.inputs.add(node.name)
            elif self.shapes[node.name] is not None:
                self.values[node.name] = self._visit(node)
            elif node.target not in _SIZES:
                self._pin(node)
        self._pin_shared_tensors()
        return self._number_spaces(answer)

    def _number_spaces(self, answer: Iterable[Part]) -> ChannelSpaces:
        roots = sorted({self._find(space) for space in range(len(self.parent))})
        number = {root: index for index, root in enumerate(roots)}

        def rename_layouts(layouts: Mapping[str, Layout]) -> dict[str, Layout]:
            return {
                name: tuple(Part(number[self._find(p.slot)], p.channels, p.repeat) for p in layout)
                for name, layout in layouts.items()
            }

        makes, answered = rename_layouts(self.makes), {number[self._find(part.slot)] for part in answer}
        return ChannelSpaces(
            sizes=tuple(self.sizes[root] for root in roots),
            pinned=frozenset(number[self._find(space)] for space in self.pinned),
            reads=rename_layouts(self.reads),
            makes=makes,
            follows=rename_layouts(self.follows),
            first=frozenset(self.first),
            answers=frozenset(name for name, layout in makes.items() if answered & {p.slot for p in layout}),
            order=tuple(makes),
        )

    # --- spaces ---

    def _make_layout(self, channels: int, pinned: bool = False) -> Layout:
        self.parent.append(len(self.parent))
        self.sizes.append(channels)
        if pinned:
            self.pinned.add(len(self.parent) - 1)
        return (Part(len(self.parent) - 1, channels),)

    def _find(self, space: int) -> int:
        while self.parent[space] != space:
            space = self.parent[space]
        return space

    def _join(self, one: Layout, other: Layout) -> None:
        """Give two layouts the same orders; if their stretches differ, keep both as they are."""
        if [(p.channels, p.repeat) for p in one] == [(p.channels, p.repeat) for p in other]:
            for mine, theirs in zip(one, other, strict=True):
                low, high = sorted((self._find(mine.slot), self._find(theirs.slot)))
                self.parent[high] = low
        else:
            self.pinned.update(part.slot for part in (*one, *other))

    def _operands(self, node: fx.Node) -> list[_Value]:
        """What is known of the tensors that a node uses."""
        return [value for used in node.all_input_nodes if (value := self.values.get(used.name)) is not None]

    def _pin(self, node: fx.Node) -> None:
        for value in self._operands(node):
            self.pinned.update(part.slot for part in value.layout)

    def _pin_shared_tensors(self) -> None:
        """A tensor of two modules cannot follow two orders."""
        uses = Counter(id(p) for _, p in self.model.named_parameters(remove_duplicate=False))
        for name, module in self.model.named_modules():
            if any(uses[id(p)] > 1 for p in module.parameters(recurse=False)):
                layouts = (self.reads.get(name, ()), self.makes.get(name, ()), self.follows.get(name, ()))
                self.pinned.update(part.slot for layout in layouts for part in layout)

    # --- operations ---

    def _visit(self, node: fx.Node) -> _Value | None:
        """Find the channels of what a node gives; None, after pinning its operands, if they are not known."""
        if node.op == "call_module":
            return self._module(node, self.model.get_submodule(str(node.target)))
        known = next((act for calls, act in _CALLS if node.target in calls), None)
        found = None if known is None or node.op == "get_attr" else known(self, node)
        if found is None:
            self._pin(node)
        return found

    def _module(self, node: fx.Node, module: nn.Module) -> _Value | None:
        name, value = str(node.target), self._get_only_input(node)
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            return self._layer(node, name, module.in_channels, module.out_channels, 1)
        if isinstance(module, nn.Linear):
            last = len(self.shapes[node.name]) - 1
            return self._layer(node, name, module.in_features, module.out_features, last)
        if isinstance(module, ZeroPadShortcut):
            return self._layer(node, name, module.in_channels, module.out_channels, 1)
        found: _Value | None = None
        if value is not None and isinstance(module, _PASSING):
            found = self._follow_passing(node)
        elif value is not None and isinstance(module, nn.Flatten):
            found = self._follow_flattening(node)
        elif value is not None and _is_per_channel(module, value, self.shapes[node.name]):
            repeat = module.out_channels // module.in_channels if isinstance(module, nn.Conv2d) else 1
            layout = tuple(Part(p.slot, p.channels, p.repeat * repeat) for p in value.layout)
            if name in self.follows:
                self._join(self.follows[name], layout)
            self.follows[name] = layout
            found = _Value(layout, value.dim)
        if found is None:
            self._pin(node)
        return found

    def _layer(self, node: fx.Node, name: str, inputs: int, outputs: int, dim: int) -> _Value:
        """Follow a layer that reads every channel and makes new ones."""
        value = self._get_only_input(node)
        if value is None or value.dim != dim or Axis(value.layout, 1).size != inputs:
            self._pin(node)
            value = _Value(self._make_layout(inputs, pinned=True), dim)
        if any(used.name in self.inputs for used in node.all_input_nodes):
            self.first.add(name)
        if name in self.reads:  # called before: one set of weights, one order
            self._join(self.reads[name], value.layout)
        else:
            self.reads[name], self.makes[name] = value.layout, self._make_layout(outputs)
        return _Value(self.makes[name], dim)

    def _get_only_input(self, node: fx.Node) -> _Value | None:
        """The one tensor that a node uses, if its channels are known."""
        return self.values.get(node.all_input_nodes[0].name) if len(node.all_input_nodes) == 1 else None

    def _follow_passing(self, node: fx.Node) -> _Value | None:
        value, before = self._get_only_input(node), self.shapes[node.all_input_nodes[0].name]
        same = before is not None and len(before) == len(self.shapes[node.name])
        return value if value is not None and same else None

    def _elementwise(self, node: fx.Node) -> _Value | None:
        """Join operands of the same shape, but for pixels and examples that are broadcast."""
        shape = self.shapes[node.name]
        found: _Value | None = None
        for used in node.all_input_nodes:
            theirs, value = self.shapes[used.name], self.values.get(used.name)
            if theirs is None or prod(theirs) == 1:
                continue  # a number
            if value is None or len(theirs) != len(shape) or theirs[value.dim] != shape[value.dim]:
                return None
            if found is not None:
                if found.dim != value.dim:
                    return None
                self._join(found.layout, value.layout)
            found = found or value
        return found

    def _follow_joining(self, node: fx.Node) -> _Value | None:
        """Put layouts behind each other (channels), or join them (any other dimension)."""
        tensors = node.args[0] if node.args else node.kwargs.get("tensors")
        along = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        if not isinstance(tensors, list | tuple) or not isinstance(along, int):
            return None
        values = [self.values.get(used.name) for used in tensors if isinstance(used, fx.Node)]
        known = [value for value in values if value is not None]
        if len(known) < len(tensors) or len({value.dim for value in known}) != 1:
            return None
        dim = known[0].dim
        if along % len(self.shapes[node.name]) == dim:
            return _Value(tuple(part for value in known for part in value.layout), dim)
        for value in known[1:]:
            self._join(known[0].layout, value.layout)
        return known[0]

    def _follow_flattening(self, node: fx.Node) -> _Value | None:
        value, after = (
            self._get_only_input(node) if len(node.all_input_nodes) == 1 else self._find_reshaped(node),
            self.shapes[node.name],
        )
        if value is None:
            return None
        before = self.shapes[node.all_input_nodes[0].name]
        if after == before:
            return value
        if value.dim != 1 or after != (before[0], prod(before[1:])):
            return None
        pixels = prod(before[2:])
        return _Value(tuple(Part(p.slot, p.channels, p.repeat * pixels) for p in value.layout), 1)

    def _find_reshaped(self, node: fx.Node) -> _Value | None:
        """The tensor of a reshape whose other arguments are sizes."""
        tensors = [used for used in node.all_input_nodes if self.shapes[used.name] is not None]
        return self.values.get(tensors[0].name) if tensors == node.all_input_nodes[:1] else None

    def _averaging(self, node: fx.Node) -> _Value | None:
        """Hand the channels through if only dimensions behind them are reduced."""
        value = self._get_only_input(node)
        before = self.shapes[node.all_input_nodes[0].name]
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        if value is None or dims is None:
            return None
        numbers = dims if isinstance(dims, list | tuple) else [dims]
        return value if all(isinstance(d, int) and d % len(before) > value.dim for d in numbers) else None


_CALLS: tuple[tuple[frozenset[Any], Callable[[_Walk, fx.Node], _Value | None]], ...] = (
    (_PASSING_CALLS, _Walk._follow_passing),
    (_ELEMENTWISE, _Walk._elementwise),
    (_JOINING, _Walk._follow_joining),
    (_FLATTENING, _Walk._follow_flattening),
    (_AVERAGING, _Walk._averaging),
)


def _is_per_channel(module: nn.Module, value: _Value, shape: Sequence[int]) -> bool:
    """Whether a module has one number (or one filter) for each channel of its input."""
    size = Axis(value.layout, 1).size
    if isinstance(module, nn.Conv2d):
        return module.groups == module.in_channels == size and value.dim == 1
    if isinstance(module, nn.LayerNorm):
        return tuple(module.normalized_shape) == (size,) and value.dim == len(shape) - 1
    if isinstance(module, nn.PReLU):
        return module.num_parameters in (1, size) and value.dim == 1
    return isinstance(module, _FOLLOWING) and value.dim == 1


def _pin_every_layer(model: nn.Module, example: Inputs, reason: str) -> ChannelSpaces:
    """Give every layer pinned spaces of its own, in the order in which a plain run calls them."""
    called: list[str] = []
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, *_: Any) -> None:
        if names[module] not in called:
            called.append(names[module])

    layers = [m for m in names if (isinstance(m, nn.Conv2d) and m.groups == 1) or isinstance(m, nn.Linear)]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    sizes: list[int] = []
    reads: dict[str, Layout] = {}
    makes: dict[str, Layout] = {}
    for name in called:
        weight = model.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        outputs, inputs = weight.shape[:2]
        for side, channels in ((reads, inputs), (makes, outputs)):
            side[name] = (Part(len(sizes), int(channels)),)
            sizes.append(int(channels))
    return ChannelSpaces(
        sizes=tuple(sizes),
        pinned=frozenset(range(len(sizes))),
        reads=reads,
        makes=makes,
        follows={},
        first=frozenset(called[:1]),
        answers=frozenset(called[-1:]),
        order=tuple(called),
        untraceable=reason,
    )
