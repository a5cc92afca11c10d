"""One axis of a picture: where a value stands, what is written beside it, and from where to where it goes.

A vertical axis has the better values above, a horizontal one to the left: a front then always runs from the lower left
to the upper right, and nothing lies above and to the left of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from search.objectives import Objective

LEAST_WINDOW = 3.0
"""Percentage points that a vertical axis of shares shows at least."""
LOG_BELOW = 0.10
"""Share of the dense cost below which the axis becomes logarithmic."""


@dataclass(frozen=True)
class Axis:
    """An axis; positions on it are even, whatever the scale.

    Attributes:
        objective: What it shows.
        whole: The value of the dense network; ``None`` where there is none.
        relative: Whether values are told as shares of the dense network's.
        kind: ``"linear"``; ``"log"``: decades of the value; ``"loss"``: decades of what is missing to the ideal.
        low: Position of its lower or left end.
        high: Position of its upper or right end.
        vertical: Whether it stands upright: better is up. Else better is left.
        offset: With ``"loss"``: added before the logarithm, above 0 where a value is ideal.
    """

    objective: Objective
    whole: float | None
    relative: bool
    kind: Literal["linear", "log", "loss"]
    low: float
    high: float
    vertical: bool
    offset: float = 0.0

    @property
    def _sign(self) -> float:
        """Turns what grows with the value (or with the loss) into what grows with the position."""
        larger_is_better = self.objective.maximise and self.kind != "loss"
        return 1.0 if larger_is_better == self.vertical else -1.0

    @property
    def _unit(self) -> float:
        return 100.0 if self.objective.style.endswith("%") and not self.relative else 1.0

    def place(self, value: float) -> float:
        """Find where a value stands.

        Args:
            value: A value of the objective.

        Returns:
            Its position: the value itself (the share of the dense network's, percent) on a linear axis of which better
            is where larger is, and monotonic in it on all others.
        """
        told = value / self.whole if self.relative and self.whole else self._unit * value
        if self.kind == "log":
            told = math.log10(told)
        elif self.kind == "loss":
            told = math.log10(abs(self._unit * self.objective.ideal - told) + self.offset)
        return self._sign * told

    def value(self, position: float) -> float:
        """Find the value at a position; the inverse of :meth:`place`.

        Args:
            position: A position.

        Returns:
            The value of the objective.
        """
        told = self._sign * position
        if self.kind == "log":
            told = 10**told
        elif self.kind == "loss":
            loss = 10**told - self.offset
            ideal = self._unit * self.objective.ideal
            told = ideal - loss if self.objective.maximise else ideal + loss
        return told * self.whole if self.relative and self.whole else told / self._unit

    @property
    def title(self) -> str:
        """What it shows, in words."""
        turned = ", less is above" if self.vertical and not self.objective.maximise else ""
        if self.relative:
            return f"{self.objective.title}, share of the dense network{turned}"
        told = (
            not self.objective.unit or self.objective.style.endswith("%") or self.objective.unit == self.objective.title
        )
        return f"{self.objective.title}{'' if told else f' ({self.objective.unit})'}{turned}"

    def ticks(self, most: int = 8) -> list[tuple[float, str]]:
        """Choose round values.

        Args:
            most: About how many at most.

        Returns:
            Position and text of each, ascending by position.
        """
        scale = (self.whole or 1.0) / 100 if self.relative else 1 / self._unit
        rounds = [told * scale for told in self._rounds(scale, most)]
        digits = max((_digits(value / scale) for value in rounds), default=0)
        found = []
        for value in rounds:
            if self.relative or self.objective.style.endswith("%"):
                text = f"{value / scale:.{digits if self.kind == 'linear' else _digits(value / scale)}f} %"
            else:
                text = _write_round(self.objective, value)
            found.append((self.place(value), text))
        return sorted(found)

    def absolute_ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """Choose round values of the objective itself, for a second scale beside shares.

        Args:
            most: About how many at most.

        Returns:
            Position and text of each; none where values are not told as shares.
        """
        if not self.relative:
            return []
        found = [(self.place(value), _write_round(self.objective, value)) for value in self._rounds(1.0, most)]
        return sorted(found)

    def _rounds(self, scale: float, most: int) -> list[float]:
        """Round numbers between the ends of the axis, in units of which ``scale`` makes values."""
        low, high = sorted((self.value(self.low) / scale, self.value(self.high) / scale))
        if self.kind == "linear":
            return choose_even_ticks(low, high, most)
        if self.kind == "log":
            return _decades(low, high, most)
        ideal = self.objective.ideal / scale
        losses = sorted((abs(ideal - low), abs(ideal - high)))
        sign = -1.0 if self.objective.maximise else 1.0
        return [ideal + sign * loss for loss in _decades(max(losses[0], losses[1] * 1e-6), losses[1], most)]


def choose_even_ticks(low: float, high: float, most: int) -> list[float]:
    """Choose multiples of a round step between two numbers.

    Args:
        low: The lower end.
        high: The upper end.
        most: About how many at most.

    Returns:
        The numbers, ascending.

    Example:
        >>> choose_even_ticks(0, 1, 5)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high <= low:
        return [low]
    rough = (high - low) / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(step * n, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float, most: int) -> list[float]:
    """Numbers 1, 2 and 5 of every decade, or fewer where there are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**power for power in powers for factor in factors]
        found = [number for number in found if low * (1 - 1e-9) <= number <= high * (1 + 1e-9)]
        if len(found) <= most:
            break
    return found[:: math.ceil(len(found) / most)] if found else [low]


def _digits(number: float) -> int:
    return len(f"{number:.6g}".partition(".")[2]) if abs(number) < 1e6 and "e" not in f"{number:.6g}" else 0


def _write_round(objective: Objective, value: float) -> str:
    """Write a round value: ``1 M`` and not ``1.00 M``."""
    number, space, unit = objective.format(value).partition(" ")
    try:
        return f"{float(number):g}{space}{unit}"
    except ValueError:
        return f"{number}{space}{unit}"


def cost_axis(objective: Objective, whole: float | None, values: Sequence[float], vertical: bool = False) -> Axis:
    """Choose an axis on which all networks are.

    Args:
        objective: What it shows.
        whole: The value of the dense network, if there is one.
        values: Values of all networks in the picture.
        vertical: Whether it stands upright: better is up. Else better is left.

    Returns:
        The axis: shares of the dense network where that has a value and the objective is a cost; logarithmic where
        values reach from large to small.
    """
    relative = objective.relative and bool(whole)
    scale = whole if relative and whole else 1.0
    told = [value / scale for value in values]
    most = max([1.0, *told] if relative else told, default=1.0)
    kind: Literal["linear", "log"] = "linear"
    if not objective.maximise and told and 0 < min(told) < LOG_BELOW * most:
        kind = "log"
    axis = Axis(objective, whole, relative, kind, 0.0, 1.0, vertical)
    if kind == "log":
        least = 0.8 * min(told)
        ends = sorted(axis.place(scale * end) for end in (least, most * (most / least) ** 0.06))
    elif relative:
        ends = sorted(axis.place(scale * end) for end in (0.0, 1.06 * most))
    else:
        places = sorted(axis.place(value) for value in values) or [0.0, 1.0]
        margin = 0.06 * (places[-1] - places[0]) or 0.1 * abs(places[0]) or 1.0
        ends = [places[0] - margin, places[-1] + margin]
    return _limit_axis(axis, ends[0], ends[1])


def quality_axis(objective: Objective, whole: float | None, front: Sequence[float], others: Sequence[float]) -> Axis:
    """Choose a vertical axis: better is up, and every member of the front is on it.

    One collapsed network on the front would squash the others; then the axis shows decades of what is missing to the
    ideal. Dominated networks may lie below it.

    Args:
        objective: What it shows.
        whole: The value of the dense network, if there is one.
        front: Values of the front.
        others: Values of the dominated trials.

    Returns:
        The axis.
    """
    linear = Axis(objective, whole, relative=False, kind="linear", low=0.0, high=1.0, vertical=True)
    heights = [linear.place(value) for value in front]
    every = heights + [linear.place(value) for value in others]
    dense = linear.place(whole) if whole is not None else max(every, default=0.0)
    drops = [max(0.0, dense - height) for height in heights]
    least = LEAST_WINDOW if objective.style.endswith("%") else 0.0
    reach = max(least, 5 * median(drops) if drops else 0.0)
    if drops and max(drops) > reach > 0 and (axis := _loss_axis(objective, whole, [*front, *others])) is not None:
        return axis
    depth = max([least, *drops, *(dense - height for height in every if dense - height <= reach)])
    depth = depth or 0.1 * abs(dense) or 1.0
    top = max([dense, *every])
    margin = 0.1 * (top - dense + depth)
    return _limit_axis(linear, dense - depth - margin, top + margin)


def _loss_axis(objective: Objective, whole: float | None, values: Sequence[float]) -> Axis | None:
    """An axis of decades of the loss; ``None`` where a value is beyond the ideal."""
    known = [*values, *([] if whole is None else [whole])]
    losses = [objective.ideal - value if objective.maximise else value - objective.ideal for value in known]
    if min(losses) < 0 or max(losses) == 0:
        return None
    unit = 100.0 if objective.style.endswith("%") else 1.0
    positive = [unit * loss for loss in losses if loss > 0]
    # A loss of 0 stands half a decade below the least that is there.
    offset = 0.3 * min(positive) if min(losses) == 0 else 0.0
    axis = Axis(objective, whole, False, "loss", 0.0, 1.0, vertical=True, offset=offset)
    places = [axis.place(value) for value in known]
    margin = 0.07 * (max(places) - min(places)) or 0.1
    return _limit_axis(axis, min(places) - margin, max(places) + margin)


def _limit_axis(axis: Axis, low: float, high: float) -> Axis:
    return Axis(axis.objective, axis.whole, axis.relative, axis.kind, low, high, axis.vertical, axis.offset)
