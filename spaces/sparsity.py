"""How much of each layer is removed: one ratio, one per stage, one per layer, or a target for the FLOPs.

A *layer group* is a set of coupled channels that are removed together, in *units*. An allocation
(:data:`Sparsity`) says how many units of each group are kept; all methods whose sparsity is an input share
these five, and :func:`sparsity_space` is their search space.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from spaces.errors import InputError, unknown_name
from spaces.parameters import Categorical, Parameter, Real
from spaces.space import Condition, Space

Cost = Callable[[Mapping[str, int]], float]
"""FLOPs of the network with these kept units per group; must not fall when a group gets wider."""

HIGHEST_RATIO = 0.98
"""No FLOPs target removes more than this share of a group: a tilt must not close a layer to open another."""

_BISECTIONS = 48  # halves the range of ratios (at most 3) to 1e-14, far below one unit of any layer


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Coupled channels that are pruned together, as a space sees them.

    Attributes:
        name: Name of the group, unique in the network.
        channels: How many units the group has, ``>= 1``.
        stage: The part of the network it belongs to (groups of one stage can share a ratio).
        depth: Where it lies between input (0.0) and output (1.0).
        energies: Share of the squared weights that each principal component of them holds, falling; empty where
            nobody looked.
    """

    name: str
    channels: int
    stage: str
    depth: float
    energies: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"group {self.name!r} needs at least one channel, not {self.channels}")
        if not 0 <= self.depth <= 1:
            raise ValueError(f"depth of group {self.name!r} must be within 0 and 1, not {self.depth!r}")


class Allocation(BaseModel, ABC):
    """How many units of each group are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @abstractmethod
    def keep(self, groups: Sequence[LayerGroup], cost: Cost, round_to: int = 1) -> dict[str, int]:
        """Return how many units of each group are kept.

        Args:
            groups: The prunable groups, in order of depth, no two of one name.
            cost: FLOPs of a choice of widths.
            round_to: Widths are multiples of this (or the full width, multiple or not).

        Returns:
            Kept units by name of group: at least 1 (at least ``round_to``, where the group has that many) and
            at most all.
        """


Ratio = Annotated[float, Field(ge=0, lt=1)]
"""Share of the units of a group that is removed."""


class Uniform(Allocation):
    """The same ratio for every group.

    Attributes:
        ratio: Share of the units that is removed.

    Example:
        >>> Uniform(ratio=0.5).keep([LayerGroup("conv1", 15, "stem", 0.0)], cost=len)
        {'conv1': 7}
    """

    mode: Literal["uniform"] = "uniform"
    ratio: Ratio

    def keep(self, groups: Sequence[LayerGroup], cost: Cost, round_to: int = 1) -> dict[str, int]:
        """Return how many units of each group are kept.

        Args:
            groups: The prunable groups.
            cost: Not used.
            round_to: Widths are multiples of this (or the full width).

        Returns:
            Kept units by name of group.
        """
        return {group.name: _rounded_width(group, self.ratio, round_to) for group in groups}


class PerStage(Allocation):
    """One ratio per stage.

    Attributes:
        stages: Share of the units that is removed, by stage; every stage is named.
    """

    mode: Literal["stage"] = "stage"
    stages: dict[str, Ratio]

    def keep(self, groups: Sequence[LayerGroup], cost: Cost, round_to: int = 1) -> dict[str, int]:
        """Return how many units of each group are kept.

        Args:
            groups: The prunable groups.
            cost: Not used.
            round_to: Widths are multiples of this (or the full width).

        Returns:
            Kept units by name of group. A stage that is missing or unknown is an ``InputError``.
        """
        _check_names("stage", self.stages, [group.stage for group in groups])
        return {group.name: _rounded_width(group, self.stages[group.stage], round_to) for group in groups}


class PerLayer(Allocation):
    """One ratio per group.

    Attributes:
        layers: Share of the units that is removed, by name of group; every group is named.
    """

    mode: Literal["layer"] = "layer"
    layers: dict[str, Ratio]

    def keep(self, groups: Sequence[LayerGroup], cost: Cost, round_to: int = 1) -> dict[str, int]:
        """Return how many units of each group are kept.

        Args:
            groups: The prunable groups.
            cost: Not used.
            round_to: Widths are multiples of this (or the full width).

        Returns:
            Kept units by name of group. A group that is missing or unknown is an ``InputError``.
        """
        _check_names("layer", self.layers, [group.name for group in groups])
        return {group.name: _rounded_width(group, self.layers[group.name], round_to) for group in groups}


class ByEnergy(Allocation):
    """Ratios by redundancy: a group keeps as large a share of its units as its weights need principal components.

    Layers whose filters resemble each other lose more. The rule of the papers on SPP and IncReg as far as it is
    known, which chose ratios by the principal components of each layer.

    Attributes:
        energy: Share of the squared weights that the components must hold.

    Example:
        >>> halved = LayerGroup("conv1", 16, "stem", 0.0, energies=(0.6, 0.3, 0.05, 0.05))
        >>> ByEnergy(energy=0.8).keep([halved], cost=len)
        {'conv1': 8}
    """

    mode: Literal["energy"] = "energy"
    energy: float = Field(gt=0, le=1)

    def keep(self, groups: Sequence[LayerGroup], cost: Cost, round_to: int = 1) -> dict[str, int]:
        """Return how many units of each group are kept.

        Args:
            groups: The prunable groups, with ``energies``.
            cost: Not used.
            round_to: Widths are multiples of this (or the full width).

        Returns:
            Kept units by name of group.
        """
        return {group.name: _rounded_width(group, self.ratio(group), round_to) for group in groups}

    def ratio(self, group: LayerGroup) -> float:
        """Return the share of the units that is removed: ``1 - rank / number of components``.

        Args:
            group: A group with ``energies``.

        Returns:
            The ratio, below 1.

        Raises:
            InputError: If nobody looked at the weights.
        """
        if not group.energies:
            raise InputError("sparsity.mode = 'energy' needs the weights, which this method does not look at for that")
        held = accumulate(group.energies)
        rank = next((k for k, sum_ in enumerate(held, 1) if sum_ >= self.energy - 1e-9), len(group.energies))
        return 1 - rank / len(group.energies)


class FlopsTarget(Allocation):
    """Ratios that meet a FLOPs target to within one unit.

    The ratio of a group is ``base + tilt * (depth - 0.5)``, within 0 and :data:`HIGHEST_RATIO`, with one
    ``base`` for all groups. A larger base makes no group wider, so the cost never rises with it, and the
    smallest base whose widths (rounded down) meet the target is found by bisection. Then groups are rounded
    up instead, those that lost most first, where the target allows it. So the target is never exceeded, and
    every group is within one step of its ratio. For a cost in which the price of a unit does not fall when
    another group gets wider (as in convolutions, whose FLOPs are products of widths), what is left of the
    target is less than the price of one more step.

    Attributes:
        flops: Share of the FLOPs of the whole dense network that is left.
        tilt: How much larger the ratio is at the output than at the input; positive prunes deep groups more.
    """

    mode: Literal["flops"] = "flops"
    flops: float = Field(gt=0, le=1)
    tilt: float = Field(default=0.0, ge=-1, le=1)

    def keep(self, groups: Sequence[LayerGroup], cost: Cost, round_to: int = 1) -> dict[str, int]:
        """Return how many units of each group are kept.

        Args:
            groups: The prunable groups, no two of one name.
            cost: FLOPs of a choice of widths; must not fall when a group gets wider.
            round_to: Widths are multiples of this (or the full width).

        Returns:
            Kept units by name of group; their cost is at most the target.

        Raises:
            InputError: If even the narrowest network costs more than the target; says what can be reached.
        """
        dense = {group.name: group.channels for group in groups}
        dense_cost = cost(dense)
        target = self.flops * dense_cost
        if dense_cost <= target:
            return dense
        # At these two bases every group has ratio 0, and every group the highest one.
        wide, narrow = -abs(self.tilt) / 2, HIGHEST_RATIO + abs(self.tilt) / 2
        least = cost(self._widths(groups, narrow, round_to))
        if least > target:
            # Upwards, so that what is printed can be asked for (once more where the product is rounded down).
            thousandths = math.ceil(1000 * least / dense_cost)
            smallest = next(n / 1000 for n in count(thousandths) if n / 1000 * dense_cost >= least)
            raise InputError(
                f"flops = {self.flops!r} cannot be reached; with this network and tilt the smallest share is "
                f"{smallest:.3f}"
            )
        for _ in range(_BISECTIONS):
            middle = (wide + narrow) / 2
            if cost(self._widths(groups, middle, round_to)) > target:
                wide = middle
            else:
                narrow = middle
        return self._fill_up(groups, narrow, round_to, cost, target)

    def _ratio(self, group: LayerGroup, base: float) -> float:
        """Return the ratio of a group."""
        return min(max(base + self.tilt * (group.depth - 0.5), 0.0), HIGHEST_RATIO)

    def _widths(self, groups: Sequence[LayerGroup], base: float, step: int) -> dict[str, int]:
        """Return the widths at a base, rounded down to what is allowed."""
        return {
            group.name: rounded_down(group.channels * (1 - self._ratio(group, base)), group.channels, step)
            for group in groups
        }

    def _fill_up(
        self, groups: Sequence[LayerGroup], base: float, step: int, cost: Cost, target: float
    ) -> dict[str, int]:
        """Return the widths at a base, rounded up instead of down where the target allows it."""
        kept = self._widths(groups, base, step)

        def lost(group: LayerGroup) -> float:
            return (group.channels * (1 - self._ratio(group, base)) - kept[group.name]) / step

        for group in sorted((group for group in groups if lost(group) > 0), key=lost, reverse=True):
            wider = rounded_up(kept[group.name] + 1, group.channels, step)
            trial = {**kept, group.name: wider}
            if cost(trial) <= target:
                kept = trial
        return kept


Sparsity = Annotated[Uniform | PerStage | PerLayer | ByEnergy | FlopsTarget, Field(discriminator="mode")]
"""Any allocation; as a field of a method it is built from ``sparsity.mode`` and that mode's own values."""


def sparsity_space(
    groups: Sequence[LayerGroup],
    low_flops: float = 0.05,
    high_flops: float = 0.9,
    high_ratio: float = 0.95,
    max_tilt: float = 0.6,
    energy: bool = False,
) -> Space:
    """Return the search space of :data:`Sparsity` for a network.

    Args:
        groups: The prunable groups, in order of depth.
        low_flops: Smallest FLOPs target, as a share of the dense network's.
        high_flops: Largest FLOPs target.
        high_ratio: Largest ratio of the other modes.
        max_tilt: Largest tilt, either way.
        energy: Whether ratios can follow from the weights, too (``sparsity.energy``).

    Returns:
        ``sparsity.mode`` and, as the mode has it, ``sparsity.flops`` and ``sparsity.tilt``,
        ``sparsity.ratio``, ``sparsity.stages[STAGE]`` or ``sparsity.layers[GROUP]``. Defaults are the FLOPs
        mode, half of what there is (or the nearest value allowed) and no tilt.

    Raises:
        InputError: If there are no groups.

    Example:
        >>> space = sparsity_space([LayerGroup("conv1", channels=16, stage="stem", depth=0.5)])
        >>> space.names[3:]
        ('sparsity.ratio', 'sparsity.stages[stem]', 'sparsity.layers[conv1]')
    """
    if not groups:
        raise InputError("nothing to prune: the network has no channel groups that may lose channels")
    ratio = Real(0.0, high_ratio, default=min(0.5, high_ratio))
    by_mode: dict[str, dict[str, Parameter]] = {
        "flops": {
            "flops": Real(low_flops, high_flops, default=min(max(0.5, low_flops), high_flops)),
            "tilt": Real(-max_tilt, max_tilt, default=0.0),
        },
        "uniform": {"ratio": ratio},
        "stage": {f"stages[{stage}]": ratio for stage in dict.fromkeys(group.stage for group in groups)},
        "layer": {f"layers[{group.name}]": ratio for group in groups},
    }
    if energy:
        by_mode["energy"] = {"energy": Real(0.5, 0.99, default=0.9)}
    parameters: dict[str, Parameter] = {"mode": Categorical(tuple(by_mode), default="flops")}
    conditions: dict[str, Condition] = {}
    for mode, own in by_mode.items():
        parameters |= own
        conditions |= {name: Condition("mode", (mode,)) for name in own}
    return Space(parameters, conditions).prefixed("sparsity")


def _rounded_width(group: LayerGroup, ratio: float, step: int) -> int:
    """Return the width left by a ratio: the papers' rule, then rounded to the nearest allowed width."""
    # 0.07 times 100 channels gives 7.000000000000001; that must not remove an eighth one.
    removed = min(math.ceil(ratio * group.channels - 1e-9), group.channels - 1)
    width = group.channels - removed
    below = rounded_down(width, group.channels, step)
    above = rounded_up(below + 1, group.channels, step)
    return below if width - below < above - width else above


def rounded_down(width: float, channels: int, step: int) -> int:
    """Return the largest allowed width that is not above, or the smallest allowed one.

    Args:
        width: Units.
        channels: Units of the group, an allowed width.
        step: What allowed widths are multiples of.

    Returns:
        The width.

    Example:
        >>> rounded_down(15, 20, 8), rounded_down(20, 20, 8), rounded_down(3, 20, 8)
        (8, 20, 8)
    """
    if width >= channels or channels <= step:
        return channels
    return max(int(width) // step, 1) * step


def rounded_up(width: int, channels: int, step: int) -> int:
    """Return the smallest allowed width that is not below.

    Args:
        width: Units.
        channels: Units of the group, an allowed width.
        step: What allowed widths are multiples of.

    Returns:
        The width.

    Example:
        >>> rounded_up(9, 20, 8), rounded_up(17, 20, 8)
        (16, 20)
    """
    return min(channels, -(-width // step) * step)


def _check_names(kind: str, given: Mapping[str, float], needed: Sequence[str]) -> None:
    """Refuse ratios for names that the network does not have, or a name without a ratio.

    Args:
        kind: What the names stand for.
        given: The ratios by name.
        needed: The names that the network has.

    Raises:
        InputError: If a name is unknown or missing.
    """
    for name in given:
        if name not in needed:
            raise InputError(unknown_name(kind, name, set(needed)))
    for name in needed:
        if name not in given:
            raise InputError(f"no ratio for {kind} {name!r}; give one for every {kind} (0 keeps it whole)")
