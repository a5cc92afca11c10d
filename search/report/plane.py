"""What a picture of a front shows: quality against one cost, whatever draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.fronts.dominance import find_non_dominated
from search.fronts.front import Front, Member
from search.objectives import OBJECTIVES, Objective
from search.report.axis import Axis, cost_axis, quality_axis


@dataclass(frozen=True)
class Dot:
    """One network in the picture.

    Attributes:
        member: The network.
        x: Position on the horizontal axis.
        y: Position on the vertical axis.
        ties: Trials that reach exactly the same, drawn with it.
    """

    member: Member
    x: float
    y: float
    ties: tuple[Member, ...] = ()

    @property
    def label(self) -> str:
        """The number of the trial, and of those that tie with it."""
        return " = ".join(str(each.trial) for each in (self.member, *self.ties))


@dataclass(frozen=True)
class Plane:
    """One objective against another.

    Attributes:
        across: The horizontal axis.
        up: The vertical axis.
        front: Members of the front, from left to right.
        dominated: The other trials, those that tie with a member left out.
        stairs: Corners of the boundary between what is reached and what is not, from left to right.
        dense: Position of the dense network; either may be missing.
        third: What the colour tells; ``None`` where it tells the method.
    """

    across: Axis
    up: Axis
    front: tuple[Dot, ...]
    dominated: tuple[Dot, ...]
    stairs: tuple[Dot, ...]
    dense: tuple[float | None, float | None]
    third: Objective | None = None

    @property
    def dots(self) -> tuple[Dot, ...]:
        """All networks but the dense one."""
        return self.front + self.dominated

    @property
    def below(self) -> tuple[Dot, ...]:
        """The dominated networks that are too poor to be in the picture."""
        return tuple(dot for dot in self.dots if dot.y < self.up.low)

    @property
    def told_below(self) -> str:
        """How many networks are not in the picture, in words; empty if there are none."""
        if not self.below:
            return ""
        trials = "1 trial" if len(self.below) == 1 else f"{len(self.below)} trials"
        write = self.up.objective.format
        worst = min(self.below, key=lambda dot: dot.y).member.metrics[self.up.objective.name]
        return f"{trials} below {write(self.up.value(self.up.low))}, down to {write(worst)}"

    @property
    def dense_text(self) -> str:
        """The quality of the dense network, in words."""
        return "" if self.up.whole is None else f"dense {self.up.objective.format(self.up.whole)}"

    def shade(self, member: Member) -> float:
        """Say where a network stands in the third objective.

        Args:
            member: A network.

        Returns:
            0 for the best of all networks in the picture, 1 for the worst.
        """
        if self.third is None:
            return 0.0
        values = [dot.member.metrics[self.third.name] for dot in self.dots]
        best, worst = (max(values), min(values)) if self.third.maximise else (min(values), max(values))
        return 0.0 if best == worst else (member.metrics[self.third.name] - best) / (worst - best)


def planes(front: Front) -> tuple[Plane, ...]:
    """Decide what the pictures of a front show.

    Args:
        front: The front.

    Returns:
        Of two objectives one plane. Of three the quality against the first cost with the other one as colour, then the
        two other pairs. Of more the quality against each other objective. Quality against FLOPs for a single objective.
    """
    others = [objective for objective in front.objectives if objective != front.quality] or [OBJECTIVES["flops"]]
    if len(others) != 2:
        return tuple(plane(front, other) for other in others)
    first, second = others
    return plane(front, first, third=second), plane(front, second), plane(front, first, second)


def plane(
    front: Front, cost: Objective | None = None, quality: Objective | None = None, third: Objective | None = None
) -> Plane:
    """Decide what a picture of a front shows.

    With more than two objectives the stairs join only those members that no other one beats in this plane.

    Args:
        front: The front.
        cost: The horizontal axis; by default what the front's cost is.
        quality: The vertical axis; by default what the front's quality is.
        third: What the colour tells; the method by default.

    Returns:
        The picture's content.
    """
    cost, quality = cost or front.cost, quality or front.quality
    tied = {tie.trial for member in front.members for tie in front.ties(member)}
    others = [member for member in front.dominated if member.trial not in tied]

    def values(members: Sequence[Member], objective: Objective) -> list[float]:
        return [member.metrics[objective.name] for member in members]

    across = cost_axis(cost, front.dense_value(cost), values([*front.members, *others], cost))
    whole, best, rest = front.dense_value(quality), values(front.members, quality), values(others, quality)
    upright = cost_axis(quality, whole, [*best, *rest], vertical=True)
    up = upright if quality.relative else quality_axis(quality, whole, best, rest)

    def dot(member: Member) -> Dot:
        place = across.place(member.metrics[cost.name]), up.place(member.metrics[quality.name])
        return Dot(member, *place, front.ties(member))

    on_front = tuple(sorted(map(dot, front.members), key=lambda each: each.x))
    corners = find_non_dominated([[each.x, each.y] for each in on_front], [False, True])
    return Plane(
        across=across,
        up=up,
        front=on_front,
        dominated=tuple(sorted(map(dot, others), key=lambda each: each.x)),
        stairs=tuple(each for each, corner in zip(on_front, corners, strict=True) if corner),
        dense=(_place_dense(across), _place_dense(up)),
        third=third,
    )


def _place_dense(axis: Axis) -> float | None:
    """Position of the dense network on an axis, where it has one."""
    if axis.whole is None or (axis.kind == "log" and axis.whole <= 0):
        return None
    return axis.place(axis.whole)
