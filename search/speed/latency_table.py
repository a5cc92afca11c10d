"""Seconds of one forward pass for any choice of widths, from a table of the modules that change with them.

Which groups a module depends on is found by cutting each group alone. Modules are then timed at a few widths of their
groups, and between these widths times are interpolated: linearly for one group, bilinearly for two, as time goes with
products of widths where arithmetic decides. A module of three groups or more (a convolution over a concatenation) gets
a sum of one term for each. All groups are narrowed at once, and in such a pattern that every two groups that share a
module meet in all combinations: with ``K`` widths each, ``K^2`` cut networks are enough, however many groups there are.

What lies in a residual block takes no time where the block is gone.

Modules that are timed one by one take longer or shorter than in a row; the table is scaled so that it gives what the
dense network and the narrowest one take as a whole. It is a model all the same: what it says of a network is proven by
timing that network.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import nn

from methods.contract.inputs import Inputs
from methods.network.channels import ChannelGroup, cut
from search.speed.conditions import Conditions
from search.speed.measure import measure_dense, measure_pair, turn
from search.speed.modules import ModuleTimes, Piece, Sample, module_calls, time_versions
from spaces import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHARES = (1 / 16, 1 / 4, 1 / 2, 3 / 4, 1.0)
"""Shares of a group's units at which modules are timed; as many as a prime number, so that the pattern works."""

NO_BLOCKS: Mapping[str, Sequence[str]] = MappingProxyType({})

Progress = Callable[[str, int, int], None]
"""Called with what is done, how many parts of it, and of how many."""


@dataclass(frozen=True)
class Entry:
    """Seconds of all modules that depend on the same one or two groups.

    Attributes:
        groups: Their places.
        widths: The widths that were timed, ascending, for each group.
        seconds: ``[widths of the first group]`` or ``[widths of the first, widths of the second]``; never falling.
        block: Place of the residual block that all these modules lie in, after the groups; ``None`` for none.
    """

    groups: tuple[int, ...]
    widths: tuple[Ints, ...]
    seconds: Floats
    block: int | None = None

    def interpolate(self, rows: Ints) -> Floats:
        """Interpolate.

        Args:
            rows: Kept units, ``[choices, groups]``, and after them 0 or 1 for each block.

        Returns:
            Seconds, ``[choices]``; below the least width that was timed, those of the least.
        """
        found = self._between(rows)
        return found if self.block is None else found * rows[:, self.block]

    def _between(self, rows: Ints) -> Floats:
        places, parts = [], []
        for group, widths in zip(self.groups, self.widths, strict=True):
            kept = np.clip(rows[:, group], widths[0], widths[-1])
            below = np.clip(np.searchsorted(widths, kept, side="right") - 1, 0, max(0, len(widths) - 2))
            above = np.minimum(below + 1, len(widths) - 1)
            gap = np.maximum(widths[above] - widths[below], 1)
            places.append((below, above))
            parts.append((kept - widths[below]) / gap)
        if len(places) == 1:
            ((below, above),), (part,) = places, parts
            return np.asarray(self.seconds[below] * (1 - part) + self.seconds[above] * part)
        (low, high), (left, right) = places
        part, side = parts
        lower = self.seconds[low, left] * (1 - side) + self.seconds[low, right] * side
        upper = self.seconds[high, left] * (1 - side) + self.seconds[high, right] * side
        return np.asarray(lower * (1 - part) + upper * part)


@dataclass(frozen=True)
class LatencyTable:
    """Seconds of one forward pass by widths.

    Attributes:
        groups: Names of the groups, in order.
        dense: Seconds of the dense network, as it was timed whole.
        fixed: Seconds of what no width changes.
        per_unit: Seconds for each kept unit of each group, of the modules that depend on three groups or more and
            lie in no block.
        entries: Seconds of the others.
        untimed: Modules that cannot be timed alone, and count as if no width changed them.
        blocks: Names of the residual blocks that can go, in order.
    """

    groups: tuple[str, ...]
    dense: float
    fixed: float
    per_unit: Floats
    entries: tuple[Entry, ...]
    untimed: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()

    def batch(self, widths: Ints) -> Floats:
        """Predict the seconds of many choices of widths.

        Args:
            widths: Kept units, ``[choices, groups]``, and after them 0 or 1 for each block, where there are blocks.

        Returns:
            Seconds of one forward pass, ``[choices]``; never less where a group is wider.
        """
        total = self.fixed + widths[:, : len(self.groups)] @ self.per_unit
        for entry in self.entries:
            total = total + entry.interpolate(widths)
        return np.asarray(total, dtype=np.float64)


def measure_table(
    model: nn.Module,
    example: Inputs,
    groups: Sequence[ChannelGroup],
    setting: Conditions,
    progress: Progress = lambda what, done, total: None,
    blocks: Mapping[str, Sequence[str]] = NO_BLOCKS,
) -> LatencyTable:
    """Time the modules of a network at a few widths of its groups.

    Args:
        model: The dense network; not changed. Its weights do not matter.
        example: One input, ``[1, ...]``.
        groups: Its channel groups.
        setting: Where and how; the first target counts.
        progress: Is called with how far it is.
        blocks: Names of the modules of each of its residual blocks that can go, by name of the block.

    Returns:
        The table.

    Raises:
        InputError: If the narrowest network, or none of the modules, can be timed.
    """
    whole = measure_dense(setting, model, example).median
    narrow = cut(model, groups, {group.name: range(_units_at(group.channels)) for group in groups})
    timings, reasons = measure_pair(setting, model, narrow, example)
    target = setting.targets[0]
    if target not in timings:
        raise InputError(f"latency target {reasons[target]}")
    ends = (timings[target].share * whole, whole)
    with turn():
        return build_table(model, example, groups, ends, partial(time_versions, setting, example), progress, blocks)


def build_table(
    model: nn.Module,
    example: Inputs,
    groups: Sequence[ChannelGroup],
    ends: tuple[float, float],
    sample: Sample,
    progress: Progress = lambda what, done, total: None,
    blocks: Mapping[str, Sequence[str]] = NO_BLOCKS,
) -> LatencyTable:
    """Build a table from a way to time modules.

    Args:
        model: The dense network; not changed.
        example: One input, ``[1, ...]``.
        groups: Its channel groups.
        ends: Seconds of the network with the least widths of the table, and of the dense network, timed whole.
        sample: Times versions of a module.
        progress: Is called with how far it is.
        blocks: Names of the modules of each of its residual blocks that can go, by name of the block.

    Returns:
        The table.

    Raises:
        InputError: If no module that a width changes can be timed alone.
    """
    dense = module_calls(model, example)
    owners = _owners(model, example, groups, dense)
    rows = _pattern([group.channels for group in groups], owners)
    networks = [
        cut(model, groups, {g.name: range(w) for g, w in zip(groups, row, strict=True)}) for row in rows.tolist()
    ]
    calls = [module_calls(network, example) for network in networks]
    changing = {dense[place][1].key for place, its in enumerate(owners) if its}

    def time_pieces(name: str, pieces: Sequence[Piece]) -> list[list[float]] | None:
        progress("timing modules", len(seen), len(changing))
        seen.add(pieces[0].key)
        return sample(name, pieces)

    seen: set[str] = set()
    times = ModuleTimes(dense, calls, time_pieces)
    by_groups: dict[Place, Floats] = defaultdict(lambda: np.zeros(len(rows)))
    for place, its in enumerate(owners):
        seconds = [times.version(place, each[place][1]) for each in calls]
        if its and None not in seconds:
            key = its, _find_block(dense[place][0], blocks, len(groups))
            by_groups[key] = by_groups[key] + np.array(seconds, dtype=np.float64)
    if not by_groups:
        raise InputError("no module of this network whose size a width changes can be timed alone on this target")
    names = tuple(group.name for group in groups)
    return _assemble(
        LatencyTable(names, ends[1], 0.0, np.zeros(len(names)), (), times.untimed, tuple(blocks)),
        rows,
        by_groups,
        min(ends),
    )


Place = tuple[tuple[int, ...], int | None]
"""Places of the groups that modules depend on, and of the block that they lie in."""


def _find_block(module: str, blocks: Mapping[str, Sequence[str]], first: int) -> int | None:
    """Return the place of the block that a module lies in, counted from that of the first block."""
    for number, modules in enumerate(blocks.values()):
        if any(f"{module}.".startswith(f"{own}.") for own in modules):
            return first + number
    return None


def _assemble(empty: LatencyTable, rows: Ints, by_groups: Mapping[Place, Floats], least: float) -> LatencyTable:
    """Turn seconds of modules into a table that gives the whole network's seconds at its least and full widths."""
    entries, per_unit, whole = [], empty.per_unit.copy(), empty.dense
    for (its, block), seconds in by_groups.items():
        entry = _entry(its, rows, seconds) if len(its) <= 2 else None
        if entry is not None:
            entries.append(replace(entry, block=block))
            continue
        # seconds = c_0 + sum of c_g * width_g, no c below 0: least squares over all cut networks
        found, _ = nnls(np.column_stack([np.ones(len(rows)), rows[:, its]]), seconds)
        if block is None:
            per_unit[list(its)] += found[1:]
            continue
        for group, slope in zip(its, found[1:], strict=True):
            widths = np.array([0, rows[:, group].max()])
            entries.append(Entry((group,), (widths,), slope * widths, block))
    table = replace(empty, per_unit=per_unit, entries=tuple(entries))
    ends = np.stack([rows.min(axis=0), rows.max(axis=0)])
    present = np.ones((2, len(empty.blocks)), dtype=np.int64)
    narrow, full = (float(seconds) for seconds in table.batch(np.column_stack([ends, present])))
    # Modules one by one take longer or shorter than in a row: the line through both ends says by how much.
    scale = (whole - least) / (full - narrow) if full > narrow else 1.0
    scaled = tuple(replace(entry, seconds=entry.seconds * scale) for entry in entries)
    return replace(table, fixed=whole - scale * full, per_unit=per_unit * scale, entries=scaled)


def _entry(its: tuple[int, ...], rows: Ints, seconds: Floats) -> Entry | None:
    """Lay seconds out by widths of one or two groups; None where a combination was not among the cut networks."""
    widths = tuple(np.unique(rows[:, group]) for group in its)
    table = np.full([len(each) for each in widths], np.nan)
    for row, value in zip(rows, seconds, strict=True):
        place = tuple(int(np.searchsorted(each, row[group])) for each, group in zip(widths, its, strict=True))
        table[place] = value
    if np.isnan(table).any():
        return None
    for axis in range(table.ndim):  # what is narrower and yet slower is noise, or no gain
        table = np.maximum.accumulate(table, axis=axis)
    return Entry(its, widths, table)


def _owners(
    model: nn.Module, example: Inputs, groups: Sequence[ChannelGroup], dense: list[tuple[str, Piece]]
) -> list[tuple[int, ...]]:
    """Find for each call the places of the groups that change its module or its input."""
    owners: list[list[int]] = [[] for _ in dense]
    for number, group in enumerate(groups):
        if group.channels == 1:
            continue
        narrowed = module_calls(cut(model, groups, {group.name: range(group.channels - 1)}), example)
        for its, (_, before), (_, after) in zip(owners, dense, narrowed, strict=True):
            if before.key != after.key:
                its.append(number)
    return [tuple(its) for its in owners]


def _pattern(channels: Sequence[int], owners: Sequence[tuple[int, ...]]) -> Ints:
    """Choose widths of all groups for ``K^2`` cut networks.

    Network ``(a, b)`` gives groups of colour ``c`` their width number ``(a + c * b) mod K``. For two colours and a
    prime ``K`` these pairs are all different, so that groups of different colours meet in all ``K^2`` combinations.
    Groups that share a module get different colours, as long as there are any.

    Args:
        channels: Units of each group.
        owners: Places of the groups that change each call.

    Returns:
        Kept units, ``[K^2, groups]``.
    """
    count = len(SHARES)
    neighbours: dict[int, set[int]] = defaultdict(set)
    for its in owners:
        if len(its) == 2:
            neighbours[its[0]].add(its[1])
            neighbours[its[1]].add(its[0])
    colours: dict[int, int] = {}
    for group in sorted(range(len(channels)), key=lambda each: -len(neighbours[each])):
        taken = {colours.get(other) for other in neighbours[group]}
        colours[group] = next((colour for colour in range(count) if colour not in taken), group % count)
    widths = [[_units_at(units, share) for share in SHARES] for units in channels]
    return np.array([
        [widths[group][(a + colours[group] * b) % count] for group in range(len(channels))]
        for a in range(count)
        for b in range(count)
    ])


def _units_at(units: int, share: float = SHARES[0]) -> int:
    """Return the units that a share of them comes to."""
    return max(1, round(units * share))
