"""How much of each layer is removed: one ratio, one per stage, one per layer, or a target for the FLOPs.

An allocation (:data:`Sparsity`) says how many units of each :class:`spaces.layers.LayerGroup` are kept; all methods
whose sparsity is an input share these, and :func:`sparsity_space` is their search space.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, count
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from spaces.budget import Costs, Curve, choose_best_widths
from spaces.errors import InputError, explain_unknown_name
from spaces.layers import HIGHEST_RATIO, LayerBlock, LayerGroup, allowed_widths, round_down_width, round_up_width
from spaces.parameters import Categorical, LogReal, Parameter, Real
from spaces.space import Condition, Space

Cost = Callable[[Mapping[str, int]], float]
"""FLOPs of the network with these kept units per group; must not fall when a group gets wider."""

MAX_WEIGHT = 2.0
"""Octaves by which the damage of a stage may count more or less in a search."""

_BISECTIONS = 48  # halves the range of ratios (at most 3) to 1e-14, far below one unit of any layer


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
        return {group.name: _round_width(group, self.ratio, round_to) for group in groups}


Level = Annotated[float, Field(gt=0, le=1)]
"""Share of the units that every group keeps whose offset is 0."""


class PerStage(Allocation):
    """One ratio per stage: given one by one, or as a level and an offset for each stage.

    Attributes:
        level: Share of the units kept at offset 0: a stage keeps ``level * 2**offset``, at most all and at least
            ``1 - HIGHEST_RATIO``.
        stages: Share of the units that is removed, by stage; every stage is named, or none and there is a ``level``.
        stage_offsets: With a ``level``: by how many octaves a stage keeps more (or, negative, less).

    Example:
        >>> PerStage(level=0.5, stage_offsets={"stem": 1.0}).keep([LayerGroup("conv1", 16, "stem", 0.0)], cost=len)
        {'conv1': 16}
    """

    mode: Literal["stage"] = "stage"
    level: Level | None = None
    stages: dict[str, Ratio] = Field(default_factory=dict)
    stage_offsets: dict[str, float] = Field(default_factory=dict)

    def ratios(self, stages: Sequence[str]) -> dict[str, float]:
        """Return the share of the units that is removed from each stage.

        Args:
            stages: The stages of the network.

        Returns:
            Ratios by stage. Stages that are missing or unknown are an ``InputError``.
        """
        ratios = _ratios("stage", self.stages, self.level, self.stage_offsets, stages)
        _check_names("stage", ratios, stages)
        return ratios

    def keep(self, groups: Sequence[LayerGroup], cost: Cost, round_to: int = 1) -> dict[str, int]:
        """Return how many units of each group are kept.

        Args:
            groups: The prunable groups.
            cost: Not used.
            round_to: Widths are multiples of this (or the full width).

        Returns:
            Kept units by name of group. A stage that is missing or unknown is an ``InputError``.
        """
        ratios = self.ratios([group.stage for group in groups])
        return {group.name: _round_width(group, ratios[group.stage], round_to) for group in groups}


class PerLayer(Allocation):
    """One ratio per group: given one by one, or as a level and an offset for each group.

    A search over one level and small offsets looks at networks that hang together, where independent ratios mostly
    close one layer and waste another.

    Attributes:
        level: Share of the units kept at offset 0: a group keeps ``level * 2**offset``, at most all and at least
            ``1 - HIGHEST_RATIO``.
        layers: Share of the units that is removed, by name of group; every group is named, or none and there is a
            ``level``.
        layer_offsets: With a ``level``: by how many octaves a group keeps more (or, negative, less).
        without: Names of residual blocks that go as a whole, each with ``True``; groups in them have no ratio.

    Example:
        >>> group = LayerGroup("conv1", 16, "stem", 0.0)
        >>> PerLayer(level=0.5, layer_offsets={"conv1": -1.0}).keep([group], cost=len)
        {'conv1': 4}
    """

    mode: Literal["layer"] = "layer"
    level: Level | None = None
    layers: dict[str, Ratio] = Field(default_factory=dict)
    layer_offsets: dict[str, float] = Field(default_factory=dict)
    without: dict[str, bool] = Field(default_factory=dict)

    def ratios(self, names: Sequence[str]) -> dict[str, float]:
        """Return the share of the units that is removed, by name.

        Args:
            names: The groups of the network, for which a level speaks.

        Returns:
            Ratios by name; those that were given one by one may have other names, which the caller checks.
        """
        return _ratios("layer", self.layers, self.level, self.layer_offsets, names)

    def keep(self, groups: Sequence[LayerGroup], cost: Cost, round_to: int = 1) -> dict[str, int]:
        """Return how many units of each group are kept.

        Args:
            groups: The prunable groups.
            cost: Not used.
            round_to: Widths are multiples of this (or the full width).

        Returns:
            Kept units by name of group.

        Raises:
            InputError: If a group is missing or unknown, or blocks are to go: :meth:`split_blocks` comes first.
        """
        if any(self.without.values()):
            raise InputError("sparsity.without needs the network's blocks, which this method does not look at")
        names = [group.name for group in groups]
        ratios = self.ratios(names)
        _check_names("layer", ratios, names)
        return {group.name: _round_width(group, ratios[group.name], round_to) for group in groups}

    def split_blocks(self, known: Sequence[str]) -> tuple[PerLayer, list[str]]:
        """Separate the blocks that go from the ratios of what is left.

        Args:
            known: Names of the blocks that can go.

        Returns:
            The same ratios without blocks, and the names of the blocks.

        Raises:
            InputError: If a block is unknown.
        """
        removed = [name for name, gone in self.without.items() if gone]
        for name in removed:
            if name not in known:
                raise InputError(explain_unknown_name("residual block", name, known))
        return self.model_copy(update={"without": {}}), removed


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
        return {group.name: _round_width(group, self.ratio(group), round_to) for group in groups}

    def ratio(self, group: LayerGroup) -> float:
        """Return the share of the units that is removed: ``1 - rank / number of components``.

        Args:
            group: A group with ``energies``.

        Returns:
            The ratio, below 1.

        Raises:
            InputError: If the weights were not looked at.
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
            group.name: round_down_width(group.channels * (1 - self._ratio(group, base)), group.channels, step)
            for group in groups
        }

    def _fill_up(
        self, groups: Sequence[LayerGroup], base: float, step: int, cost: Cost, target: float
    ) -> dict[str, int]:
        """Return the widths at a base, rounded up instead of down where the target allows it."""
        kept = self._widths(groups, base, step)

        def compute_damage(group: LayerGroup) -> float:
            return (group.channels * (1 - self._ratio(group, base)) - kept[group.name]) / step

        for group in sorted((group for group in groups if compute_damage(group) > 0), key=compute_damage, reverse=True):
            wider = round_up_width(kept[group.name] + 1, group.channels, step)
            trial = {**kept, group.name: wider}
            if cost(trial) <= target:
                kept = trial
        return kept


class ByDamage(Allocation):
    """The widths of least total damage within a budget of FLOPs, by curves of damage that were measured.

    Attributes:
        flops: Share of the FLOPs of the whole dense network that is left.
        damage_weights: By how many octaves the damage of a stage's groups counts more (or, negative, less): what a
            search may turn, for fine-tuning repairs some parts of a network better than others.
        blocks: Whether whole residual blocks may go, too, where that does less damage.
    """

    mode: Literal["damage"] = "damage"
    flops: float = Field(gt=0, le=1)
    blocks: bool = False
    damage_weights: dict[str, float] = Field(default_factory=dict)

    def keep(self, groups: Sequence[LayerGroup], cost: Cost, round_to: int = 1) -> dict[str, int]:
        """Return how many units of each group are kept.

        Args:
            groups: The prunable groups, with ``damages``.
            cost: FLOPs of a choice of widths; must not fall when a group gets wider.
            round_to: Widths are multiples of this (or the full width).

        Returns:
            Kept units by name of group; their cost is at most the target, and no step of any group fits into what is
            left of it. Damages that were not measured, an unknown stage or a target that cannot be reached are an
            ``InputError``.
        """
        names = [group.name for group in groups]

        def costs(rows: NDArray[np.int64]) -> NDArray[np.float64]:
            return np.array([cost(dict(zip(names, row, strict=True))) for row in rows.tolist()], dtype=np.float64)

        return self.choose(groups, costs, round_to)

    def choose(self, groups: Sequence[LayerGroup], costs: Costs, round_to: int = 1) -> dict[str, int]:
        """Return how many units of each group are kept, as :meth:`keep` does, where many choices are costed at once.

        Args:
            groups: The prunable groups, with ``damages``.
            costs: FLOPs of choices of widths, ``[choices, groups]`` to ``[choices]``.
            round_to: Widths are multiples of this (or the full width).

        Returns:
            Kept units by name of group.

        Raises:
            InputError: If damages were not measured, a stage is unknown, blocks are to go, or the target cannot be
                reached.
        """
        if self.blocks:
            raise InputError("sparsity.blocks = true needs the network's blocks, which this method does not look at")
        return self.choose_blocks(groups, (), costs, round_to)[0]

    def choose_blocks(
        self, groups: Sequence[LayerGroup], blocks: Sequence[LayerBlock], costs: Costs, round_to: int = 1
    ) -> tuple[dict[str, int], list[str]]:
        """Choose widths, and residual blocks that go as a whole.

        Args:
            groups: The prunable groups, with ``damages``.
            blocks: The blocks that can go.
            costs: FLOPs of choices of widths and blocks, ``[choices, groups + blocks]`` to ``[choices]``; of a block 1
                is kept, or 0.
            round_to: Widths are multiples of this (or the full width).

        Returns:
            Kept units by name of group, all of them for groups in blocks that go; and the names of these blocks.

        Raises:
            InputError: If damages were not measured, a stage is unknown, or the target cannot be reached.
        """
        curves = self.curves(groups)
        allowed = {group.name: allowed_widths(group, round_to) for group in groups}
        for block in blocks:
            damage = 2.0 ** self.damage_weights.get(block.stage, 0.0) * block.damage
            curves[block.name], allowed[block.name] = [(0, damage), (1, 0.0)], [0, 1]
        inside = {block.name: block.groups for block in blocks}
        dense_cost = float(costs(np.array([[widths[-1] for widths in allowed.values()]]))[0])
        found = choose_best_widths(curves, costs, [self.flops * dense_cost], allowed, inside)[0]
        if found is None:
            least = float(costs(np.array([[widths[0] for widths in allowed.values()]]))[0]) / dense_cost
            raise InputError(
                f"flops = {self.flops!r} cannot be reached; with this network the smallest share is "
                f"{math.ceil(1000 * least) / 1000:.3f}"
            )
        removed = [block.name for block in blocks if not found.pop(block.name)]
        return found, removed

    def curves(self, groups: Sequence[LayerGroup]) -> dict[str, Curve]:
        """Return the curves of damage, weighted by stage.

        Args:
            groups: The prunable groups, with ``damages``.

        Returns:
            Width and damage by name of the group.

        Raises:
            InputError: If damages were not measured, or a stage is unknown.
        """
        if not all(group.damages for group in groups):
            raise InputError("sparsity.mode = 'damage' needs measured damages, which this method does not look at")
        stages = {group.stage for group in groups}
        for stage in self.damage_weights:
            if stage not in stages:
                raise InputError(explain_unknown_name("stage", stage, stages))
        weights = {group.name: 2.0 ** self.damage_weights.get(group.stage, 0.0) for group in groups}
        return {
            group.name: [(width, weights[group.name] * damage) for width, damage in group.damages] for group in groups
        }


Sparsity = Annotated[Uniform | PerStage | PerLayer | ByEnergy | FlopsTarget | ByDamage, Field(discriminator="mode")]
"""Any allocation; as a field of a method it is built from ``sparsity.mode`` and that mode's own values."""


def sparsity_space(
    groups: Sequence[LayerGroup],
    low_flops: float = 0.05,
    high_flops: float = 0.9,
    high_ratio: float = 0.95,
    max_tilt: float = 0.6,
    max_offset: float = 1.0,
    energy: bool = False,
    damage: bool = False,
) -> Space:
    """Return the search space of :data:`Sparsity` for a network.

    Args:
        groups: The prunable groups, in order of depth.
        low_flops: Smallest FLOPs target, as a share of the dense network's.
        high_flops: Largest FLOPs target.
        high_ratio: Largest ratio of the other modes.
        max_tilt: Largest tilt, either way.
        max_offset: Largest offset of a stage or layer from the common level, in octaves, either way.
        energy: Whether ratios can follow from the weights, too (``sparsity.energy``).
        damage: Whether widths can follow from measured damages, too (``sparsity.damage_weights[STAGE]``).

    Returns:
        ``sparsity.mode`` and, as the mode has it, ``sparsity.flops`` and ``sparsity.tilt``,
        ``sparsity.ratio``, or ``sparsity.level`` with ``sparsity.stage_offsets[STAGE]`` or
        ``sparsity.layer_offsets[GROUP]``. FLOPs and the level are searched on a logarithmic scale. Defaults are the
        FLOPs mode, half of what there is (or the nearest value allowed), no tilt and no offsets.

    Raises:
        InputError: If there are no groups.

    Example:
        >>> space = sparsity_space([LayerGroup("conv1", channels=16, stage="stem", depth=0.5)])
        >>> space.names[3:]
        ('sparsity.ratio', 'sparsity.level', 'sparsity.stage_offsets[stem]', 'sparsity.layer_offsets[conv1]')
    """
    if not groups:
        raise InputError("nothing to prune: the network has no channel groups that may lose channels")
    ratio = Real(0.0, high_ratio, default=min(0.5, high_ratio))
    # A layer's FLOPs go with the product of two widths, so a level of w leaves about w^2 of them.
    low, high = math.sqrt(low_flops), math.sqrt(high_flops)
    level = LogReal(low, high, default=min(max(math.sqrt(0.5), low), high))
    offset = Real(-max_offset, max_offset, default=0.0)
    by_mode: dict[str, dict[str, Parameter]] = {
        "flops": {
            "flops": LogReal(low_flops, high_flops, default=min(max(0.5, low_flops), high_flops)),
            "tilt": Real(-max_tilt, max_tilt, default=0.0),
        },
        "uniform": {"ratio": ratio},
        "stage": {f"stage_offsets[{stage}]": offset for stage in dict.fromkeys(group.stage for group in groups)},
        "layer": {f"layer_offsets[{group.name}]": offset for group in groups},
    }
    if energy:
        by_mode["energy"] = {"energy": Real(0.5, 0.99, default=0.9)}
    stages = list(dict.fromkeys(group.stage for group in groups))
    if damage:
        weight = Real(-MAX_WEIGHT, MAX_WEIGHT, default=0.0)
        by_mode["damage"] = {f"damage_weights[{stage}]": weight for stage in stages[1:]}  # only their ratios matter
    parameters: dict[str, Parameter] = {"mode": Categorical(tuple(by_mode), default="flops")}
    conditions: dict[str, Condition] = {}
    for mode, own in by_mode.items():
        if mode == "stage":
            parameters["level"] = level
            conditions["level"] = Condition("mode", ("stage", "layer"))
        parameters |= own
        conditions |= {name: Condition("mode", (mode,)) for name in own}
    if damage:
        conditions["flops"] = Condition("mode", ("flops", "damage"))
    return Space(parameters, conditions).add_prefix("sparsity")


def _round_width(group: LayerGroup, ratio: float, step: int) -> int:
    """Return the width left by a ratio: the papers' rule, then rounded to the nearest allowed width."""
    # 0.07 times 100 channels gives 7.000000000000001; that must not remove an eighth one.
    removed = min(math.ceil(ratio * group.channels - 1e-9), group.channels - 1)
    width = group.channels - removed
    below = round_down_width(width, group.channels, step)
    above = round_up_width(below + 1, group.channels, step)
    return below if width - below < above - width else above


def _ratios(
    kind: str, given: Mapping[str, float], level: float | None, offsets: Mapping[str, float], needed: Sequence[str]
) -> dict[str, float]:
    """Return ratios that were given one by one, or follow from a level and offsets.

    Args:
        kind: What the names stand for.
        given: Ratios by name; empty where there is a level.
        level: Share of the units kept at offset 0, or None.
        offsets: Octaves by which a name keeps more; one that is not listed has none.
        needed: The names that the network has.

    Returns:
        Ratios by name.

    Raises:
        InputError: If there are both ratios and a level, or neither, or an offset of an unknown name.
    """
    if level is None:
        if offsets:
            raise InputError(f"offsets per {kind} need a level (sparsity.level, such as 0.5)")
        return dict(given)
    if given:
        raise InputError(f"sparsity.mode = {kind!r} takes ratios or a level with offsets, not both")
    for name in offsets:
        if name not in needed:
            raise InputError(explain_unknown_name(kind, name, set(needed)))
    # keep = level * 2^offset, within [1 - HIGHEST_RATIO, 1]
    shares = {name: level * 2.0 ** offsets.get(name, 0.0) for name in needed}
    return {name: 1 - min(max(share, 1 - HIGHEST_RATIO), 1.0) for name, share in shares.items()}


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
            raise InputError(explain_unknown_name(kind, name, set(needed)))
    for name in needed:
        if name not in given:
            raise InputError(f"no ratio for {kind} {name!r}; give one for every {kind} (0 keeps it whole)")
