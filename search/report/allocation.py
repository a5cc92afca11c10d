"""Widths for budgets, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from search.objectives import load_objectives
from search.objectives.units import write_count, write_latency, write_percent
from search.report.fitted import Column, FittedTable

if TYPE_CHECKING:
    from methods.contract.task import Task
    from search.records.allocation import Allotments, Allotted

NAMES = {"flops": "FLOPs", "params": "parameters", "latency": "time"}


def allocation_table(found: Allotments, name: str, task: Task | None = None) -> FittedTable:
    """Lay allocations out, a row for each budget, the dense network first.

    Args:
        found: The allocations.
        name: Name of the network.
        task: What the network is for; classification by default.

    Returns:
        The table.
    """
    metric = next(each for each in load_objectives((found.metric, "flops"), task) if each.name == found.metric)
    rows = found.rows
    columns = [
        Column("budget", ["dense", *(write_percent(row.budget, 1) for row in rows)], words=True),
        Column(found.metric, [metric.format(value) for value in (found.quality, *(row.quality for row in rows))]),
        Column("uniform", ["", *(metric.format(row.uniform) for row in rows)]),
        Column("FLOPs", [write_count(value) for value in (found.flops, *(row.flops for row in rows))]),
        Column(
            "of dense",
            [write_percent(value / found.flops, 1) for value in (found.flops, *_collect_field(rows, "flops"))],
        ),
        Column("params", [write_count(value) for value in (found.params, *(row.params for row in rows))], 2),
    ]
    if found.seconds is not None:
        predicted = [found.seconds, *(row.seconds for row in rows)]
        measured = [found.seconds, *(row.measured for row in rows)]
        columns.append(Column("time, table", [_latency(value) for value in predicted], 1))
        columns.append(Column("timed", [_latency(value) for value in measured]))
    if any(row.removed for row in rows):
        columns.append(Column("blocks gone", ["", *(str(len(row.removed) or "") for row in rows)]))
    columns.append(Column("widths kept", ["", *(_format_kept(row.widths, found.units) for row in rows)], 3))
    caption = (
        f"{found.metric} on validation before any training, beside that of equal shares everywhere within the same "
        f"budget of {NAMES[found.resource]}"
    )
    return FittedTable(f"Least damage for {name}", columns, caption, frozenset({0}))


def _latency(seconds: float | None) -> str:
    return "–" if seconds is None else write_latency(seconds)


def _collect_field(rows: tuple[Allotted, ...], field: str) -> list[float]:
    return [float(getattr(row, field)) for row in rows]


def _format_kept(widths: Mapping[str, int], units: Mapping[str, int]) -> str:
    """Write the share of the units that every group keeps, in tenths; * for all, - for none."""
    return "".join(_format_tenth(width, units[name]) for name, width in widths.items())


def _format_tenth(width: int, units: int) -> str:
    if width == units:
        return "*"
    return str(10 * width // units) if width else "-"
