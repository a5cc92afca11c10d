"""Rows of a league, and the CSV that holds them: every method at every share of the FLOPs with every seed.

The file needs nothing beside itself: its first line, a comment in JSON, says what was compared, so that a table can be
made of it anywhere.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from spaces import InputError

DENSE = "dense"
"""Label of the rows of the networks that were pruned."""
SMALLER = "smaller"
"""Label of the control that prunes nothing: a narrower network of the same family, trained as long in all."""
BASELINE = "magnitude"
"""Label of the control that differences are taken against: retrained L1."""


@dataclass(frozen=True)
class LeagueRow:
    """One network of a league.

    Attributes:
        arm: What competes: a method with its settings, or a control.
        share: Share of the dense FLOPs that was asked for; NaN where none is: the dense network, and methods whose
            sparsity is what comes out.
        seed: Number of the seed, from 0.
        state: ``"complete"`` or ``"failed"``.
        validation: Quality on validation, by the first metric of the task.
        test: Quality on the test set; NaN where there is none.
        before: Quality on validation after the cut, before fine-tuning; NaN where it was not measured.
        flops: Multiply–accumulates for one input.
        params: Parameters.
        seconds: Wall-clock seconds.
        steps: Optimiser steps.
        channel_share: Share of the reduction that pivoting did by removing channels; NaN for other methods.
        error: The last line of a failure.
        point: Values of the method's parameters.
    """

    arm: str
    share: float
    seed: int
    state: str = "complete"
    validation: float = math.nan
    test: float = math.nan
    before: float = math.nan
    flops: float = math.nan
    params: float = math.nan
    seconds: float = math.nan
    steps: float = math.nan
    channel_share: float = math.nan
    error: str = ""
    point: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells rows apart: arm, share in words, seed."""
        return self.arm, "" if math.isnan(self.share) else f"{self.share:.6g}", self.seed


COLUMNS = tuple(each.name for each in fields(LeagueRow))


def write_csv(rows: Iterable[LeagueRow], about: Mapping[str, Any]) -> str:
    """Write rows as CSV.

    Args:
        rows: The rows.
        about: What was compared, in JSON's types.

    Returns:
        The text: a comment with ``about``, a head, one line per row. Numbers are written in full, NaN as nothing.
    """
    text = io.StringIO()
    text.write(f"# {json.dumps(about, sort_keys=True)}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(getattr(row, name)) for name in COLUMNS])
    return text.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return json.dumps(value) if isinstance(value, Mapping) else str(value)


def read_csv(text: str, name: str) -> tuple[list[LeagueRow], dict[str, Any]]:
    """Read what :func:`write_csv` wrote.

    Args:
        text: The text.
        name: Name of the file, for messages.

    Returns:
        The rows, and what was compared.

    Raises:
        InputError: If this is no such file.
    """
    lines = text.splitlines()
    try:
        about = json.loads(lines[0].removeprefix("# "))
        records = list(csv.DictReader(lines[1:]))
        return [_row(record) for record in records], about
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"{name} is no table of a league, or damaged: {error!r}") from error


def _row(record: Mapping[str, str]) -> LeagueRow:
    numbers = ("share", "validation", "test", "before", "flops", "params", "seconds", "steps", "channel_share")
    values: dict[str, Any] = {column: float(record[column] or "nan") for column in numbers}
    values |= {column: record[column] for column in ("arm", "state", "error")}
    return LeagueRow(**values, seed=int(record["seed"]), point=json.loads(record["point"] or "{}"))


def sort_rows(rows: Iterable[LeagueRow], arms: Sequence[str]) -> list[LeagueRow]:
    """Put rows in the order of a table.

    Args:
        rows: The rows.
        arms: Labels in the order they compete in.

    Returns:
        Dense networks first, then by share, the largest first, then by arm and seed.
    """
    place = {label: number for number, label in enumerate((DENSE, *arms))}

    def order(row: LeagueRow) -> tuple[bool, float, int, int]:
        share = -row.share if not math.isnan(row.share) else 0.0
        return row.arm != DENSE, share, place.get(row.arm, len(place)), row.seed

    return sorted(rows, key=order)
