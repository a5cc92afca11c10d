"""Penalties that follow ranks: which way each rank pushes, and how long a layer takes to be done.

IncReg (Wang et al., 2019, arXiv 1804.09461) and its predecessor SPP (Wang et al., 2017, arXiv 1709.06994)
share this mathematics. In each layer of ``survivors`` units, ``to_go`` of them still to be removed, the units
are ranked by importance, 0 the weakest. Ranks below ``to_go`` are pushed towards removal, rank ``to_go``
stays, higher ranks are relieved. All functions work on many layers at once, one per row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

Increment = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``(rank, to_go, survivors, progress)`` to the change of a penalty, in units of the largest change; ``rank``
is ``[layers, units]``, the others are ``[layers, 1]``."""


def ranks(values: Tensor, alive: Tensor) -> Tensor:
    """Rank the living units of each layer, weakest first.

    Args:
        values: What to rank by, ``[layers, units]``; ties keep the order of units.
        alive: Which units take part, ``[layers, units]``.

    Returns:
        Ranks ``[layers, units]`` (int64): ``0 .. survivors - 1`` for the living, higher for the others.

    Example:
        >>> alive = torch.tensor([[True, True, False, True]])
        >>> ranks(torch.tensor([[0.3, 0.1, 0.0, 0.2]]), alive)
        tensor([[2, 0, 3, 1]])
    """
    order = values.masked_fill(~alive, float("inf")).argsort(dim=1, stable=True)
    position = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, position)


def linear_increment(rank: Tensor, to_go: Tensor, survivors: Tensor, progress: Tensor) -> Tensor:
    """Fall linearly from 1 at rank 0 to 0 at rank ``to_go``, then to -1 at the last rank (IncReg's paper).

    Args:
        rank: Rank of each unit, ``[layers, units]``.
        to_go: Units still to be removed, ``>= 1``, ``[layers, 1]``.
        survivors: Units not yet removed, ``[layers, 1]``.
        progress: Not used.

    Returns:
        Change of the penalty in units of the largest, ``[layers, units]``.

    Example:
        >>> n, m = torch.tensor([[2.0]]), torch.tensor([[5.0]])
        >>> linear_increment(torch.arange(5.0)[None], n, m, n)
        tensor([[ 1.0000,  0.5000,  0.0000, -0.5000, -1.0000]])
    """
    above = (rank - to_go) / (survivors - 1 - to_go).clamp_min(1)
    return torch.where(rank <= to_go, 1 - rank / to_go, -above)


def exponential_increment(
    rank: Tensor, to_go: Tensor, survivors: Tensor, progress: Tensor, flatness: float = 0.25
) -> Tensor:
    """Fall exponentially, symmetrically about a centre before ``to_go`` (SPP; IncReg's released code).

    Args:
        rank: Rank of each unit, ``[layers, units]``.
        to_go: Units still to be removed, ``>= 1``, ``[layers, 1]``.
        survivors: Not used.
        progress: Not used.
        flatness: Value at the centre (``u``), between 0 and 1.

    Returns:
        Change of the penalty in units of the largest, ``[layers, units]``.
    """
    steepness = log(2 / flatness) / to_go
    centre = -log(flatness) / steepness
    # Far above the centre the fall is without bound; e^60 suffices to lift any penalty.
    rising = (steepness * (rank - 2 * centre)).clamp_max(60)
    falling = (-steepness * rank).exp()
    return torch.where(rank < centre, falling, 2 * flatness - rising.exp())


def jump_increment(rank: Tensor, to_go: Tensor, survivors: Tensor, progress: Tensor) -> Tensor:
    """Fall exponentially to a positive value, then jump below zero at rank ``to_go`` (IncReg's code, scheme 2).

    Args:
        rank: Rank of each unit, ``[layers, units]``.
        to_go: Units still to be removed, ``>= 1``, ``[layers, 1]``.
        survivors: Units not yet removed, ``[layers, 1]``.
        progress: Share of the removals that is done, ``[layers, 1]``.

    Returns:
        Change of the penalty in units of the largest, ``[layers, units]``.
    """
    fall = -(0.75 * progress).clamp_min(0.05).log()  # ln(1 / k2)
    below = (-fall * rank / (to_go - 1).clamp_min(1)).exp()
    above = (-fall * (survivors - 1 - rank) / (survivors - 1 - to_go).clamp_min(1)).exp()
    return torch.where(rank < to_go, below, -above)


def updates_to_finish(ceiling: float, to_remove: int, units: int, increment: Increment) -> int:
    """Count the updates until a layer is done, if its ranking never changes.

    The exact count behind IncReg's time law: for the linear increment about ``ceiling`` times the harmonic
    number of ``to_remove``.

    Args:
        ceiling: Penalty at which a unit is removed, in units of the largest change per update, ``> 0``.
        to_remove: Units to be removed, ``0 .. units - 1``.
        units: Units of the layer.
        increment: How penalties change by rank.

    Returns:
        Number of updates.

    Example:
        >>> updates_to_finish(100.0, to_remove=2, units=5, increment=linear_increment)
        150
    """
    penalty = torch.zeros(1, to_remove, dtype=torch.float64)
    rank = torch.arange(to_remove, dtype=torch.float64)[None]
    updates, removed = 0, 0
    while removed < to_remove:
        left = to_remove - removed
        counts = (float(left), float(units - removed), removed / to_remove)
        change = increment(rank[:, :left], *(torch.full((1, 1), number, dtype=torch.float64) for number in counts))
        # The weakest unit has the largest penalty and the largest change: it is the next to go.
        missing = (ceiling - penalty[0, 0].item()) / change[0, 0].item()
        wait = max(1, -int(-(missing - 1e-9) // 1))
        penalty = penalty + wait * change
        updates += wait
        gone = int((penalty >= ceiling * (1 - 1e-12)).sum())
        removed += gone
        penalty = penalty[:, gone:]
    return updates


def find_ceiling(updates: int, to_remove: int, units: int, increment: Increment) -> float:
    """Find the ceiling, in units of the largest change per update, at which a layer is done just in time.

    Args:
        updates: Updates there are.
        to_remove: Units to be removed, ``1 .. units - 1``.
        units: Units of the layer.
        increment: How penalties change by rank.

    Returns:
        The largest ceiling ``>= 1`` found for which :func:`updates_to_finish` is at most ``updates``; 1 (one
        update may carry a penalty to the ceiling, not beyond) if even that takes longer.
    """
    # Without rounding to whole updates the time is proportional to the ceiling: an upper bound.
    slow = 1e9
    low, high = 1.0, max(1.0, updates * slow / updates_to_finish(slow, to_remove, units, increment))
    for _ in range(18):
        middle = (low + high) / 2
        if updates_to_finish(middle, to_remove, units, increment) <= updates:
            low = middle
        else:
            high = middle
    return low


def average_ranks(history: Tensor, rank: Tensor, count: int, how: str, decay: float) -> Tensor:
    """Average ranks over updates.

    Args:
        history: Average so far, ``[layers, units]``.
        rank: Present ranks, ``[layers, units]``.
        count: Number of updates, the present one included.
        how: ``"mean"`` of all updates, ``"ema"`` or ``"none"``.
        decay: Decay of the exponential average.

    Returns:
        The new average, ``[layers, units]``.
    """
    if how == "none" or count == 1:
        return rank.to(history.dtype)
    weight = 1 / count if how == "mean" else 1 - decay
    return history + weight * (rank - history)


@dataclass(frozen=True)
class Standing:
    """Where every unit stands; all tensors are ``[layers, units]``.

    Attributes:
        penalty: Penalties, ``>= 0``, in units of weight decay; 0 for removed units and in finished layers.
        rank: Averaged ranks; 0 is the weakest.
        removed: Units that are gone.
    """

    penalty: Tensor
    rank: Tensor
    removed: Tensor


def update_penalties(
    standing: Standing,
    score: Tensor,
    valid: Tensor,
    to_remove: Tensor,
    *,
    penalty_step: float | Tensor,
    penalty_max: float,
    increment: Increment,
    average: Callable[[Tensor, Tensor], Tensor],
) -> Standing:
    """Rank the units, change their penalties, remove those that reach the ceiling: one update of all layers.

    Args:
        standing: Before the update.
        score: Importance of the units (L1 norms), ``[layers, units]``.
        valid: Which entries are units, ``[layers, units]``.
        to_remove: How many units each layer loses in all, ``[layers, 1]``.
        penalty_step: Largest change of a penalty (``A``), of all layers or of each, ``[layers, 1]``.
        penalty_max: The ceiling.
        increment: Change by rank, in units of ``penalty_step``.
        average: Merges averaged and present ranks.

    Returns:
        After the update. No layer ever loses more than ``to_remove``: only so many penalties rise.
    """
    alive = valid & ~standing.removed
    gone = standing.removed.sum(1, keepdim=True)
    to_go, survivors = to_remove - gone, alive.sum(1, keepdim=True)
    open_ = alive & (to_go > 0)
    # Removed units hold the lowest ranks, so those of the survivors start behind them.
    rank = average(standing.rank, ranks(score, alive) + gone)
    position = ranks(rank, alive)
    dtype = standing.penalty.dtype
    change = penalty_step * increment(
        position.to(dtype),
        to_go.clamp_min(1).to(dtype),
        survivors.to(dtype),
        gone.to(dtype) / to_remove.clamp_min(1),
    )
    penalty = (standing.penalty + change).clamp_min(0)  # strong units go free
    # Sums of many small steps may miss the ceiling by a rounding error; that must not cost another update.
    removed = standing.removed | (open_ & (penalty >= penalty_max - 0.01 * penalty_step))
    # A finished layer carries no penalty, only the ordinary weight decay.
    unfinished = to_remove > removed.sum(1, keepdim=True)
    return Standing(torch.where(alive & ~removed & unfinished, penalty, 0.0), rank, removed)


def force_removals(standing: Standing, valid: Tensor, to_remove: Tensor) -> Standing:
    """Remove what is still missing: the units with the largest penalties, the weaker of equals first.

    Args:
        standing: Where every unit stands.
        valid: Which entries are units, ``[layers, units]``.
        to_remove: How many units each layer loses in all, ``[layers, 1]``.

    Returns:
        With exactly ``to_remove`` units removed, and no penalties.
    """
    alive = valid & ~standing.removed
    to_go = to_remove - standing.removed.sum(1, keepdim=True)
    weakest = standing.rank.argsort(dim=1, stable=True)
    place = ranks(-standing.penalty.gather(1, weakest), alive.gather(1, weakest))
    chosen = torch.zeros_like(alive).scatter(1, weakest, place < to_go)
    return Standing(torch.zeros_like(standing.penalty), standing.rank, standing.removed | (chosen & alive))
