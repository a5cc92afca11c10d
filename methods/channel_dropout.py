"""Leaving channel units out for one optimiser step: nobody reads them, and nothing of theirs moves.

The consumers of a unit that is left out read it with weight zero, exactly as if it had been cut; so no gradient
reaches what produces it, and batch norms still see their true inputs, which they would not if its filters were
silenced instead. When the step is over, its weights and all that the optimiser remembers of them (momentum,
second moments) are put back: for the unit, the step has not happened.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from methods.layers import ZeroPadShortcut
from methods.units import Spread, Units


class ChannelDropout:
    """Leaves units out of one optimiser step after the other.

    In each step: :meth:`begin` before the first forward pass, :meth:`hold` after the last backward pass,
    :meth:`end` after the optimiser's step. Nothing waits for the device.

    Args:
        model: The network; changed in place, but between :meth:`end` and :meth:`begin` its weights are its own.
        units: Its channel units.
    """

    def __init__(self, model: nn.Module, units: Units) -> None:
        slots = [*units.producers, *units.affine, *units.consumers]
        self._kept = Spread(slots, default=1.0)
        consumers = range(len(slots) - len(units.consumers), len(slots))
        self._read = [self._kept.parameters[index] for index in consumers]
        self._read_factors = [self._kept.factors[index] for index in consumers]
        self._shortcuts = _shortcuts(model, units)
        # A weight between two groups stands still in the rows of one and in the columns of the other.
        factors: dict[Tensor, list[Tensor]] = defaultdict(list)
        for parameter, factor in zip(self._kept.parameters, self._kept.factors, strict=True):
            factors[parameter].append(factor)
        self._weights = list(factors)
        self._factors = list(factors.values())
        self._moving: list[Tensor] = []  # where each weight moves, in its own shape: fused kernels need that
        self._before: list[Tensor] = []  # the weights as they were
        self._memory: list[Tensor] = []  # what the optimiser remembers,
        self._memory_moving: list[Tensor] = []  # where that moves,
        self._memory_before: list[Tensor] = []  # and how it was

    @torch.no_grad()
    def begin(self, kept: Tensor) -> None:
        """Leave units out from now on.

        Args:
            kept: Which units take part, ``[groups, widest]``.
        """
        self._kept.refresh(kept)
        self._moving = [_product(own, like) for own, like in zip(self._factors, self._weights, strict=True)]
        self._before = _copied(self._weights, self._before)
        torch._foreach_mul_(self._read, self._read_factors)
        self._silence_shortcuts(kept)

    @torch.no_grad()
    def hold(self, optimizer: torch.optim.Optimizer) -> None:
        """Note what the optimiser remembers of every weight.

        Args:
            optimizer: Who is going to take the step.
        """
        self._memory, self._memory_moving = [], []
        for weight, moving in zip(self._weights, self._moving, strict=True):
            for remembered in optimizer.state.get(weight, {}).values():
                if isinstance(remembered, Tensor) and remembered.shape == weight.shape:
                    self._memory.append(remembered)
                    self._memory_moving.append(moving)
        self._memory_before = _copied(self._memory, self._memory_before)

    @torch.no_grad()
    def end(self, alive: Tensor) -> None:
        """Put back the weights of what was left out, and the optimiser's memory of them.

        Args:
            alive: Which units are not removed for good, ``[groups, widest]``.
        """
        _put_back(self._weights, self._before, self._moving)
        _put_back(self._memory, self._memory_before, self._memory_moving)
        self._silence_shortcuts(alive)

    @torch.no_grad()
    def remove(self, alive: Tensor) -> None:
        """Make units zero for good; they must be left out of every later step.

        Args:
            alive: Which units are not removed, ``[groups, widest]``.
        """
        self._kept.refresh(alive)
        torch._foreach_mul_(self._kept.parameters, self._kept.factors)
        self._silence_shortcuts(alive)

    def _silence_shortcuts(self, kept: Tensor) -> None:
        """A shortcut that pads with zeros has no weights: it carries zeros instead of a unit."""
        if self._shortcuts:
            padded = nn.functional.pad(kept.flatten(), (0, 1), value=True)
        for shortcut, source, unit in self._shortcuts:
            shortcut.source.copy_(source.masked_fill(~padded[unit], shortcut.in_channels))


def _shortcuts(model: nn.Module, units: Units) -> list[tuple[ZeroPadShortcut, Tensor, Tensor]]:
    """Find the shortcuts without weights: the module, its own sources, and the unit that each output carries."""
    none, width = units.valid.numel(), units.valid.shape[1]
    carried: dict[str, Tensor] = {}
    for row, group in enumerate(units.groups):
        for member in group.members:
            module = model.get_submodule(member.module)
            if isinstance(module, ZeroPadShortcut) and member.side == "in":
                unit_of_input = carried.setdefault(member.module, torch.full((module.in_channels + 1,), none))
                for unit, channels in enumerate(member.index.tolist()):
                    unit_of_input[channels] = row * width + unit
    found = []
    for name, unit_of_input in carried.items():
        module = model.get_submodule(name)
        assert isinstance(module, ZeroPadShortcut)
        source = module.source.clone()
        found.append((module, source, unit_of_input.to(source.device)[source]))
    return found


def _product(factors: list[Tensor], like: Tensor) -> Tensor:
    """Multiply factors that meet a tensor by broadcasting, laid out in memory as the tensor."""
    if len(factors) == 1 and factors[0].shape == like.shape:
        return factors[0]
    full = torch.empty_like(like).copy_(factors[0])
    for factor in factors[1:]:
        full.mul_(factor)
    return full


def _copied(tensors: list[Tensor], reusable: list[Tensor]) -> list[Tensor]:
    """Copy tensors, into the copies of the step before where there are any."""
    if len(reusable) != len(tensors):
        reusable = [torch.empty_like(tensor) for tensor in tensors]
    torch._foreach_copy_(reusable, tensors)
    return reusable


def _put_back(tensors: list[Tensor], before: list[Tensor], moving: list[Tensor]) -> None:
    """Undo changes outside of where tensors move, bit for bit; the copies are used up."""
    if tensors:
        torch._foreach_lerp_(before, tensors, moving)
        torch._foreach_copy_(tensors, before)
