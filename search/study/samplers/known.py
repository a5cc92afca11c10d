"""Costs of a space that is not about widths: a function tells them, so that the exact-cost sampler works anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.study.samplers.base import Floats, Limits, PointCost
from spaces import Value


@dataclass(frozen=True)
class KnownCosts:
    """A cheap objective that is known for every point before it is tried: a :class:`ManyCosts`.

    Give it to :func:`search.study.samplers.adapter.optuna_sampler` with ``partial(ExactCostSampler, costs=costs)``; the
    aim has it as an axis named ``flops``, in millionths of the whole. Limits of an aim are for points of methods alone.

    Attributes:
        cost: Tells what a point costs, in any unit, above 0; called for every candidate.
        whole: The cost that counts as 1.

    Example:
        >>> costs = KnownCosts(lambda method, point: float(point["units"]), whole=512.0)
        >>> costs.each("mlp", [{"units": 128}]).tolist()
        [0.25]
    """

    cost: Callable[[str, Mapping[str, Value]], float]
    whole: float

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
            Its cost, in millionths of the whole.
        """
        millionths = round(1e6 * self.cost(method, point) / self.whole)
        return PointCost(millionths, millionths)

    def target(self, method: str) -> str | None:
        """Name no parameter: none asks for a share of the cost.

        Args:
            method: Not used.

        Returns:
            ``None``.
        """
        return None

    def band(self, limits: Limits) -> tuple[float, float]:
        """Look everywhere.

        Args:
            limits: Not used.

        Returns:
            Least and largest share of the whole.
        """
        return 1e-6, 1.0

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

    def each(self, method: str, points: Sequence[Mapping[str, Value]]) -> Floats:
        """Cost points.

        Args:
            method: Name of the method.
            points: Its parameters.

        Returns:
            Share of the whole, ``[points]``.
        """
        return np.array([self.cost(method, point) for point in points], dtype=np.float64) / self.whole
