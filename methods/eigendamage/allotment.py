"""From a method's sparsity to kept numbers: one threshold for all rankings, the same share of each, or ratios.

In the FLOPs mode the threshold is found that meets the target; with ratios, rankings lose a share each or, for
``selection="global"`` and one ratio, all together. Over several rounds what is left falls geometrically.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from methods.eigendamage.directions import (
    CostOf,
    Ranking,
    choose_least,
    choose_within_cost,
    keep_above,
    rank_scores,
    scale_scores,
)
from spaces import FlopsTarget, InputError, Sparsity, Uniform

Selection = Literal["global", "per_layer"]
"""Whether scores of different layers compete, or every layer loses its share."""

DECADES_PER_TILT = 2.0
"""By how many powers of ten the threshold is larger at the output than at the input for a tilt of 1."""


@dataclass(frozen=True)
class Side:
    """What a ranking ranks.

    Attributes:
        size: How many things there were before anything was removed.
        depth: Place in the network, from 0 to 1.
        ratio: Share that is to be removed where the sparsity has ratios; 0 for sides of no channel group.
        coupled: Whether it belongs to a channel group; the network's inputs and classes do not.
    """

    size: int
    depth: float
    ratio: float
    coupled: bool = True


@dataclass(frozen=True)
class Round:
    """Which of several rounds of pruning it is.

    Attributes:
        number: From 1.
        of: How many there are.
    """

    number: int = 1
    of: int = 1

    @property
    def last(self) -> bool:
        """Whether no other follows."""
        return self.number == self.of

    def share(self, final: float) -> float:
        """Return the share that is left after this round.

        Args:
            final: The share that is left in the end.

        Returns:
            A share between ``final`` and 1; each round leaves the same part of what it found.
        """
        return final if self.last else float(final ** (self.number / self.of))


def choose(
    sparsity: Sparsity,
    selection: Selection,
    rankings: Sequence[Ranking],
    sides: Sequence[Side],
    cost: CostOf,
    dense: int,
    present: Round,
) -> list[int]:
    """Decide how much of each ranking is kept.

    Args:
        sparsity: How much of the network is kept.
        selection: Whether layers compete.
        rankings: What can be removed now.
        sides: What they rank.
        cost: FLOPs of a choice.
        dense: FLOPs of the dense network.
        present: Which round it is.

    Returns:
        Kept numbers.

    Raises:
        InputError: If a FLOPs target cannot be reached in the last round; says which share can.
    """
    if isinstance(sparsity, FlopsTarget):
        comparable = scale_rankings(sparsity.tilt, selection, rankings, sides)
        target = present.share(sparsity.flops) * dense
        smallest = cost(choose_least(comparable))
        if smallest <= target:
            return choose_within_cost(comparable, cost, target)
        if present.last:
            raise InputError(explain_unreachable(sparsity.flops, smallest, dense))
        return choose_least(comparable)
    if isinstance(sparsity, Uniform) and selection == "global":
        return keep_above(rankings, 1 - Round(1, present.of).share(1 - sparsity.ratio))
    kept = []
    for ranking, side in zip(rankings, sides, strict=True):
        wanted = side.size - ceil((1 - present.share(1 - side.ratio)) * side.size - 1e-9)
        kept.append(ranking.count_without(max(0.0, 1 - wanted / len(ranking.scores))))
    return kept


def scale_rankings(
    tilt: float, selection: Selection, rankings: Sequence[Ranking], sides: Sequence[Side]
) -> list[Ranking]:
    """Give rankings scores that one threshold can be put to.

    Args:
        tilt: How much more is removed at the output than at the input.
        selection: Whether scores compete as they are, or all rankings lose the same share (to which the tilt is
            added); then what belongs to no channel group stays whole.
        rankings: What can be removed.
        sides: What they rank.

    Returns:
        The rankings with other scores.
    """
    changed = []
    for ranking, side in zip(rankings, sides, strict=True):
        lean = tilt * (side.depth - 0.5)
        if selection == "global":
            changed.append(scale_scores(ranking, 10 ** (-DECADES_PER_TILT * lean)))
        elif side.coupled:
            changed.append(rank_scores(ranking, side.size, lean))
        else:
            changed.append(replace(ranking, least=len(ranking.scores)))
    return changed


def explain_unreachable(wanted: float, smallest: int, dense: int) -> str:
    """Say that a FLOPs target cannot be reached, and which one can.

    Args:
        wanted: The target, as a share.
        smallest: The least FLOPs there are.
        dense: FLOPs of the dense network.

    Returns:
        The message.
    """
    # Upwards, so that what is printed can be asked for.
    reached = ceil(1000 * smallest / dense) / 1000
    return (
        f"flops = {wanted!r} cannot be reached; with this network, its layers that stay dense and ratio_limit the "
        f"smallest share is {reached:.3f}"
    )
