"""Choosing how much of each ranking is kept: by one threshold for all, by a ratio for each, or to meet a cost.

A *ranking* holds the scores of things that can be removed one after the other, the best first: input directions of a
layer, output directions of a layer, units of a channel group. Whatever the rule, what is kept is a beginning of the
ranking, so that a choice is one number per ranking.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import ceil

from spaces import round_down_width, round_up_width

CostOf = Callable[[Sequence[int]], int]
"""Cost of a choice, one kept number per ranking; must not fall when one of them grows."""


@dataclass(frozen=True)
class Ranking:
    """Things that can be removed, the best first.

    Attributes:
        scores: One per thing, descending, in a unit that all rankings share.
        least: How many stay in any case, ``1 .. len(scores)``.
        step: How many are kept is a multiple of this, or all.
    """

    scores: tuple[float, ...]
    least: int = 1
    step: int = 1

    def round_down(self, count: int) -> int:
        """Return the largest allowed number that is not above a count.

        Args:
            count: How many might be kept.

        Returns:
            A multiple of the step, or all; at least ``least`` (rounded up).
        """
        most = len(self.scores)
        return max(round_down_width(count, most, self.step), round_up_width(self.least, most, self.step))

    def count_above(self, threshold: float) -> int:
        """Count what is kept if everything up to a threshold goes.

        Args:
            threshold: The largest score that goes.

        Returns:
            How many are kept.
        """
        return self.round_down(bisect_left(self.scores, -threshold, key=lambda score: -score))

    def count_without(self, ratio: float) -> int:
        """Count what is kept if a share goes.

        Args:
            ratio: The share, rounded up to whole things and then to the nearest allowed number.

        Returns:
            How many are kept.
        """
        # 0.07 times 100 gives 7.000000000000001; that must not remove an eighth one.
        count = len(self.scores) - ceil(ratio * len(self.scores) - 1e-9)
        below = self.round_down(count)
        above = min(below // self.step * self.step + self.step, len(self.scores))
        return below if count - below < above - count else above


def limit_ranking(size: int, limit: float) -> int:
    """Return how many of a ranking stay in any case.

    Args:
        size: Length of the ranking.
        limit: Largest share that may go.

    Returns:
        At least 1.
    """
    return max(1, ceil(size * (1 - limit) - 1e-9))


def scale_scores(ranking: Ranking, factor: float) -> Ranking:
    """Multiply the scores of a ranking.

    Args:
        ranking: The ranking.
        factor: Above 0.

    Returns:
        The ranking with other scores in the same order.
    """
    return replace(ranking, scores=tuple(score * factor for score in ranking.scores))


def rank_scores(ranking: Ranking, size: int, shift: float = 0.0) -> Ranking:
    """Replace scores by places, so that one threshold leaves the same share of all rankings.

    Args:
        ranking: The ranking, or what earlier rounds left of it.
        size: How long it was before anything was removed.
        shift: What is taken from the scores: how much more is removed here.

    Returns:
        The ranking with scores that fall by ``1 / size`` down to ``1 / size``, less the shift.
    """
    left = len(ranking.scores)
    return replace(ranking, scores=tuple((left - place) / size - shift for place in range(left)))


def keep_above(rankings: Sequence[Ranking], ratio: float) -> list[int]:
    """Remove a share of all things, the lowest scores of all rankings together.

    Args:
        rankings: The rankings.
        ratio: The share, rounded down to whole things. Things of equal score go together.

    Returns:
        Kept numbers; where a ranking would fall below its least, more than the share is left.
    """
    scores = sorted(chain.from_iterable(ranking.scores for ranking in rankings))
    removed = int(ratio * len(scores) + 1e-9)
    if removed == 0:
        return [len(ranking.scores) for ranking in rankings]
    return [ranking.count_above(scores[removed - 1]) for ranking in rankings]


def choose_within_cost(rankings: Sequence[Ranking], cost: CostOf, target: float) -> list[int]:
    """Find the threshold at which a target is met, by bisection, and use up what it leaves.

    The cost never rises with the threshold, so the smallest threshold that meets the target is well defined. Scores
    are discrete: what the target then leaves goes to the best of what was removed, as long as something fits.

    Args:
        rankings: The rankings.
        cost: Cost of a choice.
        target: What the choice may cost at most.

    Returns:
        Kept numbers.

    Raises:
        ValueError: If even the least of all rankings costs more.
    """
    whole = [len(ranking.scores) for ranking in rankings]
    if cost(whole) <= target:
        return whole
    thresholds = sorted(set(chain.from_iterable(ranking.scores for ranking in rankings)))

    def is_met(threshold: float) -> bool:
        return cost([ranking.count_above(threshold) for ranking in rankings]) <= target

    position = bisect_left(thresholds, True, key=is_met)
    if position == len(thresholds):
        raise ValueError(f"the target {target} cannot be met; the least cost is {cost(choose_least(rankings))}")
    return _fill(rankings, [ranking.count_above(thresholds[position]) for ranking in rankings], cost, target)


def choose_least(rankings: Sequence[Ranking]) -> list[int]:
    """Return the smallest choice.

    Args:
        rankings: The rankings.

    Returns:
        Kept numbers.
    """
    return [ranking.round_down(0) for ranking in rankings]


def _fill(rankings: Sequence[Ranking], counts: list[int], cost: CostOf, target: float) -> list[int]:
    """Take back the best of what was removed while the cost stays within the target."""
    counts = list(counts)
    queue = [
        (-ranking.scores[count], index)
        for index, (ranking, count) in enumerate(zip(rankings, counts, strict=True))
        if count < len(ranking.scores)
    ]
    heapq.heapify(queue)
    while queue:
        _, index = heapq.heappop(queue)
        ranking, before = rankings[index], counts[index]
        counts[index] = min(before // ranking.step * ranking.step + ranking.step, len(ranking.scores))
        if cost(counts) > target:
            counts[index] = before  # nothing further down this ranking is cheaper
        elif counts[index] < len(ranking.scores):
            heapq.heappush(queue, (-ranking.scores[counts[index]], index))
    return counts
