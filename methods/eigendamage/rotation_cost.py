"""What a layer costs after it was rewritten into three parts, exactly and before anything is built.

A layer with ``I`` inputs, ``O`` outputs and a kernel of ``k^2`` offsets in ``g`` groups becomes a 1x1 layer to ``r_a``
input directions, a core of ``r_a x r_g x k^2`` weights and a 1x1 layer from ``r_g`` output directions. Nothing
non-linear lies between them, so neighbours can be multiplied out: four chains compute the same.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd, prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs, call, move, take
from methods.network.chains import SEGMENTS, Segments
from methods.network.cost import Cost

Realise = Literal["three_layer", "cheapest"]


@dataclass(frozen=True)
class Shape:
    """The shape of a convolution or a linear layer, and how often it is applied.

    Attributes:
        inputs: Input channels.
        outputs: Output channels.
        groups: Groups of the convolution.
        kernel: Kernel offsets; 1 for a linear layer.
        pixels_in: Positions of the input for one example, over all calls.
        pixels_out: Positions of the output.
        bias: Whether it has a bias.
        depth: Its place in the network, from 0 (first) to 1 (last).
    """

    inputs: int
    outputs: int
    groups: int
    kernel: int
    pixels_in: int
    pixels_out: int
    bias: bool
    depth: float

    @property
    def columns(self) -> int:
        """Input directions per group."""
        return self.inputs // self.groups

    @property
    def rows(self) -> int:
        """Output directions per group."""
        return self.outputs // self.groups

    def step(self, round_to: int) -> int:
        """Return the smallest step of directions per group that keeps a layer's own number aligned.

        Args:
            round_to: What the number over all groups is to be a multiple of.

        Returns:
            At least 1.
        """
        return round_to // gcd(round_to, self.groups)

    @property
    def dense(self) -> Cost:
        """Cost of the layer as it is."""
        return self._chain((self.kernel * self.inputs * self.rows, self.pixels_out))

    def realisation_costs(self, columns: int, rows: int) -> dict[Segments, Cost]:
        """Return the costs of the four realisations.

        Args:
            columns: Kept input directions per group.
            rows: Kept output directions per group.

        Returns:
            Cost by segments.
        """
        first, last = self.inputs * columns, rows * self.outputs
        # The first part of a pointwise layer carries the stride: no pixel is rotated in vain.
        before = self.pixels_out if self.kernel == 1 else self.pixels_in
        core = self.groups * self.kernel * columns * rows
        return {
            (1, 1, 1): self._chain((first, before), (core, self.pixels_out), (last, self.pixels_out)),
            (2, 1): self._chain((self.kernel * self.inputs * rows, self.pixels_out), (last, self.pixels_out)),
            (1, 2): self._chain((first, before), (self.kernel * columns * self.outputs, self.pixels_out)),
            (3,): self.dense,
        }

    def separable(self, rank: int) -> Cost:
        """Return the cost with a depthwise core.

        Args:
            rank: Channels of the core per group.

        Returns:
            The cost of 1x1, depthwise and 1x1 convolution.
        """
        return self._chain(
            (self.inputs * rank, self.pixels_in),
            (self.groups * self.kernel * rank, self.pixels_out),
            (rank * self.outputs, self.pixels_out),
        )

    def is_reduced_by(self, cost: Cost) -> bool:
        """Tell whether a cost is an improvement (the size guard).

        Args:
            cost: Of a rewritten layer.

        Returns:
            Whether it is not above the dense layer's in either respect and below it in one.
        """
        dense = self.dense
        return cost.flops <= dense.flops and cost.params <= dense.params and cost != dense

    def _chain(self, *parts: tuple[int, int]) -> Cost:
        """Add up weights and positions of layers, and the bias of the last one."""
        return Cost(
            flops=sum(weights * pixels for weights, pixels in parts),
            params=sum(weights for weights, _ in parts) + (self.outputs if self.bias else 0),
        )


@dataclass(frozen=True)
class Form:
    """How a layer is built.

    Attributes:
        segments: Which parts are multiplied out; ``None`` for the layer as it was.
        cost: What it costs.
        rank: Channels per group of a depthwise core; ``None`` where the core is an ordinary one.
    """

    segments: Segments | None
    cost: Cost
    rank: int | None = None


@dataclass(frozen=True)
class Forms:
    """Which forms layers may take.

    Attributes:
        realise: Three layers always, or the realisation with the fewest multiply-accumulates.
        rank_share: Channels of a depthwise core, as a share of the smaller number of directions; ``None`` for
            ordinary cores. Pointwise layers keep ordinary ones.
    """

    realise: Realise = "cheapest"
    rank_share: float | None = None

    def choose_best(self, shape: Shape, columns: int, rows: int, dense: bool = True) -> Form:
        """Choose the form of a layer with some directions kept.

        Args:
            shape: The layer.
            columns: Kept input directions per group.
            rows: Kept output directions per group.
            dense: Whether the layer may be left as it was; the size guard then leaves it wherever nothing is
                saved.

        Returns:
            The form. Its cost does not fall when more directions are kept.
        """
        if self.rank_share is not None and shape.kernel > 1:
            rank = max(1, round(self.rank_share * min(columns, rows)))
            found = [Form((1, 1, 1), shape.separable(rank), rank)]
        else:
            costs = shape.realisation_costs(columns, rows)
            allowed = SEGMENTS[:1] if self.realise == "three_layer" else SEGMENTS[:3]
            found = [Form(segments, costs[segments]) for segments in allowed]
        if dense:
            found = [form for form in found if shape.is_reduced_by(form.cost)]
        least = min(found, key=lambda form: (form.cost.flops, form.cost.params), default=None)
        return Form(None, shape.dense) if least is None else least


@dataclass(frozen=True)
class Survey:
    """The layers of a network.

    Attributes:
        shapes: Those that can be rewritten, in order of execution.
        left: Why the others that have weights are left dense, by name.
        last: Name of the layer that is executed last, if it can be rewritten.
    """

    shapes: Mapping[str, Shape]
    left: Mapping[str, str]
    last: str | None


def survey(model: nn.Module, example: Inputs) -> Survey:
    """Find the layers that can be rewritten.

    Args:
        model: The network; not changed.
        example: One input, ``[1, ...]``; its values do not matter.

    Returns:
        The layers.
    """
    calls = _calls(model, example)
    last = next(reversed(calls), None)
    shapes: dict[str, Shape] = {}
    left: dict[str, str] = {}
    owners: dict[int, int] = {}
    paths: dict[int, int] = {}
    for _, module in model.named_modules(remove_duplicate=False):
        paths[id(module)] = paths.get(id(module), 0) + 1
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for name, module in model.named_modules():
        weights = [p for p in module.parameters(recurse=False) if p.ndim > 1]
        if not weights:
            continue
        if type(module) not in (nn.Conv2d, nn.Linear):
            left[name] = f"layers of type {type(module).__name__} are not rewritten"
        elif name not in calls:
            left[name] = "it is not executed as a module"
        elif any(owners[id(parameter)] > 1 for parameter in weights) or paths[id(module)] > 1:
            left[name] = "its weight has several places in the network"
        elif isinstance(module, nn.Conv2d) and module.groups > 1 and module.in_channels == module.groups:
            left[name] = "a depthwise convolution has one input per group: nothing to rotate"
    order = [name for name in calls if name not in left]
    for position, name in enumerate(order):
        shapes[name] = _shape(model.get_submodule(name), *calls[name], position / max(1, len(order) - 1))
    return Survey(shapes, left, last if last in shapes else None)


def _calls(model: nn.Module, example: Inputs) -> dict[str, tuple[int, int]]:
    """Count the positions of inputs and outputs of convolutions and linear layers, in order of first call."""
    found: dict[str, tuple[int, int]] = {}

    def note(name: str, module: nn.Conv2d | nn.Linear) -> Any:
        inputs, outputs = _widths(module)

        def hook(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> None:
            before, after = found.get(name, (0, 0))
            received = args[0] if args else kwargs["input"]
            found[name] = before + received.numel() // inputs, after + output.numel() // outputs

        return hook

    # A copy on the meta device: only shapes are computed, whatever the size of the network.
    shapes = copy.deepcopy(model).to("meta").eval()
    for name, module in shapes.named_modules():
        if type(module) in (nn.Conv2d, nn.Linear):
            assert isinstance(module, nn.Conv2d | nn.Linear)
            module.register_forward_hook(note(name, module), with_kwargs=True)
    with torch.no_grad():
        call(shapes, move(take(example, slice(1)), "meta"))
    return found


def _widths(module: nn.Conv2d | nn.Linear) -> tuple[int, int]:
    if isinstance(module, nn.Conv2d):
        return module.in_channels, module.out_channels
    return module.in_features, module.out_features


def _shape(module: nn.Module, pixels_in: int, pixels_out: int, depth: float) -> Shape:
    assert isinstance(module, nn.Conv2d | nn.Linear)
    inputs, outputs = _widths(module)
    return Shape(
        inputs,
        outputs,
        groups=module.groups if isinstance(module, nn.Conv2d) else 1,
        kernel=prod(module.kernel_size) if isinstance(module, nn.Conv2d) else 1,
        pixels_in=pixels_in,
        pixels_out=pixels_out,
        bias=module.bias is not None,
        depth=depth,
    )
