"""The limits of a study: read from what the user wrote, and refused where no network could keep to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search.objectives.limits import parse_latency, parse_limit
from search.study.config import StudyConfig
from search.study.samplers.base import CostOf, Limits, PointCost
from search.study.samplers.repair import repair_point
from search.study.samplers.slots import from_unit
from search.study.space import METHOD, level_of, select_own_space
from spaces import InputError, Space, Value

LOOKS = 400
"""Levels at which it is counted what a method reaches, where it cannot keep to the limits."""


def read_limits(config: StudyConfig, dense: PointCost, least: PointCost, latency: float | None = None) -> Limits:
    """Read the limits of a study.

    Args:
        config: What the user wrote.
        dense: Cost of the dense network.
        least: Cost of the smallest network that pruning can leave.
        latency: Seconds of the dense network, once it was timed.

    Returns:
        The limits, as counts.

    Raises:
        InputError: If a limit cannot be read, two contradict each other, or no network could keep to one; says what
            can be reached.
    """
    most_flops = _count(config.max_flops, dense.flops, "max-flops")
    least_flops = _count(config.min_flops, dense.flops, "min-flops")
    most_params = _count(config.max_params, dense.params, "max-params")
    if most_flops is not None and least_flops is not None and least_flops > most_flops:
        raise InputError(
            f"min-flops = {config.min_flops} and max-flops = {config.max_flops} contradict each other: no network has "
            f"at least {least_flops:,} and at most {most_flops:,} FLOPs"
        )
    for name, given, found, smallest, whole in (
        ("max-flops", config.max_flops, most_flops, least.flops, dense.flops),
        ("max-params", config.max_params, most_params, least.params, dense.params),
    ):
        if found is not None and found < smallest:
            raise InputError(
                f"{name} = {given} cannot be reached: pruning channels of this network leaves at least "
                f"{_percent(smallest / whole)} of the dense network's ({smallest:,}); give between that and 100%"
            )
    if least_flops is not None and least_flops >= dense.flops:
        raise InputError(f"min-flops = {config.min_flops} leaves nothing to prune: give less than the dense network's")
    if config.max_latency is not None and "latency" not in config.objectives and config.latency.targets is None:
        raise InputError(
            "max-latency needs a latency that is measured: add latency to the objectives, or set latency.targets"
        )
    slowest = None
    if config.max_latency is not None and latency is not None:
        slowest = parse_latency(config.max_latency, latency, "max-latency")
    return Limits(least_flops, most_flops, most_params, slowest)


def move_within_limits(
    points: Sequence[Mapping[str, Value]], space: Space, limits: Limits, cost: CostOf, dense: PointCost
) -> list[dict[str, Value]]:
    """Move points into the limits of a study.

    Args:
        points: Points of the whole space.
        space: The whole space.
        limits: The limits.
        cost: The exact cost of a point.
        dense: Cost of the dense network.

    Returns:
        The points, moved no farther than they must.

    Raises:
        InputError: If a method cannot keep to the limits.
    """
    if not limits.hard:
        return [dict(point) for point in points]
    moved = []
    for point in points:
        method, own = space.split(point, METHOD)
        found = repair_point(method, select_own_space(space, method), own, cost, limits, dense)
        if found is None:
            raise InputError(
                f"{method} cannot keep to the limits ({limit_words(limits, dense)}) within its space"
                f"{_describe_reach(method, select_own_space(space, method), own, cost, limits, dense)}; widen them, or "
                f"the bounds under [space.{method}], or leave {method} out"
            )
        moved.append({METHOD: method, **{f"{method}.{name}": value for name, value in found.items()}})
    return moved


def _describe_reach(
    method: str, space: Space, point: Mapping[str, Value], cost: CostOf, limits: Limits, dense: PointCost
) -> str:
    """Say what shares of the FLOPs a method reaches from a point by the one parameter that decides how much is left."""
    level = level_of(method, space, point)
    if level is None:
        return ""
    places = (from_unit(space[level], number / LOOKS) for number in range(LOOKS + 1))
    found = sorted({each.flops for place in places if (each := cost(method, {**point, level: place})) is not None})
    if not found:
        return ""
    words = f", where it leaves {_percent(found[0] / dense.flops)} to {_percent(found[-1] / dense.flops)} of the FLOPs"
    below = [flops for flops in found if limits.max_flops is not None and flops <= limits.max_flops]
    above = [flops for flops in found if limits.min_flops is not None and flops >= limits.min_flops]
    if below and above and below[-1] < above[0]:
        words += f", but nothing between {100 * below[-1] / dense.flops:.6g} % and {100 * above[0] / dense.flops:.6g} %"
    return words


def limit_words(limits: Limits, dense: PointCost) -> str:
    """Say limits in words.

    Args:
        limits: The limits.
        dense: Cost of the dense network.

    Returns:
        Such as ``"FLOPs 10 % to 50 %, parameters up to 30 %"``; empty where there are none.
    """
    words = []
    if limits.min_flops is not None or limits.max_flops is not None:
        low = "" if limits.min_flops is None else f" from {_percent(limits.min_flops / dense.flops)}"
        high = "" if limits.max_flops is None else f" up to {_percent(limits.max_flops / dense.flops)}"
        if limits.min_flops is not None and low[5:] == high[6:]:  # a band narrower than three digits tell
            low, high = f" from {limits.min_flops:,}", f" up to {limits.max_flops:,}"
        words.append(f"FLOPs{low}{high}")
    if limits.max_params is not None:
        words.append(f"parameters up to {_percent(limits.max_params / dense.params)}")
    if limits.max_latency is not None:
        words.append(f"latency up to {1000 * limits.max_latency:.3g} ms")
    return ", ".join(words)


def _count(given: str | float | None, dense: int, name: str) -> int | None:
    return None if given is None else parse_limit(given, dense, name)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
