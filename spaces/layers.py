"""What spaces see of a network: its groups of coupled channels, its residual blocks, and the widths that are allowed.

A *layer group* is a set of coupled channels that are removed together, in *units*.
"""

from __future__ import annotations

from dataclasses import dataclass

HIGHEST_RATIO = 0.98
"""No FLOPs target removes more than this share of a group: a tilt must not close a layer to open another."""


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Coupled channels that are pruned together, as a space sees them.

    Attributes:
        name: Name of the group, unique in the network.
        channels: How many units the group has, ``>= 1``.
        stage: The part of the network it belongs to (groups of one stage can share a ratio).
        depth: Where it lies between input (0.0) and output (1.0).
        energies: Share of the squared weights that each principal component of them holds, falling; empty where
            they were not looked at.
        damages: Width and damage of cutting the group alone to it, by ascending width up to the full one; empty where
            they were not measured.
    """

    name: str
    channels: int
    stage: str
    depth: float
    energies: tuple[float, ...] = ()
    damages: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"group {self.name!r} needs at least one channel, not {self.channels}")
        if not 0 <= self.depth <= 1:
            raise ValueError(f"depth of group {self.name!r} must be within 0 and 1, not {self.depth!r}")


@dataclass(frozen=True, slots=True)
class LayerBlock:
    """A residual block that can go as a whole, as a space sees it.

    Attributes:
        name: Name of the block, unlike that of any group.
        groups: Names of the channel groups that lie in it and go with it.
        stage: The part of the network it belongs to.
        damage: What the loss rises by without it.
    """

    name: str
    groups: tuple[str, ...]
    stage: str
    damage: float


def allowed_widths(group: LayerGroup, step: int) -> list[int]:
    """Return the widths that a group may have.

    Args:
        group: The group.
        step: What widths are multiples of.

    Returns:
        Ascending, none below what :data:`HIGHEST_RATIO` leaves, the last the full width.

    Example:
        >>> allowed_widths(LayerGroup("conv1", 12, "stem", 0.0), 5)
        [5, 10, 12]
    """
    least = round_down_width(group.channels * (1 - HIGHEST_RATIO), group.channels, step)
    widths = [least]
    while widths[-1] < group.channels:
        widths.append(round_up_width(widths[-1] + 1, group.channels, step))
    return widths


def round_down_width(width: float, channels: int, step: int) -> int:
    """Return the largest allowed width that is not above, or the smallest allowed one.

    Args:
        width: Units.
        channels: Units of the group, an allowed width.
        step: What allowed widths are multiples of.

    Returns:
        The width.

    Example:
        >>> round_down_width(15, 20, 8), round_down_width(20, 20, 8), round_down_width(3, 20, 8)
        (8, 20, 8)
    """
    if width >= channels or channels <= step:
        return channels
    return max(int(width) // step, 1) * step


def round_up_width(width: int, channels: int, step: int) -> int:
    """Return the smallest allowed width that is not below.

    Args:
        width: Units.
        channels: Units of the group, an allowed width.
        step: What allowed widths are multiples of.

    Returns:
        The width.

    Example:
        >>> round_up_width(9, 20, 8), round_up_width(17, 20, 8)
        (16, 20)
    """
    return min(channels, -(-width // step) * step)
