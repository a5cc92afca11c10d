"""Tables for the terminal, at most 80 columns wide.

Texts that come from users (study names, values of parameters, tracebacks) are put in as ``Text``, so that no
bracket in them is taken for markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.table import Table
from rich.text import Text

from search.objectives.units import write_count, write_latency, write_percent
from search.report.panels import trial_panel

if TYPE_CHECKING:
    from search.fronts.front import Front, Member
    from spaces import Space

__all__ = [
    "BANDS",
    "Scale",
    "compare_rows",
    "compare_table",
    "front_table",
    "methods_table",
    "space_table",
    "status_table",
    "trial_panel",
]

BANDS = {"50%": 0.5, "25%": 0.25, "12.5%": 0.125}
"""Shares of the dense FLOPs at which studies are compared."""

_MISSING = "–"


def front_table(front: Front, members: Sequence[Member] | None = None) -> Table:
    """Lay out a front, the dense network first.

    Args:
        front: The front.
        members: Its members in the order to show them; ascending FLOPs if not given.

    Returns:
        The table; the knee is marked with an asterisk.
    """
    rows = front.members if members is None else members
    if front.timed:
        return _timed_table(front, rows)
    tested = front.dense.test_accuracy is not None or any(row.test_accuracy is not None for row in rows)
    knee = front.knee().trial if front.members else None
    table = _table(f"Pareto front of {front.study}", _front_caption(front))
    _columns(table, "method:left", "trial", "accuracy", "drop", "FLOPs", "of dense", "params")
    if tested:
        _columns(table, "test")
    flops, params = Scale(front.dense.flops), Scale(front.dense.params)
    test = [_or_missing(front.dense.test_accuracy)] if tested else []
    dense = [write_percent(front.dense.accuracy), "", flops.text(front.dense.flops), "100.0 %"]
    _row(table, ["dense", "", *dense, params.text(front.dense.params), *test], style="bold")
    for row in rows:
        trial = f"{'*' if row.trial == knee else ''}{row.trial}"
        accuracy = [write_percent(row.accuracy), f"{front.drop(row):.2f}"]
        cost = [flops.text(row.flops), _share(row.flops_share), params.text(row.params)]
        test = [_or_missing(row.test_accuracy)] if tested else []
        _row(table, [row.method, trial, *accuracy, *cost, *test])
    return table


def _timed_table(front: Front, rows: Sequence[Member]) -> Table:
    """Lay out a front with measured latencies: FLOPs and time side by side.

    Args:
        front: The front.
        rows: Its members in the order to show them.

    Returns:
        The table; parameters are shown where they are an objective, lost accuracy is left out, for want of room.
    """
    knee = front.knee().trial if front.members else None
    sized = any(objective.name == "params" for objective in front.objectives)
    tested = front.dense.test_accuracy is not None or any(row.test_accuracy is not None for row in rows)
    table = _table(f"Pareto front of {front.study}", _front_caption(front))
    _columns(table, "method:fold", "trial", "accuracy", "FLOPs", "latency", "time", "eff.")
    _columns(table, *(["params"] if sized else []), *(["test"] if tested else []))
    dense = front.dense
    last = [write_count(dense.params)] * sized + [_or_missing(dense.test_accuracy)] * tested
    first = ["dense", "", write_percent(dense.accuracy), "100.0 %", write_latency(dense.latency or 0.0), "100.0 %", ""]
    _row(table, [*first, *last], style="bold")
    for row in rows:
        trial = f"{'*' if row.trial == knee else ''}{row.trial}"
        last = [write_count(row.params)] * sized + [_or_missing(row.test_accuracy)] * tested
        numbers = [row.method, trial, write_percent(row.accuracy), _share(row.flops_share)]
        _row(table, [*numbers, *_timed_cells(row), *last])
    return table


def _timed_cells(row: Member) -> list[str]:
    """Write latency, its share and the efficiency; a tilde marks what scattered."""
    if row.latency is None or row.latency_share is None or row.efficiency is None:
        return [_MISSING] * 3
    return [f"{'~' * row.noisy}{write_latency(row.latency)}", _share(row.latency_share), f"{row.efficiency:.2f}"]


def _front_caption(front: Front) -> str:
    if not front.members:
        return "no complete trial within these limits"
    return (
        f"{len(front.members)} of {len(front.outcomes)} trials on the front, hypervolume "
        f"{front.hypervolume():.4f}\n* knee; {_timed_caption(front) if front.timed else 'drop in percentage points'}"
    )


def _timed_caption(front: Front) -> str:
    noisy = any(member.noisy for member in front.members)
    told = "FLOPs and time as shares of the dense network's\neff. 1 means: half the FLOPs, half the time"
    return told + ("\n~ the measurement scattered by more than 5 %" if noisy else "")


def status_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Lay out how far studies are.

    Args:
        rows: One mapping per study as ``status --json`` prints it: ``study``, ``states`` (a count for each
            state) and ``driver`` (whether one is at work).

    Returns:
        The table.
    """
    table = _table("Studies")
    _columns(table, "study:fold", "complete", "failed", "running", "waiting", "driver:left")
    for row in rows:
        states = row["states"]
        counts = [str(states[state]) for state in ("complete", "failed", "running", "waiting")]
        _row(table, [row["study"], *counts, "at work" if row["driver"] else "none"])
    return table


def compare_rows(fronts: Iterable[Front]) -> list[dict[str, Any]]:
    """Sum up fronts so that studies can be compared.

    Args:
        fronts: One front per study.

    Returns:
        For each study: ``study``, ``objectives``, ``trials`` (complete ones), ``members``, ``hypervolume`` (to
        be compared where the objectives are the same), ``dense_accuracy``, and ``best_accuracy`` at each of the
        :data:`BANDS` (``None`` where no trial is that cheap).
    """
    return [
        {
            "study": front.study,
            "objectives": [objective.name for objective in front.objectives],
            "trials": len(front.outcomes),
            "members": len(front.members),
            "hypervolume": front.hypervolume(),
            "dense_accuracy": front.dense.accuracy,
            "best_accuracy": {name: _best_within(front, share) for name, share in BANDS.items()},
        }
        for front in fronts
    ]


def _best_within(front: Front, share: float) -> float | None:
    """Return the best accuracy of all trials at or below a share of the dense FLOPs."""
    within = front.filter(max_flops=share).outcomes
    return max((outcome.metrics["accuracy"] for outcome in within), default=None)


def compare_table(fronts: Iterable[Front]) -> Table:
    """Lay out fronts beside each other.

    Args:
        fronts: One front per study.

    Returns:
        The table.
    """
    rows = compare_rows(fronts)
    caption = "best validation accuracy at or below these shares of the dense FLOPs"
    if len({tuple(row["objectives"]) for row in rows}) > 1:
        caption += "\nhypervolumes of different objectives cannot be compared:\n"
        caption += "\n".join(f"{row['study']}: {', '.join(row['objectives'])}" for row in rows)
    table = _table("Studies compared", caption)
    _columns(table, "study:fold", "front", "hypervolume", "dense", *(f"≤ {name}" for name in BANDS))
    for row in rows:
        counts = [f"{row['members']} of {row['trials']}", f"{row['hypervolume']:.4f}"]
        best = [_or_missing(accuracy) for accuracy in row["best_accuracy"].values()]
        _row(table, [row["study"], *counts, write_percent(row["dense_accuracy"]), *best])
    return table


def space_table(space: Space, title: str = "Search space") -> Table:
    """Lay out a search space.

    Args:
        space: The space.
        title: Heading of the table.

    Returns:
        The table: name, below it when the parameter applies; kind and range (or choices); the authors' value.
    """
    table = _table(title)
    _columns(table, "parameter:fold", "values:fold", "default:left")
    for entry in space.to_json():
        condition = entry["condition"]
        default = "" if entry["default"] is None else str(entry["default"])
        name = Text(entry["name"])
        if condition:
            name.append(f"\n  if {condition['parameter']} = {_any_of(condition['values'])}", style="dim")
        table.add_row(name, Text(_range(entry)), Text(default))
    return table


def _range(entry: Mapping[str, Any]) -> str:
    """Return the kind and the allowed values of a parameter in short."""
    if entry["choices"] is not None:
        return _any_of(entry["choices"])
    kind = ("whole" if entry["kind"] == "integer" else "real") + (", log" if entry["log"] else "")
    return f"{entry['low']:g} … {entry['high']:g} ({kind})"


def _any_of(values: Iterable[object]) -> str:
    return " | ".join(map(str, values))


def methods_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Lay out the pruning methods.

    Args:
        rows: One mapping per method as ``methods --json`` prints it: ``name``, ``title``, ``source``.

    Returns:
        The table.
    """
    table = _table("Pruning methods")
    _columns(table, "method:left", "what it does:fold", "source:fold")
    for row in rows:
        _row(table, [row["name"], row["title"], row["source"]])
    return table


class Scale:
    """Writes counts in the unit that suits the largest of them, so that a column can be compared by eye.

    Args:
        largest: The largest count.

    Example:
        >>> Scale(3_050_000).text(384_000)
        '0.38 M'
    """

    def __init__(self, largest: float) -> None:
        self._unit = write_count(largest).partition(" ")[2]
        self._factor = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}[self._unit]
        self._digits = 0 if not self._unit else 2 if largest < 100 * self._factor else 1

    def text(self, count: float) -> str:
        """Write a count.

        Args:
            count: The count.

        Returns:
            The count in the unit of the largest one.
        """
        return f"{count / self._factor:.{self._digits}f} {self._unit}".rstrip()


def _table(title: str, caption: str | None = None) -> Table:
    return Table(
        title=Text(title, style="bold"),
        caption=None if caption is None else Text(caption),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )


def _columns(table: Table, *headers: str) -> None:
    # "name" is a column of numbers, "name:left" one of words that stay whole, "name:fold" one of long texts.
    for header in headers:
        name, _, kind = header.partition(":")
        justify: Literal["left", "right"] = "left" if kind else "right"
        overflow: Literal["fold", "ellipsis"] = "fold" if kind == "fold" else "ellipsis"
        table.add_column(Text(name), justify=justify, no_wrap=kind != "fold", overflow=overflow)


def _row(table: Table, cells: Iterable[str], style: str | None = None) -> None:
    table.add_row(*(Text(cell) for cell in cells), style=style)


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"


def _or_missing(accuracy: float | None) -> str:
    return _MISSING if accuracy is None else write_percent(accuracy)
