"""Spending a budget over channel groups so that the sum of damages is least.

A budget is of anything that does not fall when a group gets wider: FLOPs, parameters, milliseconds. What a unit costs
depends on the widths of its neighbours (FLOPs are products of widths). For a price ``p`` per share of the cost, widths
that minimise ``sum of damages + p * cost`` are found group by group, each exact given the others, until nothing
changes; falling prices give the whole path from the narrowest to the dense network. Between two prices the rest of a
budget goes where a further step buys most, and pairs of groups exchange steps as long as that helps.

A part of the network that can go as a whole, such as a residual block, is a group of one unit. Without it the widths
inside it cost nothing and do no damage, whatever they are; so it is weighed against what the best widths inside it
cost and harm, and at the end each such part is taken out, or put back, to see.

Many choices of widths are costed at once, and groups of hundreds of channels are looked at in strides first, so that a
ResNet-50 takes a second and not a minute.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Costs = Callable[[Ints], NDArray[np.float64] | NDArray[np.int64]]
"""Costs of many choices of widths: ``[choices, groups]`` to ``[choices]``; none falls when a group gets wider."""

Curve = Sequence[tuple[int, float]]
"""Width and damage, by ascending width; the last is the full width, without damage."""

PRICES = 40
"""Prices per share of the cost that are looked at, each two thirds of the one before."""

SWEEPS = 4
"""Times that all groups are looked at, at one price."""

LOOKED_AT = 65
"""Widths of a group that are looked at, at one price: all of up to 64 units."""

EXCHANGES = 4
"""Times that all pairs of groups are looked at."""

FEW = 8
"""Widths of each of two groups that are looked at together."""

MANY = 16
"""Groups beyond which only neighbouring widths of two groups are looked at together."""

AT_ONCE = 256
"""Exchanges that are costed at once, the most promising first."""


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
    widths, damages = zip(*curve, strict=True)
    return float(np.interp(width, widths, damages))


def choose_best_widths(
    curves: Mapping[str, Curve],
    costs: Costs,
    targets: Sequence[float],
    allowed: Mapping[str, Sequence[int]],
    inside: Mapping[str, Sequence[str]] | None = None,
) -> list[dict[str, int] | None]:
    """Find the widths of least total damage within each of several budgets.

    Args:
        curves: Damage against width by name of the group.
        costs: Costs of choices of widths; the groups are in the order of ``curves``.
        targets: The budgets.
        allowed: Widths that each group may have, ascending.
        inside: Of each group that stands for a part of the network, with widths 0 and 1: the groups that lie in it.

    Returns:
        For each budget the widths, whose cost is within it; ``None`` where even the narrowest ones cost more. Groups in
        a part that goes have their full width.

    Example:
        >>> curves = {"a": [(1, 1.0), (2, 0.0)], "b": [(1, 0.1), (2, 0.0)]}
        >>> choose_best_widths(curves, lambda widths: widths.sum(axis=1), [3], {"a": [1, 2], "b": [1, 2]})
        [{'a': 2, 'b': 1}]
    """
    inside = inside or {}
    choice = _Choice(curves, costs, allowed, inside)
    tried = [choice]
    if inside:  # what takes parts out must not do more damage than what leaves all of them there
        whole = {name: widths[-1:] if name in inside else widths for name, widths in allowed.items()}
        tried.append(_Choice(curves, costs, whole, {}))
    paths = [(each, each.path()) for each in tried]
    found: list[dict[str, int] | None] = []
    for target in targets:
        finished = [widths for each, path in paths for widths in each.finish(path, target)]
        if not finished:
            found.append(None)
            continue
        best = min((choice.find_places(widths) for widths in finished), key=choice.damage)
        found.append(choice.name_widths(choice.switch_parts(best, target)))
    return found


class _Choice:
    """Widths as places in each group's list of allowed widths.

    Args:
        curves: Damage against width by name of the group.
        costs: Costs of choices of widths.
        allowed: Widths that each group may have, ascending.
        inside: Of each group that stands for a part of the network: the groups that lie in it.
    """

    def __init__(
        self,
        curves: Mapping[str, Curve],
        costs: Costs,
        allowed: Mapping[str, Sequence[int]],
        inside: Mapping[str, Sequence[str]],
    ) -> None:
        self._names = list(curves)
        self._allowed = [np.array(allowed[name], dtype=np.int64) for name in self._names]
        self._harm = []
        for name, widths in zip(self._names, self._allowed, strict=True):
            known, damages = zip(*curves[name], strict=True)
            self._harm.append(np.interp(widths, known, damages))
        self._last = np.array([len(widths) - 1 for widths in self._allowed])
        self._costs = costs
        number = {name: place for place, name in enumerate(self._names)}
        self._inside = {
            number[part]: np.array([number[name] for name in names], dtype=np.int64) for part, names in inside.items()
        }

    def name_widths(self, places: Ints) -> dict[str, int]:
        """Return the widths by name of the group."""
        return dict(zip(self._names, self._widths(places[None])[0].tolist(), strict=True))

    def find_places(self, widths: Mapping[str, int]) -> Ints:
        """Return the places of widths by name of the group."""
        return np.array([
            np.searchsorted(known, widths[name]) for name, known in zip(self._names, self._allowed, strict=True)
        ])

    def damage(self, places: Ints) -> float:
        """Return the sum of the damages."""
        return float(sum(harm[place] for harm, place in zip(self._harm, places, strict=True)))

    def path(self) -> list[tuple[float, Ints]]:
        """Return what is best at many prices, reached from the narrowest network and from the widest, by cost."""
        narrow, wide = self._widen_moot(np.zeros_like(self._last)[None])[0], self._last
        least, dense = (float(cost) for cost in self._cost(np.stack([narrow, wide])))
        highest = 4 * max((float(harm.max()) for harm in self._harm), default=1.0) + 1e-9
        prices = [highest * (2 / 3) ** number for number in range(PRICES)]
        path = [(least, narrow)]
        for places, falling in ((narrow, prices), (wide, prices[::-1])):
            for price in falling:
                places = self._settle(places, price / dense)
                path.append((float(self._cost(places[None])[0]), places))
        return sorted(path, key=lambda point: point[0])

    def finish(self, path: Sequence[tuple[float, Ints]], target: float) -> list[dict[str, int]]:
        """Spend what the last points of the path leave of a budget; none if even the narrowest one is beyond it."""
        within = [places for spent, places in path if spent <= target]
        # The path is not convex everywhere: its last points below the budget are all worth finishing.
        return [self.name_widths(self.exchange(self.fill(places, target), target)) for places in within[-3:]]

    def fill(self, places: Ints, target: float) -> Ints:
        """Widen groups step by step, the one first that saves most damage for what it costs."""
        places = places.copy()
        stride = np.maximum(1, -(-self._last // (LOOKED_AT - 1)))
        while True:
            spent = float(self._cost(places[None])[0])
            open_ = np.flatnonzero(places < self._last)
            wider = np.repeat(places[None], len(open_), axis=0)
            further = np.minimum(places + stride, self._last)[open_]
            wider[np.arange(len(open_)), open_] = further
            more = self._cost(wider) - spent if len(open_) else np.zeros(0)
            fits = np.flatnonzero(spent + more <= target)
            if not len(fits):
                if (stride == 1).all():
                    return places
                stride = np.maximum(1, stride // 2)
                continue
            saved = np.array([self._harm[g][places[g]] - self._harm[g][w] for g, w in zip(open_, further, strict=True)])
            worth = saved / np.maximum(more, 1e-12)
            best = max(fits, key=lambda k: (worth[k], -more[k], self._names[open_[k]]))
            places[open_[best]] = further[best]

    def exchange(self, places: Ints, target: float) -> Ints:
        """Choose the widths of two groups together, for all pairs, as long as that lowers the damage within budget."""
        for _ in range(EXCHANGES):
            better = self._find_exchange(places, target)
            if better is None:
                break
            places = self.fill(better, target)
        return places

    def switch_parts(self, places: Ints, target: float) -> Ints:
        """Take parts out, or put them back, and spend what is left again, as long as that lowers the damage."""
        for _ in range(EXCHANGES):
            before = places
            for part, inner in self._inside.items():
                other = places.copy()
                other[part] = 1 - places[part]
                other[inner] = self._last[inner] if places[part] else 0
                if float(self._cost(other[None])[0]) <= target:
                    other = self.exchange(self.fill(other, target), target)
                    places = min(places, other, key=self.damage)
            if places is before:
                break
        return places

    def _widen_moot(self, tried: Ints) -> Ints:
        """Give the full width to groups in parts that are gone: it costs nothing there and does no damage."""
        for part, inner in self._inside.items():
            gone = np.flatnonzero(tried[:, part] == 0)
            tried[np.ix_(gone, inner)] = self._last[inner]
        return tried

    def _list_moot(self, places: Ints) -> set[int]:
        """List the groups in parts that are gone."""
        gone = (inner for part, inner in self._inside.items() if places[part] == 0)
        return {int(group) for inner in gone for group in inner}

    def _find_exchange(self, places: Ints, target: float) -> Ints | None:
        """Find the exchange between two groups that lowers the damage most and fits."""
        pairs, gains = [], []
        choices = [self._list_candidates(group, int(place)) for group, place in enumerate(places)]
        moot = self._list_moot(places)
        for taken, given in itertools.permutations(range(len(places)), 2):
            inner = self._inside.get(taken, ())
            if taken in moot or given in moot or given in inner:
                continue
            narrower = choices[taken][choices[taken] < places[taken]]
            lost = self._harm[taken][narrower] - self._harm[taken][places[taken]]
            lost = lost - sum(self._harm[group][places[group]] for group in inner)  # without it they do no damage
            won = self._harm[given][places[given]] - self._harm[given][choices[given]]
            saved = won[None] - lost[:, None]
            for row, column in zip(*np.nonzero(saved > 1e-12), strict=True):
                pairs.append((taken, narrower[row], given, choices[given][column]))
                gains.append(saved[row, column])
        order = np.argsort(-np.array(gains, dtype=np.float64), kind="stable")
        for start in range(0, len(order), AT_ONCE):
            chosen = [pairs[k] for k in order[start : start + AT_ONCE]]
            tried = np.repeat(places[None], len(chosen), axis=0)
            for row, (taken, narrow, given, wide) in zip(tried, chosen, strict=True):
                row[taken], row[given] = narrow, wide
            fits = np.flatnonzero(self._cost(self._widen_moot(tried)) <= target)
            if len(fits):
                best: Ints = tried[fits[0]]
                return best
        return None

    def _settle(self, places: Ints, price: float) -> Ints:
        """Choose each group's width given the others, until nothing changes."""
        places = places.copy()
        for _ in range(SWEEPS):
            before = places.copy()
            for group in range(len(self._harm)):
                if group in self._inside:
                    places = self._settle_part(places, group, price)
                elif group not in self._list_moot(places):
                    self._settle_group(places, group, price)
            if (places == before).all():
                break
        return places

    def _settle_group(self, places: Ints, group: int, price: float) -> None:
        """Choose one group's width given the others, in place."""
        last = int(self._last[group])
        looked_at = np.unique(np.linspace(0, last, min(LOOKED_AT, last + 1)).round().astype(np.int64))
        tried = np.repeat(places[None], len(looked_at), axis=0)
        tried[:, group] = looked_at
        places[group] = looked_at[np.argmin(self._harm[group][looked_at] + price * self._cost(tried))]

    def _settle_part(self, places: Ints, part: int, price: float) -> Ints:
        """Choose whether a part stays, given the widths outside it, and with the best widths inside it."""
        inner = self._inside[part]
        there, gone = places.copy(), places.copy()
        there[part], gone[part] = 1, 0
        gone[inner] = self._last[inner]
        for group in inner.tolist():
            self._settle_group(there, group, price)
        both = np.stack([there, gone])
        worth = np.array([self.damage(each) for each in both]) + price * self._cost(both)
        better: Ints = both[int(np.argmin(worth))]
        return better

    def _list_candidates(self, group: int, place: int) -> Ints:
        """Return some places of a group: the neighbours of one, and :data:`FEW` spread over the range."""
        last = int(self._last[group])
        near = {max(0, place - 1), place, min(last, place + 1)}
        if len(self._last) <= MANY:
            near |= {round(part * last / (FEW - 1)) for part in range(FEW)}
        return np.array(sorted(near))

    def _widths(self, places: Ints) -> Ints:
        return np.stack([widths[column] for widths, column in zip(self._allowed, places.T, strict=True)], axis=1)

    def _cost(self, places: Ints) -> Floats:
        return np.asarray(self._costs(self._widths(places)), dtype=np.float64)
