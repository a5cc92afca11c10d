"""Networks that can be had as they are, beside a front: is pruning worth it at this cost?

They come from tables of others, such as timm's ``results-imagenet.csv`` (accuracy and parameters) and
``benchmark-infer-*.csv`` (FLOPs); of several tables, rows of the same name are one network.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.fronts.front import Front
from search.fronts.member import Member
from spaces import InputError

NAMES = ("model", "name", "network")
PERCENT = ("top1", "acc1", "accuracy", "acc")
"""Columns of accuracy; numbers above 1 are percentages."""

COSTS: Mapping[str, Mapping[str, float]] = {
    "flops": {"flops": 1.0, "infer_gmacs": 1e9, "gmacs": 1e9, "macs": 1.0},
    "params": {"params": 1.0, "param_count": 1e6, "infer_param_count": 1e6},
}
"""Columns by cost, and what their numbers are multiplied with."""


@dataclass(frozen=True)
class OffTheShelf:
    """A network of somebody's table.

    Attributes:
        name: Its name there.
        accuracy: Share of right answers, on the data of the table.
        costs: ``flops`` and ``params``, as far as they are known.
    """

    name: str
    accuracy: float
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Rival:
    """A member of a front and the best network of a table that costs no more.

    Attributes:
        member: The member.
        network: The network; ``None`` where the table has none as cheap.
    """

    member: Member
    network: OffTheShelf | None


def read_tables(paths: Sequence[Path]) -> list[OffTheShelf]:
    """Read networks from CSV files.

    Args:
        paths: The files; rows of the same name are joined.

    Returns:
        All networks with an accuracy and a cost, in order of their first row.

    Raises:
        InputError: If a file cannot be read or has no column of names, or no network has both numbers.
    """
    joined: dict[str, dict[str, float]] = {}
    for path in paths:
        for name, row in _rows(path):
            joined.setdefault(name, {}).update(_numbers(row))
    found = [
        OffTheShelf(name, numbers.pop("accuracy"), numbers)
        for name, numbers in joined.items()
        if "accuracy" in numbers and len(numbers) > 1
    ]
    if not found:
        accuracy, costs = ", ".join(PERCENT), ", ".join(column for each in COSTS.values() for column in each)
        raise InputError(
            f"{' and '.join(map(str, paths))}: no network has an accuracy (a column {accuracy}) and a cost (a column "
            f"{costs})"
        )
    return found


def rivals(front: Front, networks: Sequence[OffTheShelf]) -> tuple[str, list[Rival]]:
    """Find for each member of a front the best network of a table that costs no more.

    Args:
        front: A front with accuracy.
        networks: The table.

    Returns:
        By which cost they were compared (``"flops"`` where the table knows them, else ``"params"``), and the members by
        ascending cost.

    Raises:
        InputError: If the front has no accuracy.
    """
    if front.quality.name != "accuracy":
        raise InputError(f"study {front.study!r} has no accuracy to compare with that of the table")
    cost = "flops" if any("flops" in each.costs for each in networks) else "params"
    known = [each for each in networks if cost in each.costs]
    found = []
    for member in sorted(front.members, key=lambda each: each.metrics[cost]):
        cheap = [each for each in known if each.costs[cost] <= member.metrics[cost]]
        found.append(Rival(member, max(cheap, key=lambda each: each.accuracy, default=None)))
    return cost, found


def _rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [
                {(key or "").strip().lower(): text or "" for key, text in row.items()} for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from error
    key = next((name for name in NAMES if rows and name in rows[0]), None)
    if key is None:
        raise InputError(f"{path} has no column {', '.join(NAMES)} with names of networks")
    return [(row[key].strip(), row) for row in rows if row[key].strip()]


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    """Accuracy and costs of a row; what is no number is left out."""
    wanted = {"accuracy": dict.fromkeys(PERCENT, 1.0), **COSTS}
    found = {}
    for name, columns in wanted.items():
        values = [(_number(row.get(column, "")), factor) for column, factor in columns.items()]
        value = next((number * factor for number, factor in values if number is not None), None)
        if value is not None:
            found[name] = value / 100 if name == "accuracy" and value > 1 else value
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
