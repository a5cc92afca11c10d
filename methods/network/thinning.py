"""Leaving units out of a network for one optimiser step: nothing reads them, and nothing of theirs moves.

What reads a unit that is left out does so with weight zero, exactly as if the unit had been cut. So no gradient
reaches what produces it, and batch norms still see their true inputs, which they would not if its filters were
silenced instead. When the step is over, its weights and all that the optimiser remembers of them (momentum,
second moments) are put back: for the unit, the step has not happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle


class Sliced(Protocol):
    """One tensor of the network whose slices belong to units."""

    @property
    def parameter(self) -> Tensor:
        """The tensor."""

    @property
    def broadcast(self) -> tuple[int, ...]:
        """Shape in which one number per slice meets the tensor."""

    @property
    def units(self) -> Tensor:
        """For each slice, where its unit is in the flattened table; the table's length if it has none."""


class Thinning:
    """Leaves units out of one optimiser step after the other.

    In each step: :meth:`begin` before the first forward pass, :meth:`hold` after the last backward pass,
    :meth:`end` after the optimiser's step. Between :meth:`end` and :meth:`begin` the network's weights are its own.
    Nothing waits for the device, and the number of kernels does not grow with the number of layers: all weights
    have one flat mask, in the order in which they lie in memory. The optimiser's very first step, in which it
    makes its memory, must not be thinned.

    Args:
        own: Slices that belong to units without reading any.
        read: Slices that read units; they are changed in place.
        entries: Length of the flattened table of units.
        close: Closes what carries units without a weight, given those that are kept.
    """

    def __init__(
        self,
        own: Iterable[Sliced],
        read: Iterable[Sliced],
        entries: int,
        close: Callable[[Tensor], None] = lambda kept: None,
    ) -> None:
        self._own = {slot.parameter: slot for slot in own}
        self._readers = {slot.parameter: slot for slot in read}
        self._read = list(self._readers)
        self._weights = list({**self._readers, **self._own})  # readers first: in the flat mask they are one piece
        self._entries, self._close = entries, close
        self._before: list[Tensor] = []  # the weights as they were
        self._memory: list[Tensor] = []  # what the optimiser remembers of them,
        self._memory_still: list[Tensor] = []  # where that stands still,
        self._memory_before: list[Tensor] = []  # and how it was
        self._still: list[Tensor] = []  # where each weight stands still: 1 there, else 0
        self._begun = False

    @torch.no_grad()
    def begin(self, kept: Tensor) -> None:
        """Leave units out from now on.

        Args:
            kept: Which units take part, ``[groups, widest]``.
        """
        self._mark(kept)
        torch._foreach_copy_(self._before, self._weights)
        _silence(self._read, self._unread)
        self._close(kept)
        self._begun = True

    @torch.no_grad()
    def hold(self, optimizer: torch.optim.Optimizer) -> None:
        """Note what the optimiser remembers of every weight.

        Args:
            optimizer: Who is going to take the step; always the same one.
        """
        if not self._memory:
            for weight, still in zip(self._weights, self._still, strict=True):
                for remembered in optimizer.state.get(weight, {}).values():
                    if isinstance(remembered, Tensor) and remembered.shape == weight.shape:
                        self._memory.append(remembered)
                        self._memory_still.append(still)
            self._memory_before = [torch.empty_like(remembered) for remembered in self._memory]
        if self._memory:
            torch._foreach_copy_(self._memory_before, self._memory)

    @torch.no_grad()
    def end(self, alive: Tensor) -> None:
        """Put back the weights of what was left out, and the optimiser's memory of them, bit for bit.

        Args:
            alive: Which units are not removed for good, ``[groups, widest]``.
        """
        torch._foreach_lerp_(
            self._weights + self._memory, self._before + self._memory_before, self._still + self._memory_still
        )
        self._close(alive)
        self._begun = False

    @torch.no_grad()
    def remove(self, alive: Tensor) -> None:
        """Make units zero for good; they must be left out of every later step.

        Args:
            alive: Which units are not removed, ``[groups, widest]``.
        """
        self._mark(alive)
        _silence(self._weights, self._still)
        self._close(alive)

    def mask_gradients(self) -> list[RemovableHandle]:
        """Make gradients those of the thinned network in every element.

        What reads a unit that is left out has a gradient although it stands still. That is of no consequence but
        for who looks at the gradient as a whole, such as the clipping of its norm.

        Returns:
            Handles; the gradients are masked until these are removed.
        """

        def mask_gradient(gradient: Tensor, index: int) -> Tensor:
            return torch.addcmul(gradient, gradient, self._unread[index], value=-1) if self._begun else gradient

        return [
            weight.register_hook(partial(mask_gradient, index=index))
            for index, weight in enumerate(self._read)
            if weight.requires_grad
        ]

    def forget(self) -> None:
        """Look for the weights and the optimiser's memory again: they have been replaced."""
        self._still, self._memory, self._memory_still = [], [], []

    def _mark(self, kept: Tensor) -> None:
        """Mark what reads units that are left out, and what stands still with them."""
        if not self._still:  # not earlier: training may lay the weights out again
            self._lay_out()
        self._left_out[:-1] = ~kept.flatten()
        torch.index_select(self._left_out, 0, self._read_index, out=self._unread_flat)
        torch.index_select(self._left_out, 0, self._own_index, out=self._still_flat)
        # A weight between two groups stands still in the rows of one and in the columns of the other.
        reading = self._still_flat[: len(self._unread_flat)]
        torch.maximum(reading, self._unread_flat, out=reading)

    def _lay_out(self) -> None:
        """Number the elements of all weights in the order of memory, each by the units it belongs to."""
        weights, like = self._weights, self._weights[0]
        none = torch.tensor(self._entries, device=like.device, dtype=torch.int32)
        self._read_index = torch.cat([_element_units(self._readers[weight], weight) for weight in self._read])
        self._own_index = torch.cat([
            _element_units(self._own[weight], weight) if weight in self._own else none.expand(weight.numel())
            for weight in weights
        ])
        self._left_out = like.new_zeros(self._entries + 1)
        self._unread_flat = like.new_zeros(len(self._read_index))
        self._still_flat = like.new_zeros(len(self._own_index))
        self._unread, self._still = _views(self._unread_flat, self._read), _views(self._still_flat, weights)
        self._before = [torch.empty_like(weight) for weight in weights]


def _element_units(slot: Sliced, like: Tensor) -> Tensor:
    """Return the unit of every element of a tensor, in the order of memory, ``[elements]`` (int32)."""
    full = torch.empty_like(like, dtype=torch.int32).copy_(slot.units.view(slot.broadcast))
    return full.as_strided((full.numel(),), (1,))


def _views(flat: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """Cut a flat tensor into tensors of the shapes and memory layouts of others."""
    sizes = [tensor.numel() for tensor in tensors]
    pieces = flat[: sum(sizes)].split(sizes)
    return [
        piece.as_strided(like.shape, like.stride(), piece.storage_offset())
        for piece, like in zip(pieces, tensors, strict=True)
    ]


def _silence(tensors: list[Tensor], where: list[Tensor]) -> None:
    """Make elements zero where the other tensors are 1; multiplying by their complement, in one kernel."""
    torch._foreach_addcmul_(tensors, tensors, where, value=-1)
