"""Networks of a study as flat rows, for tables, JSON and CSV: all measurements by name, costs also as shares."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.fronts.member import Member
from search.objectives import Objective
from search.records.outcome import DenseRow


@dataclass(frozen=True)
class Rows:
    """Makes rows that all have the same keys.

    Attributes:
        shown: What is known of every network, by name.
        quality: What tells a good network.
        dense: The dense network.
        timed: Whether latency was measured.
        drop: Returns how much of the quality a member lost.
    """

    shown: Mapping[str, Objective]
    quality: Objective
    dense: DenseRow
    timed: bool
    drop: Callable[[Member], float | None]

    def records(self, members: Sequence[Member]) -> list[dict[str, Any]]:
        """Return the dense network's row and those of members.

        Args:
            members: Members in the order of the rows.

        Returns:
            One mapping per row, all with the same keys.
        """
        names = sorted({name for member in members for name in member.point})
        dense = Member(-1, "dense", {}, self.dense.metrics, self.dense, self.dense.test_metrics)
        first = self.record(dense, names) | {"trial": None, "drop": 0.0}
        first |= {"noisy": None} if self.timed else {}
        return [first, *(self.record(member, names) for member in members)]

    def record(self, member: Member, names: Sequence[str] = ()) -> dict[str, Any]:
        """Return one row.

        Args:
            member: The network.
            names: Parameters to show, as ``point.NAME``.

        Returns:
            Trial, method, qualities, the drop, costs, ``test_NAME`` of the qualities that are trained, parameters.
        """
        qualities = [objective for objective in self.shown.values() if objective.quality]
        row: dict[str, Any] = {"trial": member.trial, "method": member.method}
        row |= {objective.name: member.metrics.get(objective.name) for objective in qualities}
        row |= {"drop": self.drop(member) if self.quality.name in member.metrics else None}
        for objective in self.shown.values():
            if not objective.quality:
                row |= _cost(member, objective)
        tested = [objective.name for objective in qualities if objective.trained]
        row |= {f"test_{name}": member.test_metrics.get(name) for name in tested}
        return row | {f"point.{name}": member.point.get(name) for name in names}


def _cost(member: Member, objective: Objective) -> dict[str, Any]:
    """Return a cost of a network with what belongs to it, by key."""
    value = member.metrics.get(objective.name)
    row: dict[str, Any] = {objective.name: round(value) if objective.style == "count" and value is not None else value}
    if objective.relative and objective.name != "seconds":
        row[f"{objective.name}_share"] = member.share(objective.name)
    if objective.name == "latency":
        row |= {"efficiency": member.efficiency, "noisy": member.noisy}
    return row


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as CSV with a header.

    Args:
        rows: One or more, all with the same keys.

    Returns:
        The text; missing values are empty.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
