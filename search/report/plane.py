"""What a picture of a front shows: accuracy against one cost, whatever draws it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from search.fronts.dominance import Array, non_dominated
from search.objectives import OBJECTIVES, Objective

if TYPE_CHECKING:
    from search.fronts.front import Front, Member

LEAST_WINDOW = 3.0
"""Percentage points of accuracy that a picture shows at least."""
LOG_BELOW = 0.10
"""Share of the dense cost below which the axis becomes logarithmic."""


@dataclass(frozen=True)
class Dot:
    """One network in the picture.

    Attributes:
        member: The network.
        x: Share of the dense network's cost.
        y: Accuracy in percent.
    """

    member: Member
    x: float
    y: float


@dataclass(frozen=True)
class Plane:
    """Accuracy against one cost.

    Attributes:
        cost: The objective on the horizontal axis.
        dense_cost: Cost of the dense network.
        dense_accuracy: Its accuracy in percent.
        front: Members of the front, by ascending cost.
        dominated: The other trials.
        stairs: Corners of the boundary between what is reached and what is not, by ascending cost.
        low: Accuracy in percent at which the picture ends below.
        high: Accuracy in percent at which it ends above.
        logarithmic: Whether the cost is shown on a logarithmic axis.
    """

    cost: Objective
    dense_cost: float
    dense_accuracy: float
    front: tuple[Dot, ...]
    dominated: tuple[Dot, ...]
    stairs: tuple[Dot, ...]
    low: float
    high: float
    logarithmic: bool

    @property
    def name(self) -> str:
        """The cost in a word or two, for the axis."""
        return self.cost.title

    def cost_of(self, shares: ArrayLike) -> Array:
        """Turn shares of the dense cost into costs.

        Args:
            shares: The shares, of any shape.

        Returns:
            The costs, of the same shape.
        """
        return np.asarray(shares, dtype=np.float64) * self.dense_cost

    def share_of(self, costs: ArrayLike) -> Array:
        """Turn costs into shares of the dense cost.

        Args:
            costs: The costs, of any shape.

        Returns:
            The shares, of the same shape.
        """
        return np.asarray(costs, dtype=np.float64) / self.dense_cost

    def tick(self, cost: float) -> str:
        """Write a round cost for an axis.

        Args:
            cost: The cost.

        Returns:
            The text, ``"1 M"`` and not ``"1.00 M"``.
        """
        number, space, unit = self.cost.format(cost).partition(" ")
        return f"{float(number):g}{space}{unit}"

    @property
    def dots(self) -> tuple[Dot, ...]:
        """All networks but the dense one."""
        return self.front + self.dominated

    @property
    def below(self) -> tuple[Dot, ...]:
        """The networks that are too inaccurate to be in the picture."""
        return tuple(dot for dot in self.dots if dot.y < self.low)

    @property
    def told_below(self) -> str:
        """How many networks are not in the picture, in words; empty if there are none."""
        if not self.below:
            return ""
        trials = "1 trial" if len(self.below) == 1 else f"{len(self.below)} trials"
        return f"{trials} below {self.low:.1f} %, down to {min(dot.y for dot in self.below):.1f} %"

    @property
    def left(self) -> float:
        """Share of the dense cost at which the picture begins."""
        return 0.8 * min(dot.x for dot in self.dots) if self.logarithmic else 0.0

    @property
    def right(self) -> float:
        """Share of the dense cost at which the picture ends."""
        most = max([1.0, *(dot.x for dot in self.dots)])
        return most * (most / self.left) ** 0.06 if self.logarithmic else 1.06 * most


def planes(front: Front) -> tuple[Plane, ...]:
    """Decide what the pictures of a front show: accuracy against every objective that is a cost.

    Args:
        front: The front.

    Returns:
        One plane per cost, in the order of the objectives; accuracy against FLOPs if there is none.
    """
    costs = [objective for objective in front.objectives if not objective.quality] or [OBJECTIVES["flops"]]
    return tuple(plane(front, cost) for cost in costs)


def plane(front: Front, cost: Objective | None = None) -> Plane:
    """Decide what a picture of a front shows.

    With more than two objectives the stairs join only those members that no other one beats in this plane.

    Args:
        front: The front.
        cost: The horizontal axis; by default the first objective that is a cost (FLOPs if there is none).

    Returns:
        The picture's content.
    """
    if cost is None:
        cost = next((objective for objective in front.objectives if not objective.quality), OBJECTIVES["flops"])
    dense_cost = cost.reference(front.dense)

    def dots(members: tuple[Member, ...]) -> tuple[Dot, ...]:
        found = (Dot(each, each.metrics[cost.name] / dense_cost, 100 * each.accuracy) for each in members)
        return tuple(sorted(found, key=lambda dot: dot.x))

    on_front, dominated = dots(front.members), dots(front.dominated)
    best = non_dominated([[dot.x, dot.y] for dot in on_front], [False, True])
    accuracy = 100 * front.dense.accuracy
    low, high = _window(accuracy, [dot.y for dot in on_front], [dot.y for dot in on_front + dominated])
    return Plane(
        cost=cost,
        dense_cost=dense_cost,
        dense_accuracy=accuracy,
        front=on_front,
        dominated=dominated,
        stairs=tuple(dot for dot, corner in zip(on_front, best, strict=True) if corner),
        low=low,
        high=high,
        logarithmic=_spread(on_front + dominated),
    )


def _spread(dots: tuple[Dot, ...]) -> bool:
    """Return whether the costs reach from large to so small that only a logarithmic axis shows them all."""
    return any(dot.x < LOG_BELOW for dot in dots) and all(dot.x > 0 for dot in dots)


def _window(dense: float, front: list[float], everything: list[float]) -> tuple[float, float]:
    """Choose which accuracies are shown, so that a collapsed network does not squash the others.

    Args:
        dense: Accuracy of the dense network, in percent.
        front: Accuracies of the front, in percent.
        everything: Accuracies of all trials, in percent.

    Returns:
        The lowest and the highest accuracy in the picture, in percent.
    """
    drops = [max(0.0, dense - accuracy) for accuracy in front]
    reach = max(LEAST_WINDOW, 5 * median(drops) if drops else 0.0)
    depth = max([LEAST_WINDOW, *(dense - accuracy for accuracy in everything if dense - accuracy <= reach)])
    top = max([dense, *everything])
    margin = 0.1 * (top - dense + depth)
    return dense - depth - margin, top + margin
