"""The scale on which fronts are measured: drop in quality against the logarithm of what a network costs.

On a linear scale from nothing to perfect, every network that works is worth nearly everything, and the hypervolume of
a good front hardly differs from that of a random one. Here the axes end where a user would end them: a network that
loses more than :data:`DROP` of its quality is worth nothing, and each halving of the cost is worth the same, down to
:data:`LEAST` of the dense network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from search.fronts.dominance import Array, find_non_dominated, hypervolume
from search.objectives import Objective
from search.records.outcome import DenseRow

DROP = 0.05
"""Loss of quality at which a network is worth nothing, as a share of the range from worst to ideal."""

LEAST = 0.05
"""Share of the dense cost from which on cheaper is not better any more."""


def scale_gain(objective: Objective, value: float, dense: DenseRow, drop: float = DROP, least: float = LEAST) -> float:
    """Place a value on the scale.

    Args:
        objective: What was measured.
        value: The measurement.
        dense: The dense network of the study.
        drop: Loss of quality that is worth 0.
        least: Share of the dense cost that is worth 1.

    Returns:
        For quality: 1 for the dense network's, 0 for a loss of ``drop``, above 1 for a gain. For a cost: 0 for the
        dense network's, 1 for the share ``least`` or below. Negative beyond the 0. A quality that the dense network
        does not have, such as a predicted damage, keeps the linear scale of the objective.

    Example:
        >>> from search.objectives import OBJECTIVES
        >>> dense = DenseRow.from_metrics(accuracy=0.98, flops=1000, params=10, seconds=1.0)
        >>> round(scale_gain(OBJECTIVES["accuracy"], 0.955, dense), 6)
        0.5
        >>> round(scale_gain(OBJECTIVES["flops"], 250, dense, least=0.0625), 6)
        0.5
    """
    reference = objective.reference(dense)
    if objective.quality:
        full = dense.metrics.get(objective.name)
        if full is None:
            return objective.gain(value, dense)
        # 1 - drop(value) / drop, the drop as a share of the range from worst to ideal
        return float(1 - (full - value) / (objective.ideal - reference) / drop)
    if objective.maximise or reference <= 0:
        return objective.gain(value, dense)
    # log(dense / value) / log(1 / least), cut off at 1
    return min(1.0, math.log(reference / max(value, least * reference)) / -math.log(least))


class GrowingFront:
    """The front of a sweep that grows trial by trial: what is dominated is forgotten at once.

    Args:
        objectives: What is searched for.
        dense: The dense network of the study.
        drop: Loss of quality that is worth 0.
        least: Share of the dense cost that is worth 1.
    """

    def __init__(
        self, objectives: Sequence[Objective], dense: DenseRow, drop: float = DROP, least: float = LEAST
    ) -> None:
        self._objectives = tuple(objectives)
        self._dense = dense
        self._drop = drop
        self._least = least
        axes = len(self._objectives)
        self._maximise = [objective.maximise for objective in self._objectives]
        self._values: Array = np.empty((0, axes))
        self._gains: Array = np.empty((0, axes))

    def add(self, metrics: Mapping[str, float]) -> None:
        """Take in a network.

        Args:
            metrics: Its measurements by name; every objective is among them.
        """
        values = [metrics[objective.name] for objective in self._objectives]
        gains = [
            scale_gain(objective, value, self._dense, self._drop, self._least)
            for objective, value in zip(self._objectives, values, strict=True)
        ]
        self._values = np.vstack([self._values, values])
        self._gains = np.vstack([self._gains, gains])
        best = find_non_dominated(self._values, self._maximise)
        self._values, self._gains = self._values[best], self._gains[best]

    @property
    def members(self) -> int:
        """How many networks no other one beats."""
        return len(self._values)

    def hypervolume(self) -> float:
        """Measure the volume that the front commands on the scale.

        Returns:
            The volume; 1 would be the dense network's quality at the least cost.
        """
        axes = len(self._objectives)
        return hypervolume(self._gains, [0.0] * axes, [True] * axes)
