"""Tables for the terminal: they fit 80 columns as a rule, and fewer without a number cut.

Texts that come from users (study names, values of parameters, tracebacks) are put in as ``Text``, so that no
bracket in them is taken for markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from search.objectives.units import write_count
from search.report.fitted import Column, FittedTable
from search.report.listed import ListedTable
from search.report.panels import trial_panel

if TYPE_CHECKING:
    from search.fronts.front import Front, Member
    from search.objectives import Objective
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


def front_table(front: Front, members: Sequence[Member] | None = None) -> FittedTable:
    """Lay out a front, the dense network first: every objective, and what else is known as far as there is room.

    Args:
        front: The front.
        members: Its members in the order to show them; ascending FLOPs if not given.

    Returns:
        The table; the knee is marked with an asterisk, and trials that tie with a member come below it.
    """
    rows: list[Member] = []
    labels: list[str] = []
    knee = front.knee().trial if front.members else None
    for member in front.members if members is None else members:
        ties = front.ties(member)
        rows += [member, *ties]
        labels += [f"{'*' * (member.trial == knee)}{member.trial}", *(f"={tie.trial}" for tie in ties)]
    columns = [
        Column("method", ["dense", *(row.method for row in rows)], words=True),
        Column("trial", ["", *labels]),
        *_make_measured_columns(front, rows),
    ]
    faint = frozenset(place for place, label in enumerate(labels, 1) if label.startswith("="))
    return FittedTable(f"Pareto front of {front.study}", columns, _front_caption(front), frozenset({0}), faint)


# Which columns go first where room is short: the highest. An objective always stays, as a share where it has one.
_OBJECTIVE, _SHARE, _VALUE, _DROP, _TEST, _EXTRA = 0, 1, 2, 3, 4, 5


def _make_measured_columns(front: Front, rows: Sequence[Member]) -> Iterator[Column]:
    """Yield the columns of numbers: objectives, and what else is known.

    Args:
        front: The front.
        rows: The networks below the dense one.

    Yields:
        Columns from left to right.
    """
    wanted = {objective.name for objective in front.objectives}
    for objective in front.shown.values():
        own, name = objective.name in wanted, objective.name
        shared = objective.relative and name != "seconds" and bool(front.dense_value(objective))
        if (own and not (front.timed and name == "flops")) or name not in (
            ("seconds", "flops", "params") if front.timed else ("seconds",)
        ):
            yield _values(front, rows, objective, _VALUE if shared else _OBJECTIVE if own else _EXTRA)
        if objective == front.quality and objective.trained and not front.timed:
            drops = [front.drop(row) for row in rows]
            yield Column("drop", ["", *(_MISSING if drop is None else f"{drop:.2f}" for drop in drops)], _DROP)
        if shared and (own or name in ("flops", "latency")):
            shares = [row.share(name) for row in rows]
            heading = {"latency": "time", "flops": "FLOPs"}.get(name, "of dense") if front.timed else "of dense"
            cells = ["100.0 %", *(_MISSING if share is None else _share(share) for share in shares)]
            yield Column(heading, cells, _OBJECTIVE if own else _SHARE)
    if front.timed:
        ratios = [row.efficiency for row in rows]
        yield Column("eff.", ["", *(_MISSING if ratio is None else f"{ratio:.2f}" for ratio in ratios)], _DROP)
    for metric in [each for each in front.shown.values() if each.quality and each.trained][:1]:
        values = [found.get(metric.name) for found in (front.dense.test_metrics, *(row.test_metrics for row in rows))]
        if any(value is not None for value in values):
            yield Column("test", [_MISSING if value is None else metric.format(value) for value in values], _TEST)


def _values(front: Front, rows: Sequence[Member], objective: Objective, rank: int) -> Column:
    """Lay out a measurement; a tilde marks a latency that scattered."""
    whole = front.dense_value(objective)
    write = objective.format if objective.style != "count" or whole is None else Scale(whole).text
    cells = [_MISSING if whole is None or objective.name == "seconds" else write(whole)]
    for row in rows:
        value = row.metrics.get(objective.name)
        tilde = "~" * (row.noisy and objective.name == "latency")
        cells.append(_MISSING if value is None else f"{tilde}{write(value)}")
    return Column(objective.column, cells, rank)


def _front_caption(front: Front) -> str:
    if not front.members:
        return "no complete trial within these limits"
    counted = f"{len(front.members)} of {len(front.outcomes)} trials on the front"
    lines = [f"{counted}, hypervolume {front.hypervolume():.4f}", "* knee"]
    if front.timed:
        lines[1] += f"; {_write_timed_caption(front)}"
    elif front.quality.trained:
        lines[1] += f"; drop in {front.drop_unit}"
    if any(front.ties(member) for member in front.members):
        lines.append("= the same as the trial above it in every objective")
    if front.outside:
        numbers = ", ".join(map(str, front.outside))
        lines.append(f"beyond the limits of the study: trial{'s' * (len(front.outside) > 1)} {numbers}")
    return "\n".join(lines)


def _write_timed_caption(front: Front) -> str:
    noisy = any(member.noisy for member in front.members)
    told = "FLOPs and time as shares of the dense network's\neff. 1 means: half the FLOPs, half the time"
    return told + ("\n~ the measurement scattered by more than 5 %" if noisy else "")


def status_table(rows: Iterable[Mapping[str, Any]]) -> FittedTable:
    """Lay out how far studies are.

    Args:
        rows: One mapping per study as ``status --json`` prints it: ``study``, ``states`` (a count for each
            state) and ``driver`` (whether one is at work).

    Returns:
        The table.
    """
    known = list(rows)
    ranks = {"complete": 0, "failed": 2, "running": 2, "waiting": 3}
    for rare in ("stopped", "paused"):  # where trials have rungs
        if any(row["states"].get(rare) for row in known):
            ranks[rare] = 3
    counts = [Column(state, [str(row["states"].get(state, 0)) for row in known], rank) for state, rank in ranks.items()]
    study = Column("study", [row["study"] for row in known], words=True)
    drivers = Column("driver", ["at work" if row["driver"] else "none" for row in known], 4, words=True)
    return FittedTable("Studies", [study, *counts, drivers])


def compare_rows(fronts: Iterable[Front]) -> list[dict[str, Any]]:
    """Sum up fronts so that studies can be compared.

    Args:
        fronts: One front per study.

    Returns:
        For each study: ``study``, ``objectives``, ``trials`` (complete ones), ``members``, ``hypervolume`` (to
        be compared where the objectives are the same), ``quality`` (its name), ``dense_QUALITY``, and ``best_QUALITY``
        at each of the :data:`BANDS` (``None`` where no trial is that cheap): ``best_accuracy``, for instance.
    """
    return [
        {
            "study": front.study,
            "objectives": [objective.name for objective in front.objectives],
            "trials": len(front.outcomes),
            "members": len(front.members),
            "hypervolume": front.hypervolume(),
            "quality": front.quality.name,
            f"dense_{front.quality.name}": front.dense_value(front.quality),
            f"best_{front.quality.name}": {name: _find_best_within(front, share) for name, share in BANDS.items()},
        }
        for front in fronts
    ]


def _find_best_within(front: Front, share: float) -> float | None:
    """Return the best quality of all trials at or below a share of the dense FLOPs."""
    within = [outcome.metrics[front.quality.name] for outcome in front.filter(max_flops=share).outcomes]
    return (max if front.quality.maximise else min)(within, default=None)


def compare_table(fronts: Iterable[Front]) -> FittedTable:
    """Lay out fronts beside each other.

    Args:
        fronts: One front per study.

    Returns:
        The table.
    """
    known = list(fronts)
    rows = compare_rows(known)
    titles = " or ".join(dict.fromkeys(front.quality.title for front in known))
    caption = f"best {titles} at or below these shares of the dense FLOPs"
    if len({tuple(row["objectives"]) for row in rows}) > 1:
        caption += "\nhypervolumes of different objectives cannot be compared:\n"
        caption += "\n".join(f"{row['study']}: {', '.join(row['objectives'])}" for row in rows)
    columns = [
        Column("study", [front.study for front in known], words=True),
        Column("front", [f"{row['members']} of {row['trials']}" for row in rows], 4),
        Column("hypervolume", [f"{row['hypervolume']:.4f}" for row in rows], 1),
        Column("dense", [_format_or_missing(front, front.dense_value(front.quality)) for front in known], 3),
    ]
    for place, band in enumerate(BANDS):
        found = zip(known, rows, strict=True)
        best = [_format_or_missing(front, row[f"best_{front.quality.name}"][band]) for front, row in found]
        columns.append(Column(f"≤ {band}", best, 2 if place else 0))
    return FittedTable("Studies compared", columns, caption)


def space_table(space: Space, title: str = "Search space") -> ListedTable:
    """Lay out a search space.

    Args:
        space: The space.
        title: Heading of the table.

    Returns:
        The table: name, below it when the parameter applies; kind and range (or choices); the authors' value.
    """
    rows: list[list[str | Text]] = []
    for entry in space.to_json():
        condition = entry["condition"]
        name = Text(entry["name"])
        if condition:
            name.append(f"\n  if {condition['parameter']} = {_join_choices(condition['values'])}", style="dim")
        rows.append([name, _range(entry), "" if entry["default"] is None else _format_short(entry["default"])])
    return ListedTable(title, ["parameter", "values", "default"], rows)


def _format_short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _range(entry: Mapping[str, Any]) -> str:
    """Return the kind and the allowed values of a parameter in short."""
    if entry["choices"] is not None:
        return _join_choices(entry["choices"])
    kind = ("whole" if entry["kind"] == "integer" else "real") + (", log" if entry["log"] else "")
    return f"{entry['low']:g} … {entry['high']:g} ({kind})"


def _join_choices(values: Iterable[object]) -> str:
    return " | ".join(map(str, values))


def methods_table(rows: Iterable[Mapping[str, Any]]) -> ListedTable:
    """Lay out the pruning methods.

    Args:
        rows: One mapping per method as ``methods --json`` prints it: ``name``, ``title``, ``source``.

    Returns:
        The table.
    """
    cells = [[row["name"], row["title"], row["source"]] for row in rows]
    return ListedTable("Pruning methods", ["method", "what it does", "source"], cells)


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


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"


def _format_or_missing(front: Front, value: float | None) -> str:
    return _MISSING if value is None else front.quality.format(value)
