"""The table of a confirmed front."""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.fronts.confirmation import Confirmation, ConfirmedMember, Spread
from search.objectives import Objective
from search.report.fitted import Column, FittedTable

_MISSING = "–"


def confirmation_table(confirmation: Confirmation) -> FittedTable:
    """Lay out a confirmed front: every objective over further seeds, test, optimism and verdict.

    Args:
        confirmation: The confirmed front.

    Returns:
        The table; where room is short, what was recorded goes first, then the optimism, then the test set.
    """
    front, members = confirmation.front, confirmation.members
    columns = [
        Column("trial", [str(each.member.trial) for each in members]),
        Column("method", [each.member.method for each in members], 2, words=True),
    ]
    for objective in front.objectives:
        name = objective.name
        if objective.quality:
            columns.append(Column("recorded", [objective.format(each.member.metrics[name]) for each in members], 5))
        cells = [write_spread(objective, each.validation(name)) for each in members]
        columns.append(Column(objective.heading, cells, 0 if objective.quality else 1))
    for metric in confirmation.tested[:1]:
        columns.append(Column("test", [write_spread(metric, each.test(metric.name)) for each in members], 3))
        cells = [write_points(metric, each.optimism(metric).mean) for each in members]
        columns.append(Column("optimism", cells, 4))
    columns.append(Column("", [_write_verdict(each, front.objectives) for each in members], words=True))
    return FittedTable(
        f"Front of {front.study} over {confirmation.seeds} further seeds", columns, _caption(confirmation)
    )


def write_spread(objective: Objective, spread: Spread) -> str:
    """Write a mean with its interval.

    Args:
        objective: What was measured.
        spread: Its values over seeds.

    Returns:
        Such as ``"93.10 ± 0.42 %"``; the mean alone where nothing scatters, a dash without values.
    """
    if not spread.values:
        return _MISSING
    mean, half = objective.format(spread.mean), spread.half_width
    if math.isnan(half) or half == 0:
        return mean
    unit = " %" if objective.style.endswith("%") else ""
    return f"{mean.removesuffix(unit)} ± {objective.format(half).removesuffix(unit)}{unit}"


def write_points(objective: Objective, difference: float) -> str:
    """Write a difference of two values: in percentage points where values are shares.

    Args:
        objective: What was measured.
        difference: The difference; NaN where it is not known.

    Returns:
        With its sign; a dash for NaN.
    """
    if math.isnan(difference):
        return _MISSING
    return f"{100 * difference:+.2f}" if objective.style.endswith("%") else f"{difference:+.3g}"


def _write_verdict(each: ConfirmedMember, objectives: Sequence[Objective]) -> str:
    if each.verdict == "open":
        names = [objective.name for objective in objectives]
        measured = sum(not outcome.list_missing(names) for outcome in each.complete.values())
        return f"open: {measured} of {len(each.reruns)} measured"
    return {"confirmed": "stands", "merged": f"as {each.into}", "beaten": f"beaten by {each.into}"}[each.verdict]


def _caption(confirmation: Confirmation) -> str:
    front, standing = confirmation.front, len(confirmation.confirmed)
    lines = [f"{standing} of {len(confirmation.members)} members stand; ± 95 % interval of the mean (Student's t)"]
    if any(each.verdict == "merged" for each in confirmation.members):
        lines.append("as N: noise cannot tell it from trial N, which costs no more")
    luck = confirmation.estimate_luck(front.quality)
    if front.quality in front.objectives and luck.values:
        lines.append(f"luck, recorded beyond the reruns: {_amount(front.quality, luck.mean)} on average")
    for metric in confirmation.tested[:1]:
        optimism = confirmation.optimism(metric)
        if optimism.values:
            lines.append(f"optimism, validation beyond test: {_amount(metric, optimism.mean)} on average")
    return "\n".join(lines)


def _amount(objective: Objective, difference: float) -> str:
    unit = " points" if objective.style.endswith("%") else f" {objective.unit}".rstrip()
    return f"{write_points(objective, difference)}{unit}"
