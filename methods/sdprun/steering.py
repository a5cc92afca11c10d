"""Which threshold leaves a wanted share of the FLOPs: from the thresholds at which units vanish to a choice of them.

A threshold removes every unit that vanishes below it, so the FLOPs that are left fall with it: a bisection finds
the unit at which a target is met. Nothing has to be cut or run for that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.network.channels import ChannelGroup
from methods.network.cost import CostModel
from spaces import round_down_width, round_up_width


def tolerance(target: float) -> float:
    """Return how far below its target a share of the dense FLOPs may lie, where units are small enough.

    Args:
        target: A share of the dense FLOPs.

    Returns:
        A tenth of it, but at most 2 percentage points.
    """
    return min(0.02, 0.1 * target)


def places(ratios: Tensor, valid: Tensor, rates: Tensor) -> Tensor:
    """Say which share of its group is gone when a unit vanishes, if the smallest go first.

    In place of thresholds this makes all groups lose units alike, however much their norms differ.

    Args:
        ratios: Threshold at which each unit vanishes, ``[groups, widest]``.
        valid: Which entries are units.
        rates: How fast each group loses units, ``[groups, 1]``; a share is divided by it.

    Returns:
        ``(rank - 1/2) / units / rate`` with ranks from 1, ``[groups, widest]``: shares are rounded to whole units.
    """
    order = ratios.masked_fill(~valid, torch.inf).argsort(dim=1, stable=True)
    middles = torch.arange(ratios.shape[1], dtype=torch.double, device=ratios.device).expand(ratios.shape) + 0.5
    return torch.zeros_like(middles).scatter(1, order, middles) / valid.sum(1, keepdim=True) / rates


def thresholds_at(place: float, ratios: Tensor, valid: Tensor, rates: Tensor) -> Tensor:
    """Find the threshold of each group at which the same share of its units is gone: the inverse of :func:`places`.

    Args:
        place: The share.
        ratios: Threshold at which each unit vanishes, ``[groups, widest]``.
        valid: Which entries are units.
        rates: How fast each group loses units, ``[groups, 1]``.

    Returns:
        ``[groups, 1]``; linear between the thresholds of two units, and on to below that of the first.
    """
    ranked = ratios.masked_fill(~valid, torch.inf).sort(dim=1).values
    count = valid.sum(1, keepdim=True)
    at = (place * rates * count - 0.5).clamp(max=count - 1.0)  # 0 is the first unit to go
    below = at.long().clamp(max=count - 2).clamp(min=0)
    low, high = ranked.gather(1, below), ranked.gather(1, torch.minimum(below + 1, count - 1))
    return (low + (at - below).to(low) * (high - low)).clamp_min(0)


@dataclass(frozen=True)
class Landing:
    """A threshold and what it leaves.

    Attributes:
        threshold: Units that vanish at or below it are removed (but for those that are passed over).
        alive: Which units are left, ``[groups, widest]``, on the CPU.
        share: Share of the dense FLOPs that is left.
    """

    threshold: float
    alive: Tensor
    share: float


class Shares:
    """Shares of the dense FLOPs by choice of units.

    Args:
        groups: The channel groups, in the order of the rows of all tables.
        cost: FLOPs of a choice of widths.
        min_keep: How many units stay in any case, by group or for all (all units, where a group has no more).
        round_to: Landings leave multiples of this in every group, or all of it.
        swaps: Whether a unit whose loss takes the share far below a target may stay, and others go in its place.
    """

    def __init__(
        self,
        groups: Sequence[ChannelGroup],
        cost: CostModel,
        min_keep: Sequence[int] | int,
        round_to: int = 1,
        swaps: bool = True,
    ) -> None:
        self._groups, self._cost, self._round_to, self._swaps = list(groups), cost, round_to, swaps
        self._min_keep = [min_keep] * len(self._groups) if isinstance(min_keep, int) else list(min_keep)

    @property
    def smallest(self) -> float:
        """The share with the fewest units that are allowed."""
        return self._share([
            min(keep, group.channels) for keep, group in zip(self._min_keep, self._groups, strict=True)
        ])

    def compute_share(self, alive: Tensor) -> float:
        """Return the share that a choice of units leaves.

        Args:
            alive: Which units are left, ``[groups, widest]``; waits for the device.

        Returns:
            FLOPs over dense FLOPs.
        """
        return self._share(alive.sum(1).tolist())

    def threshold(self, ratios: Tensor, target: float) -> float:
        """Find the smallest threshold that meets a target.

        Args:
            ratios: Threshold at which each unit vanishes, ``[groups, widest]``; waits for the device.
            target: Share of the dense FLOPs that may be left.

        Returns:
            The threshold; 0 if the dense network meets the target.
        """
        order = self._order(ratios)
        count = self._count_enough(order, target)
        return order[count - 1][0] if count else 0.0

    def land(self, ratios: Tensor, target: float) -> Landing:
        """Choose the units that are left so that their share is at most the target, and hardly less.

        Units go in the order in which a growing threshold takes them. Where the last one would take the share
        further below the target than :func:`tolerance`, smaller units that vanish a little later go instead, if
        there are such and they may. Then the last ones to go come back where the target allows it.

        Args:
            ratios: Threshold at which each unit vanishes, ``[groups, widest]``; waits for the device.
            target: Share of the dense FLOPs that may be left.

        Returns:
            The choice.
        """
        order = self._order(ratios)
        enough = self._count_enough(order, target)
        gone = order[:enough]
        if self._swaps and enough and target - self._share_without(gone) > tolerance(target):
            gone = self._choose_instead(order, enough - 1, target) or gone
        gone = self._give_back(gone, target)
        if self._round_to > 1:
            gone = self._round_groups(order, gone, target)
        threshold = order[enough - 1][0] if enough else 0.0
        alive = torch.ones(ratios.shape, dtype=torch.bool)
        for _, row, column in gone:
            alive[row, column] = False
        return Landing(threshold, alive, self._share_without(gone))

    def _choose_instead(self, order: list[_Exit], sure: int, target: float) -> list[_Exit]:
        """Take the sure ones, then those that do not take too much; empty if that never meets the target."""
        gone = order[:sure]
        for candidate in order[sure:]:
            if self._share_without([*gone, candidate]) >= target - tolerance(target):
                gone.append(candidate)
                if self._share_without(gone) <= target:
                    return gone
        return []

    def _give_back(self, gone: list[_Exit], target: float) -> list[_Exit]:
        """Let units come back, the last first, as long as the target is met."""
        left, stay_away = self._list_left(gone), []
        for unit in reversed(gone):
            left[unit[1]] += 1
            if self._share(left) > target:
                left[unit[1]] -= 1
                stay_away.append(unit)
        return stay_away[::-1]

    def _round_groups(self, order: list[_Exit], gone: list[_Exit], target: float) -> list[_Exit]:
        """Bring every group down to a multiple; then let groups grow again, the strongest units first, if they may."""
        left = [
            max(least, round_down_width(count, group.channels, self._round_to))
            for count, group, least in zip(self._list_left(gone), self._groups, self._min_keep, strict=True)
        ]
        grown = True
        while grown:
            grown = False
            for row in dict.fromkeys(row for _, row, _ in reversed(order)):
                wider = round_up_width(left[row] + 1, self._groups[row].channels, self._round_to)
                if self._share([*left[:row], wider, *left[row + 1 :]]) <= target and wider > left[row]:
                    left[row], grown = wider, True
        going = [group.channels - count for group, count in zip(self._groups, left, strict=True)]
        chosen = []
        for unit in order:
            if going[unit[1]] > 0:
                going[unit[1]] -= 1
                chosen.append(unit)
        return chosen

    def _order(self, ratios: Tensor) -> list[_Exit]:
        """List the units that may go, in the order in which a growing threshold takes them; of equals the deepest."""
        exits: list[_Exit] = []
        for row, (group, keep, own) in enumerate(zip(self._groups, self._min_keep, ratios.tolist(), strict=True)):
            ranked = sorted((ratio, row, column) for column, ratio in enumerate(own[: group.channels]))
            exits += ranked[: max(0, group.channels - keep)]
        return sorted(exits, key=lambda unit: (unit[0], -unit[1], unit[2]))

    def _count_enough(self, order: list[_Exit], target: float) -> int:
        """How many of the first units must go to meet the target (all, if that is not enough)."""
        return min(len(order), bisect_left(range(len(order)), -target, key=lambda n: -self._share_without(order[:n])))

    def _share_without(self, gone: Sequence[_Exit]) -> float:
        return self._share(self._list_left(gone))

    def _list_left(self, gone: Sequence[_Exit]) -> list[int]:
        left = [group.channels for group in self._groups]
        for _, row, _ in gone:
            left[row] -= 1
        return left

    def _share(self, counts: Sequence[int]) -> float:
        kept = {group.name: count for group, count in zip(self._groups, counts, strict=True)}
        return self._cost.flops(kept) / self._cost.dense


_Exit = tuple[float, int, int]
"""When a unit vanishes (a threshold), and its row and column in the table."""
