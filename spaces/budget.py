"""Spending a budget of FLOPs over channel groups so that the sum of damages is least.

The FLOPs of a network are products of widths, so what a unit costs depends on the widths of its neighbours. For a price
``p`` per share of the FLOPs, widths that minimise ``sum of damages + p * FLOPs`` are found group by group, each exact
given the others, until nothing changes; falling prices give the whole path from the narrowest to the dense network.
Between two prices the rest of a budget goes where a further step buys most, and pairs of groups exchange steps as long
as that helps.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

Cost = Callable[[Mapping[str, int]], float]
Curve = Sequence[tuple[int, float]]
"""Width and damage, by ascending width; the last is the full width, without damage."""

PRICES = 40
"""Prices per share of the FLOPs that are looked at, each two thirds of the one before."""

SWEEPS = 4
"""Times that all groups are looked at, at one price."""

EXCHANGES = 4
"""Times that all pairs of groups are looked at."""

FEW = 8
"""Widths of each of two groups that are looked at together."""

MANY = 16
"""Groups beyond which only neighbouring widths of two groups are looked at together."""


def damage_at(curve: Curve, width: int) -> float:
    """Read a curve between its points.

    Args:
        curve: Width and damage.
        width: The width.

    Returns:
        The damage, interpolated linearly; that of the first point below it.

    Example:
        >>> damage_at([(2, 1.0), (4, 0.0)], 3)
        0.5
    """
    widths = [each for each, _ in curve]
    right = bisect_left(widths, width)
    if right == 0:
        return curve[0][1]
    if right == len(widths):
        return curve[-1][1]
    (low, high), (above, below) = widths[right - 1 : right + 1], (curve[right - 1][1], curve[right][1])
    return above + (below - above) * (width - low) / (high - low)


def best_widths(
    curves: Mapping[str, Curve], cost: Cost, targets: Sequence[float], allowed: Mapping[str, Sequence[int]]
) -> list[dict[str, int] | None]:
    """Find the widths of least total damage within each of several budgets.

    Args:
        curves: Damage against width by name of the group.
        cost: FLOPs (or any other cost that does not fall with a width) of a choice of widths.
        targets: The budgets.
        allowed: Widths that each group may have, ascending.

    Returns:
        For each budget the widths, whose cost is within it; ``None`` where even the narrowest ones cost more.

    Example:
        >>> curves = {"a": [(1, 1.0), (2, 0.0)], "b": [(1, 0.1), (2, 0.0)]}
        >>> best_widths(curves, lambda kept: sum(kept.values()), [3], {"a": [1, 2], "b": [1, 2]})
        [{'a': 2, 'b': 1}]
    """
    harm = {name: {width: damage_at(curves[name], width) for width in allowed[name]} for name in curves}
    path = _path(harm, cost, allowed)
    found: list[dict[str, int] | None] = []
    for target in targets:
        within = [widths for spent, widths in path if spent <= target]
        if not within:
            found.append(None)
            continue
        # The path is not convex everywhere: its last points below the budget are all worth finishing.
        finished = [_exchange(harm, cost, target, allowed, _fill(harm, cost, target, allowed, w)) for w in within[-3:]]
        found.append(min(finished, key=lambda widths: _total(harm, widths)))
    return found


def _path(
    harm: Mapping[str, Mapping[int, float]], cost: Cost, allowed: Mapping[str, Sequence[int]]
) -> list[tuple[float, dict[str, int]]]:
    """Return what is best at many prices, reached from the narrowest network and from the widest, by cost."""
    narrow, wide = ({name: allowed[name][end] for name in allowed} for end in (0, -1))
    dense = cost(wide)
    highest = 4 * max((max(each.values()) for each in harm.values()), default=1.0) + 1e-9
    prices = [highest * (2 / 3) ** number for number in range(PRICES)]
    path = [(cost(narrow), narrow)]
    for widths, falling in ((dict(narrow), prices), (dict(wide), prices[::-1])):
        for price in falling:
            widths = _settle(harm, cost, allowed, widths, price / dense)
            path.append((cost(widths), widths))
    return sorted(path, key=lambda point: point[0])


def _settle(
    harm: Mapping[str, Mapping[int, float]],
    cost: Cost,
    allowed: Mapping[str, Sequence[int]],
    start: Mapping[str, int],
    price: float,
) -> dict[str, int]:
    """Choose each group's width given the others, until nothing changes."""
    widths = dict(start)
    for _ in range(SWEEPS):
        before = dict(widths)
        for name in allowed:
            worth = {width: harm[name][width] + price * cost({**widths, name: width}) for width in allowed[name]}
            widths[name] = min(worth, key=worth.__getitem__)
        if widths == before:
            break
    return widths


def _fill(
    harm: Mapping[str, Mapping[int, float]],
    cost: Cost,
    target: float,
    allowed: Mapping[str, Sequence[int]],
    widths: dict[str, int],
) -> dict[str, int]:
    """Widen groups step by step, the one first that saves most damage for what it costs."""
    widths, spent = dict(widths), cost(widths)
    while True:
        steps = []
        for name in allowed:
            wider = _next(allowed[name], widths[name])
            if wider is not None:
                more = cost({**widths, name: wider}) - spent
                if spent + more <= target:
                    saved = harm[name][widths[name]] - harm[name][wider]
                    steps.append((saved / max(more, 1e-12), -more, name, wider))
        if not steps:
            return widths
        _, _, name, wider = max(steps)
        widths[name] = wider
        spent = cost(widths)


def _exchange(
    harm: Mapping[str, Mapping[int, float]],
    cost: Cost,
    target: float,
    allowed: Mapping[str, Sequence[int]],
    widths: dict[str, int],
) -> dict[str, int]:
    """Choose the widths of two groups together, for all pairs, as long as that lowers the damage within the budget."""
    choices = {name: _few(allowed[name], FEW if len(allowed) <= MANY else 1, widths[name]) for name in allowed}
    for _ in range(EXCHANGES):
        best = None
        for taken, given in itertools.permutations(allowed, 2):
            now = harm[taken][widths[taken]] + harm[given][widths[given]]
            for narrower in choices[taken]:
                for wider in choices[given]:
                    saved = now - harm[taken][narrower] - harm[given][wider]
                    if narrower < widths[taken] and saved > 1e-12 and (best is None or saved > best[0]):
                        tried = {**widths, taken: narrower, given: wider}
                        if cost(tried) <= target:
                            best = (saved, tried)
        if best is None:
            return widths
        widths = _fill(harm, cost, target, allowed, best[1])
        choices = {name: _few(allowed[name], FEW if len(allowed) <= MANY else 1, widths[name]) for name in allowed}
    return widths


def _few(allowed: Sequence[int], count: int, width: int) -> list[int]:
    """Return some widths: the neighbours of one, and ``count`` spread over the range."""
    place = bisect_left(allowed, width)
    near = {allowed[max(0, place - 1)], width, allowed[min(len(allowed) - 1, place + 1)]}
    if count > 1:
        near |= {allowed[round(part * (len(allowed) - 1) / (count - 1))] for part in range(count)}
    return sorted(near)


def _total(harm: Mapping[str, Mapping[int, float]], widths: Mapping[str, int]) -> float:
    return sum(harm[name][width] for name, width in widths.items())


def _next(allowed: Sequence[int], width: int) -> int | None:
    place = bisect_left(allowed, width)
    return allowed[place + 1] if place + 1 < len(allowed) else None
