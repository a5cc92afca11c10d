"""The time law of IncReg: how long layers take to lose their units, and how fast penalties have to change for it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from methods.ranked.ranking import Increment, updates_to_finish
from spaces import LayerGroup

_BISECTIONS = 14
"""Halvings of the logarithm of a step; they end within a thousandth of it."""


@dataclass(frozen=True)
class Plan:
    """How the time before the cut is used.

    Attributes:
        penalty_step: Largest change of a penalty per update, in units of weight decay.
        update_interval: Optimiser steps between updates.
        prune_steps: Optimiser steps in which removals happen.
        stabilize_steps: Optimiser steps after them.
    """

    penalty_step: float
    update_interval: int
    prune_steps: int
    stabilize_steps: int


class Pace:
    """Counts the updates that layers take under a stable ranking; their widths do not matter.

    Args:
        penalty_max: Penalty at which a unit is removed.
        increment: Change of a penalty by rank.
        layers: What is pruned.
        to_remove: Units to be removed from each layer; not all zero.
        rates: What the step of the penalties is multiplied with in each layer.
    """

    def __init__(
        self,
        penalty_max: float,
        increment: Increment,
        layers: Sequence[LayerGroup],
        to_remove: Sequence[int],
        rates: Sequence[float],
    ) -> None:
        self.penalty_max, self._increment = penalty_max, increment
        # Time depends on the number to be removed and the rate: of each rate one layer is the slowest.
        by_number = sorted(zip(to_remove, rates, layers, strict=True), key=lambda entry: entry[0])
        self._slow = {rate: (number, layer) for number, rate, layer in by_number if number}

    @property
    def fastest(self) -> float:
        """The step that carries a penalty to the ceiling in one update, in the layers of the lowest rate."""
        return self.penalty_max / min(self._slow)

    def updates(self, step: float) -> int:
        """Count the updates until all layers are done.

        Args:
            step: Largest change of a penalty per update.

        Returns:
            The number of updates.
        """
        return max(self._updates(step * rate, number) for rate, (number, _) in self._slow.items())

    def step_for(self, updates: int) -> float:
        """Find how fast penalties have to change.

        Args:
            updates: Updates there are; at least those that :attr:`fastest` takes.

        Returns:
            The smallest step found with which all layers are done in time.
        """
        # No penalty is at the ceiling sooner than this.
        low, high = self.penalty_max / (max(self._slow) * updates), self.fastest
        for _ in range(_BISECTIONS):
            middle = sqrt(low * high)
            if self._is_in_time(middle, updates):
                high = middle
            else:
                low = middle
        return high

    def _is_in_time(self, step: float, updates: int) -> bool:
        return all(self._updates(step * rate, number) <= updates for rate, (number, _) in self._slow.items())

    def measure_shortfall(self, step: float, updates: int) -> tuple[int, int, LayerGroup]:
        """Say how far the slowest layer gets when there is too little time.

        Args:
            step: Largest change of a penalty per update.
            updates: Updates there are; too few for all layers to be done.

        Returns:
            Units that it loses, units that it was to lose, and the layer.
        """
        rate, (number, layer) = max(self._slow.items(), key=lambda item: self._updates(step * item[0], item[1][0]))
        reached = bisect_right(range(1, number), updates, key=lambda fewer: self._updates(step * rate, fewer))
        return reached, number, layer

    def _updates(self, step: float, number: int) -> int:
        return updates_to_finish(self.penalty_max / step, number, 2 * number, self._increment)
