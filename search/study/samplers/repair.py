"""Moves points into the limits of a study, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

from search.study.samplers.base import CostOf, Limits, PointCost
from search.study.samplers.slots import from_unit, to_unit
from search.study.space import level_of
from spaces import Categorical, Space, Value

HALVINGS = 16
"""Bisections of a level: a fraction of a unit of any layer."""


def repair_point(
    method: str, space: Space, point: Mapping[str, Value], cost: CostOf, limits: Limits, dense: PointCost
) -> dict[str, Value] | None:
    """Move a point into the limits by the parameter that decides how much is left of the network.

    Only that parameter changes, and no farther than it must.

    Args:
        method: Name of the method.
        space: The method's own space.
        point: A point of it.
        cost: The exact cost of a point.
        limits: What the network must keep to.
        dense: Cost of the dense network.

    Returns:
        The nearest point within the limits; ``None`` if there is none. Where the cost is not known before training,
        what is asked of the method is moved into the limits.
    """
    level = level_of(method, space, point)
    found = cost(method, point)
    if found is None:  # unknown before training, or impossible: below the limits a tilt may ask for more than there is
        asked = _move_within(space, point, level, limits, dense)
        known = None if asked is None or asked == point else cost(method, asked)
        if asked is None or known is None or limits.is_met_by(known.flops, known.params):
            return asked
        return repair_point(method, space, asked, cost, limits, dense)  # what is asked for can be counted now
    if limits.is_met_by(found.flops, found.params):
        return dict(point)
    if level is None:
        return None
    sign = -1.0 if level == "sparsity.ratio" else 1.0  # a larger ratio leaves less
    start = to_unit(space[level], point[level])

    def compute_cost(unit: float) -> PointCost | None:
        return cost(method, {**point, level: from_unit(space[level], unit)})

    costly = limits.max_flops is not None and found.flops > limits.max_flops
    costly |= limits.max_params is not None and found.params > limits.max_params
    # Costs never fall when more is left: bisect between the point and the end of the range where limits are kept.
    inside = (0.0 if sign > 0 else 1.0) if costly else (1.0 if sign > 0 else 0.0)
    outside = start
    if not _is_on_side(compute_cost(inside), limits, costly):
        return None
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        if _is_on_side(compute_cost(middle), limits, costly):
            inside = middle
        else:
            outside = middle
    moved = {**point, level: from_unit(space[level], inside)}
    final = cost(method, moved)
    return moved if final is not None and limits.is_met_by(final.flops, final.params) else None


def _move_within(
    space: Space, point: Mapping[str, Value], level: str | None, limits: Limits, dense: PointCost
) -> dict[str, Value] | None:
    """Move a wanted share of the FLOPs into the limits; a point that names none is left as it is."""
    if level is None or level.startswith("sparsity.") and level != "sparsity.flops":
        return dict(point)
    parameter, share = space[level], point[level]
    assert not isinstance(parameter, Categorical) and not isinstance(share, str)
    low = parameter.low if limits.min_flops is None else max(parameter.low, limits.min_flops / dense.flops)
    high = parameter.high if limits.max_flops is None else min(parameter.high, limits.max_flops / dense.flops)
    return None if low > high else {**point, level: min(max(share, low), high)}


def _is_on_side(cost: PointCost | None, limits: Limits, costly: bool) -> bool:
    """Whether a network keeps to the upper limits (where the point was too costly) or to the lower one."""
    if cost is None:
        return False
    if costly:
        return (limits.max_flops is None or cost.flops <= limits.max_flops) and (
            limits.max_params is None or cost.params <= limits.max_params
        )
    return limits.min_flops is None or cost.flops >= limits.min_flops
