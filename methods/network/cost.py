"""What a network costs: multiply–accumulates and parameters, counted on the network that runs.

"FLOPs" are multiply–accumulates (MACs) of convolutions and matrix products for one input, as the pruning
literature counts them: ResNet-56 for CIFAR has 125.5 M. Batch norm, activations and additions are not counted.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from methods.contract.inputs import Inputs, call, move, take
from methods.network.channels import ChannelGroup
from spaces import InputError, unknown_name


@dataclass(frozen=True)
class Cost:
    """What one network costs.

    Attributes:
        flops: Multiply–accumulates for one input.
        params: Number of parameters.
    """

    flops: int
    params: int


def count(model: nn.Module, example: Inputs) -> Cost:
    """Count the multiply–accumulates that one forward pass executes, and the parameters.

    Args:
        model: The network; not changed.
        example: One input, ``[1, ...]``; its values do not matter.

    Returns:
        The cost for one input; an ``InputError`` if what is executed depends on the numbers in the input.
    """
    return Cost(sum(layer_flops(model, example).values()), sum(p.numel() for p in model.parameters()))


def layer_flops(model: nn.Module, example: Inputs) -> dict[str, int]:
    """Count multiply–accumulates layer by layer.

    Args:
        model: The network; not changed.
        example: One input, ``[1, ...]``; its values do not matter.

    Returns:
        Multiply–accumulates for one input by name of the innermost module that executes them; ``""`` holds
        those executed outside any submodule. Modules without any are left out.

    Raises:
        InputError: If what the network executes depends on the numbers in its input.
        RuntimeError: If the network cannot run on the example.
    """
    # A copy on the meta device: only shapes are computed, whatever the size of the network.
    shapes = copy.deepcopy(model).to("meta").eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call(shapes, move(take(example, slice(1)), "meta"))
    except (RuntimeError, NotImplementedError) as error:  # torch says no more than which operation it was
        if "meta" not in str(error):
            raise
        raise InputError(
            f"the FLOPs of {type(shapes).__name__} cannot be counted, for its forward pass looks at numbers and not at "
            f"shapes alone ({str(error).splitlines()[0]}); let it compute the same for all numbers"
        ) from error
    totals = {
        name: sum(operations.values()) // 2  # the counter counts a multiply–accumulate as two operations
        for name, operations in counter.get_flop_counts().items()
    }
    root = type(shapes).__name__
    own: dict[str, int] = {}
    for name, module in model.named_modules():
        key = f"{root}.{name}" if name else "Global"
        children = (f"{root}.{name}.{c}" if name else f"{root}.{c}" for c, _ in module.named_children())
        left = totals.get(key, 0) - sum(totals.get(child, 0) for child in children)
        if left:
            own[name] = left
    return own


class CostModel:
    """Exact FLOPs of a choice of widths, without cutting anything.

    Every layer costs its dense multiply–accumulates times the share of output channels times the share of
    input channels that are kept (once only for depthwise convolutions). The sum over layers is evaluated in
    microseconds, so that a search can afford it for every candidate.

    Args:
        model: The dense network.
        example: One input, ``[1, ...]``.
        groups: Its channel groups.
    """

    def __init__(self, model: nn.Module, example: Inputs, groups: Sequence[ChannelGroup]) -> None:
        self.units = {group.name: group.channels for group in groups}
        flops = layer_flops(model, example)
        self.dense = sum(flops.values())
        sides: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        for group in groups:
            for member in group.members:
                sides[member.module, member.side][group.name] = member.index.shape[1]
        self._layers = [
            _LayerCost(macs, *_sides(model.get_submodule(name), name, sides, self.units))
            for name, macs in flops.items()
        ]
        self._columns = {group.name: column for column, group in enumerate(groups)}
        self._flops = self._terms([(layer.dense, (layer.out, layer.in_)) for layer in self._layers])
        self._tensors = _parameter_terms(model, sides, self.units)
        self._params = self._terms(self._tensors)

    def batch(self, widths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the cost of many choices of widths at once.

        Args:
            widths: Kept units, ``[candidates, groups]``, the groups in the order they were given in.

        Returns:
            Multiply–accumulates for one input and number of parameters, ``[candidates]`` each.

        Raises:
            InputError: If the table does not have one column per group.
        """
        kept = np.asarray(widths, dtype=np.float64)
        if kept.ndim != 2 or kept.shape[1] != len(self.units):
            raise InputError(
                f"widths must be a table of {len(self.units)} columns, one per group, not of shape {list(kept.shape)}"
            )
        return self._flops.evaluate(kept), self._params.evaluate(kept)

    def _terms(self, terms: Sequence[tuple[int, tuple[_Width, ...]]]) -> _Terms:
        """Lay products of widths out as matrices."""
        factors = max((len(widths) for _, widths in terms), default=0)
        fixed = np.ones((factors, len(terms)))
        slopes = np.zeros((factors, len(self.units), len(terms)))
        for number, (_, widths) in enumerate(terms):
            for factor, width in enumerate(widths):
                # share of channels kept = (fixed + sum of channels per unit * kept units) / dense
                fixed[factor, number] = width.fixed
                for group, times, _ in width.per_unit:
                    slopes[factor, self._columns[group], number] = times
        dense = [coefficient / math.prod(width.dense for width in widths) for coefficient, widths in terms]
        return _Terms(np.array(dense), fixed, slopes)

    def flops(self, kept: Mapping[str, int]) -> int:
        """Return the multiply–accumulates for one input at given widths.

        Args:
            kept: Kept units by group name; groups that are not named are whole.

        Returns:
            Exactly what :func:`count` finds on the cut network; an ``InputError`` if a group is unknown.
        """
        self._check(kept)
        return sum(layer.macs(kept) for layer in self._layers)

    def params(self, kept: Mapping[str, int]) -> int:
        """Return the number of parameters at given widths.

        Args:
            kept: Kept units by group name; groups that are not named are whole.

        Returns:
            Exactly what :func:`count` finds on the cut network; an ``InputError`` if a group is unknown.
        """
        self._check(kept)
        # A tensor's size is proportional to each of its widths; cuts of grouped layers are even, so division is exact.
        return sum(
            size * math.prod(width.channels(kept) for width in widths) // math.prod(width.dense for width in widths)
            for size, widths in self._tensors
        )

    def _check(self, kept: Mapping[str, int]) -> None:
        for name in kept:
            if name not in self.units:
                raise InputError(unknown_name("channel group", name, self.units))


@dataclass(frozen=True)
class _Terms:
    """A sum over terms of coefficient * product over factors of (fixed + slopes @ widths), in float64.

    Sums of integers below 2^53 are exact in float64, and each term is rounded to the integer that it is.
    """

    coefficients: NDArray[np.float64]  # [terms]
    fixed: NDArray[np.float64]  # [factors, terms]
    slopes: NDArray[np.float64]  # [factors, groups, terms]

    def evaluate(self, kept: NDArray[np.float64]) -> NDArray[np.int64]:
        product = np.ones((len(kept), len(self.coefficients)))
        for fixed, slopes in zip(self.fixed, self.slopes, strict=True):
            product *= fixed + kept @ slopes
        exact: NDArray[np.int64] = np.rint(product * self.coefficients).astype(np.int64).sum(1)
        return exact


@dataclass(frozen=True)
class _Width:
    """Channels on one side of a layer: a fixed part and, per group, so many channels per unit."""

    fixed: int
    dense: int
    per_unit: tuple[tuple[str, int, int], ...]  # group, channels per unit, units

    def channels(self, kept: Mapping[str, int]) -> int:
        return self.fixed + sum(times * kept.get(group, units) for group, times, units in self.per_unit)


@dataclass(frozen=True)
class _LayerCost:
    dense: int
    out: _Width
    in_: _Width

    def macs(self, kept: Mapping[str, int]) -> int:
        # dense = positions * kernel * out * in / groups, and cuts of grouped convolutions are even over the
        # groups, so the division is exact.
        return self.dense * self.out.channels(kept) * self.in_.channels(kept) // (self.out.dense * self.in_.dense)


def _sides(
    module: nn.Module, name: str, sides: Mapping[tuple[str, str], Mapping[str, int]], units: Mapping[str, int]
) -> tuple[_Width, _Width]:
    """Find how the two widths of a layer follow the groups."""
    out, in_ = _channels(module)
    follows_input = getattr(module, "groups", 1) == out == in_ and out > 1
    return (
        _width(out, sides.get((name, "out"), {}), units),
        # A depthwise convolution keeps one input channel per output channel: it shrinks once, not twice.
        _width(in_, {} if follows_input else sides.get((name, "in"), {}), units),
    )


def _width(dense: int, per_unit: Mapping[str, int], units: Mapping[str, int]) -> _Width:
    parts = tuple((group, times, units[group]) for group, times in per_unit.items())
    return _Width(dense - sum(times * count for _, times, count in parts), dense, parts)


def _parameter_terms(
    model: nn.Module, sides: Mapping[tuple[str, str], Mapping[str, int]], units: Mapping[str, int]
) -> list[tuple[int, tuple[_Width, ...]]]:
    """Write the size of every parameter as a product of widths; shared parameters count once."""
    terms: list[tuple[int, tuple[_Width, ...]]] = []
    seen: set[int] = set()
    for name, module in model.named_modules():
        out, in_ = _sides(module, name, sides, units)
        for parameter in module.parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if parameter.ndim == 1 and out.dense == 1:
                out = _width(parameter.numel(), sides.get((name, "out"), {}), units)
            terms.append((parameter.numel(), (out, in_) if parameter.ndim > 1 else (out,)))
    return terms


def _channels(module: nn.Module) -> tuple[int, int]:
    """Return output and input channels of a layer that multiplies (1, 1 for anything else)."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.out_channels, module.in_channels
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    return 1, 1
