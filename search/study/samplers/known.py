"""Costs of a space that is not about widths: a function tells them, so that the exact-cost sampler works anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.study.samplers.base import Floats, Limits, PointCost
from spaces import Value

LEAST = 0.05
"""What the least cost counts as: the usual ``least`` of an aim."""


@dataclass(frozen=True)
class KnownCosts:
    """A cheap objective that is known for every point before it is tried: a :class:`ManyCosts`.

    Give it to :func:`search.study.samplers.adapter.optuna_sampler` with ``partial(ExactCostSampler, costs=costs)``; the
    aim has it as an axis named ``flops``, of which trials are told what calling this object gives. Limits of an aim are
    for points of methods alone.

    The sampler thinks in octaves and expects the range of FLOPs of a pruning search, 1 to 1/20. Costs are put on that
    range by their logarithm, whatever their own range is.

    Attributes:
        cost: Tells what a point costs, in any unit, above 0; called for every candidate.
        least: The least cost, which counts as :data:`LEAST`.
        whole: The largest cost, which counts as 1.

    Example:
        >>> costs = KnownCosts(lambda method, point: float(point["units"]), least=2.0, whole=512.0)
        >>> costs.cost_each("mlp", [{"units": 2}, {"units": 32}, {"units": 512}]).round(3).tolist()
        [0.05, 0.224, 1.0]
    """

    cost: Callable[[str, Mapping[str, Value]], float]
    least: float
    whole: float

    def share(self, cost: float) -> float:
        """Put a cost on the sampler's range.

        Args:
            cost: The cost, in its own unit.

        Returns:
            :data:`LEAST` for the least cost and 1 for the largest one, evenly in its logarithm.
        """
        return float(LEAST ** (math.log(self.whole / cost) / math.log(self.whole / self.least)))

    @property
    def dense(self) -> PointCost:
        """The cost that counts as 1, in millionths of itself."""
        return PointCost(1_000_000, 1_000_000)

    @property
    def names(self) -> Sequence[str]:
        """No channel groups."""
        return ()

    def __call__(self, method: str, point: Mapping[str, Value]) -> PointCost:
        """Cost a point.

        Args:
            method: Name of the method.
            point: Its parameters.

        Returns:
            Its cost on the sampler's range, in millionths of the whole.
        """
        millionths = round(1e6 * self.share(self.cost(method, point)))
        return PointCost(millionths, millionths)

    def target(self, method: str) -> str | None:
        """Name no parameter: none asks for a share of the cost.

        Args:
            method: Not used.

        Returns:
            ``None``.
        """
        return None

    def find_band(self, limits: Limits) -> tuple[float, float]:
        """Look everywhere.

        Args:
            limits: Not used.

        Returns:
            Least and largest share of the whole.
        """
        return LEAST, 1.0

    def ratios(self, mode: str, columns: Mapping[str, Floats], target: str | None) -> Floats | None:
        """Know no ratios.

        Args:
            mode: Not used.
            columns: Not used.
            target: Not used.

        Returns:
            ``None``.
        """
        return None

    def shares(self, ratios: Floats) -> Floats:
        """Cost no ratios, for there are none.

        Args:
            ratios: Share of the units that is removed, ``[candidates, 0]``.

        Returns:
            Ones, ``[candidates, 2]``.
        """
        return np.ones((len(ratios), 2))

    def cost_each(self, method: str, points: Sequence[Mapping[str, Value]]) -> Floats:
        """Cost points.

        Args:
            method: Name of the method.
            points: Its parameters.

        Returns:
            Share of the whole on the sampler's range, ``[points]``.
        """
        return np.array([self.share(self.cost(method, point)) for point in points], dtype=np.float64)
