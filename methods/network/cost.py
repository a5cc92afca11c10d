"""What a network costs: multiply–accumulates and parameters, counted on the network that runs.

"FLOPs" are multiply–accumulates (MACs) of convolutions and matrix products for one input, as the pruning
literature counts them: ResNet-56 for CIFAR has 125.5 M. Batch norm, activations and additions are not counted.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from methods.contract.inputs import Inputs, call, move, take
from methods.network.channels import ChannelGroup
from methods.network.copying import copy_network, shapes_of
from methods.network.labels import Classes
from methods.network.quick_shapes import QuickShapes
from spaces import InputError, explain_unknown_name


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
        The cost for one input: for this one, if what is executed depends on the numbers in it.
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
        RuntimeError: If the network cannot run on the example.
    """
    # A copy on the meta device: only shapes are computed, whatever the size of the network.
    shapes = shapes_of(model).eval().requires_grad_(False)  # torch's counter stumbles over views of parameters
    try:
        with torch.no_grad(), torch.device("meta"), QuickShapes(), FlopCounterMode(display=False) as counter:
            call(shapes, move(take(example, slice(1)), "meta"))
    except (RuntimeError, NotImplementedError) as error:  # torch says no more than which operation it was
        if "meta" not in str(error):
            raise
        counter = _count_on_numbers(model, example)
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


def _count_on_numbers(model: nn.Module, example: Inputs) -> FlopCounterMode:
    """Run a network whose code looks at numbers and not at shapes alone, with kernels that can be counted."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with (
        warnings.catch_warnings(action="ignore"),  # of torch, about accelerators that are not there
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
        torch.backends.mkldnn.flags(enabled=False),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counted,
    ):
        call(copy_network(model).eval().requires_grad_(False), move(take(example, slice(1)), device))
    counter: FlopCounterMode = counted
    return counter


class CostModel:
    """Exact FLOPs and parameters of a choice of widths, without cutting anything.

    Every matrix product and convolution of the network's pass multiplies the sizes of a few dimensions, and so does
    the size of every parameter; each of these sizes is a fixed part plus so many channels per kept unit of some
    groups. The sums over these products are evaluated for thousands of candidates at once.

    Args:
        model: The dense network.
        example: One input, ``[1, ...]``.
        groups: Its channel groups.
        blocks: Names of the modules of each part that can be taken out whole, by name of the part, none of them the
            name of a group; each counts as a group of one unit, after the others, of which 0 or 1 are kept.

    Attributes:
        units: Units by name of group, and 1 by name of block.
        dense: Multiply–accumulates of the dense network.
        dense_params: Parameters of the dense network.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Inputs,
        groups: Sequence[ChannelGroup],
        blocks: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        parts = dict(blocks or {})
        self.units = {group.name: group.channels for group in groups} | dict.fromkeys(parts, 1)
        structure = groups[0].structure if groups else None
        column = {unit: place for place, group in enumerate(groups) for unit in group.units}
        column |= {-1 - number: len(groups) + number for number in range(len(parts))}

        def list_switches(owner: str) -> tuple[Classes, ...]:
            """Multiply what belongs to a block with whether it is kept: a size of its own, 0 or 1."""
            within = (
                number
                for number, modules in enumerate(parts.values())
                if any(f"{owner}.".startswith(f"{module}.") for module in modules)
            )
            return tuple(np.array([-1 - number], dtype=np.int64) for number in within)

        flops: list[tuple[int, tuple[Classes, ...]]]
        if structure is None:
            flops = [(macs, list_switches(name)) for name, macs in layer_flops(model, example).items()]
            shapes = dict[str, tuple[Classes | None, ...]]()
        else:
            # The pass that was followed had two examples, each of which takes as much.
            flops = [
                (term.coefficient * (1 if term.per_example else 2), (*term.factors, *list_switches(term.module)))
                for term in structure.terms
            ]
            shapes = dict(structure.tensors)
        params = []
        for name, parameter in model.named_parameters():
            fixed, factors = _size_of(parameter, shapes.get(name, ()))
            params.append((fixed, (*factors, *list_switches(name.rpartition(".")[0]))))
        self._flops, self._params = (_Products.from_terms(terms, column, len(self.units)) for terms in (flops, params))
        self._examples = 1 if structure is None else 2
        whole = np.array([list(self.units.values())], dtype=np.int64)
        dense, dense_params = self.batch(whole)
        self.dense, self.dense_params = int(dense[0]), int(dense_params[0])

    def batch(self, widths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the cost of many choices of widths at once.

        Args:
            widths: Kept units, ``[candidates, groups]``, the groups in the order they were given in, then the blocks.

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
        return self._flops.evaluate(kept) // self._examples, self._params.evaluate(kept)

    def flops(self, kept: Mapping[str, int]) -> int:
        """Return the multiply–accumulates for one input at given widths.

        Args:
            kept: Kept units by name of group or block; those that are not named are whole.

        Returns:
            Exactly what :func:`count` finds on the cut network; an ``InputError`` if a group is unknown.
        """
        return int(self._flops.evaluate(self._row(kept))[0]) // self._examples

    def params(self, kept: Mapping[str, int]) -> int:
        """Return the number of parameters at given widths.

        Args:
            kept: Kept units by group name; groups that are not named are whole.

        Returns:
            Exactly what :func:`count` finds on the cut network; an ``InputError`` if a group is unknown.
        """
        return int(self._params.evaluate(self._row(kept))[0])

    def _row(self, kept: Mapping[str, int]) -> NDArray[np.float64]:
        for name in kept:
            if name not in self.units:
                raise InputError(explain_unknown_name("channel group", name, self.units))
        return np.array([[kept.get(name, units) for name, units in self.units.items()]], dtype=np.float64)


def _size_of(parameter: Tensor, labels: tuple[Classes | None, ...]) -> tuple[int, tuple[Classes, ...]]:
    """Write the size of a parameter as a product of the sizes of its dimensions."""
    follow = [k for k, classes in enumerate(labels) if classes is not None and classes.any()]
    fixed = math.prod(size for k, size in enumerate(parameter.shape) if k not in follow)
    return fixed, tuple(classes for k in follow if (classes := labels[k]) is not None)


@dataclass(frozen=True)
class _Products:
    """A sum over terms of coefficient * product over factors of (fixed + slopes @ widths).

    Everything is an integer, and integers below 2^53 are exact in float64.
    """

    fixed: int
    coefficients: NDArray[np.float64]  # [terms]
    sizes: tuple[NDArray[np.float64], NDArray[np.float64]]  # of each different size: fixed part, channels per unit
    factors: tuple[NDArray[np.int64], ...]  # which size each term has as its first, second, ... factor

    @classmethod
    def from_terms(
        cls, terms: Sequence[tuple[int, tuple[Classes, ...]]], column: Mapping[int, int], groups: int
    ) -> _Products:
        """Lay terms out as matrices; terms with the same sizes are added up."""
        sizes: dict[bytes, int] = {}
        rows: list[NDArray[np.float64]] = []
        merged: dict[tuple[int, ...], int] = defaultdict(int)

        def number(classes: Classes) -> int:
            row = np.zeros(1 + groups)
            roots, counts = np.unique(classes, return_counts=True)
            seen: dict[int, set[int]] = defaultdict(set)
            for root, times in zip(roots.tolist(), counts.tolist(), strict=True):
                if root not in column:
                    row[0] += times
                else:
                    row[1 + column[root]] = times
                    seen[column[root]].add(times)
            if any(len(times) > 1 for times in seen.values()):
                raise AssertionError("the units of a group take different numbers of channels")
            if row.tobytes() not in sizes:
                sizes[row.tobytes()] = len(rows)
                rows.append(row)
            return sizes[row.tobytes()]

        for coefficient, factors in terms:
            merged[tuple(sorted(number(classes) for classes in factors))] += coefficient
        fixed = merged.pop((), 0)
        most = max((len(key) for key in merged), default=0)
        one = len(rows)
        rows.append(np.concatenate([np.ones(1), np.zeros(groups)]))
        table = np.stack(rows, axis=1)  # [1 + groups, sizes]
        padded = np.array([[*key, *[one] * (most - len(key))] for key in merged], dtype=np.int64)
        factors_of = tuple(padded.reshape(len(merged), most).T)
        return cls(fixed, np.array(list(merged.values()), dtype=np.float64), (table[0], table[1:]), factors_of)

    def evaluate(self, kept: NDArray[np.float64]) -> NDArray[np.int64]:
        """Sum up for each candidate, ``[candidates]``."""
        fixed, slopes = self.sizes
        channels = fixed + kept @ slopes
        product = np.broadcast_to(self.coefficients, (len(kept), len(self.coefficients)))
        for factor in self.factors:
            product = product * channels[:, factor]
        total: NDArray[np.int64] = self.fixed + product.sum(1).astype(np.int64)
        return total
