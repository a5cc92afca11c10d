"""The table of a league: means over seeds with their intervals, differences to retrained L1, ranges, costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from search.records.intervals import half_width
from search.records.league import BASELINE, DENSE, LeagueRow


def league_table(rows: Sequence[LeagueRow], about: Mapping[str, Any]) -> str:
    """Write a league as Markdown.

    Args:
        rows: The rows.
        about: What was compared, as in the CSV.

    Returns:
        A table for the dense networks and one for each share of the FLOPs, with what beats retrained L1 under it.
    """
    return "\n".join(_lines(rows, about)) + "\n"


def _lines(rows: Sequence[LeagueRow], about: Mapping[str, Any]) -> Iterator[str]:
    dense = [row for row in rows if row.arm == DENSE]
    whole = fmean(row.flops for row in dense) if dense else math.nan
    params = fmean(row.params for row in dense) if dense else math.nan
    quality = about.get("quality", "quality")
    if dense:
        mean = _mean([_choose_shown(row) for row in dense])
        yield f"Dense network: {quality} {mean} ({_name_split(dense)}), {whole:,.0f} FLOPs, {params:,.0f} parameters."
        yield ""
    for share in sorted({row.key[1] for row in rows if row.arm != DENSE}, key=lambda text: -float(text or 0)):
        group = [row for row in rows if row.arm != DENSE and row.key[1] == share]
        yield f"**{float(share):.4g} of the FLOPs**" if share else "**Sparsity is what comes out**"
        yield ""
        yield from _table(group, about.get("arms", []), whole, params, quality)
        yield ""
        yield from _write_verdict(group)


def _table(group: Sequence[LeagueRow], arms: Sequence[str], whole: float, params: float, quality: str) -> Iterator[str]:
    head = [
        "method",
        "seeds",
        f"{quality} ({_name_split(group)})",
        "against L1",
        "range",
        "before fine-tuning",
        "FLOPs",
        "parameters",
        "seconds",
        "remarks",
    ]
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    known = {row.arm for row in group}
    for arm in [*(label for label in arms if label in known), *sorted(known - set(arms))]:
        own = [row for row in group if row.arm == arm]
        done = [row for row in own if row.state == "complete"]
        if not done:
            yield f"| `{arm}` | 0 | | | | | | | | {own[-1].error.replace('|', '/')} |"
            continue
        shown = [_choose_shown(row) for row in done]
        gains = _gains(group, arm)
        cells = [
            f"`{arm}`",
            str(len(done)),
            _mean(shown),
            "" if arm == BASELINE or not gains else _mean(gains, sign=True),
            f"{100 * min(shown):.2f} to {100 * max(shown):.2f}",
            _mean([row.before for row in done if not math.isnan(row.before)]),
            f"{100 * fmean(row.flops for row in done) / whole:.1f} %",
            f"{100 * fmean(row.params for row in done) / params:.1f} %",
            f"{fmean(row.seconds for row in done):.1f}",
            _write_remarks(own),
        ]
        yield "| " + " | ".join(cells) + " |"


def _write_verdict(group: Sequence[LeagueRow]) -> Iterator[str]:
    """Say who is beyond the interval of the paired difference to retrained L1, on either side."""
    above: list[str] = []
    below: list[str] = []
    for arm in sorted({row.arm for row in group} - {BASELINE}):
        gains = _gains(group, arm)
        if len(gains) > 1 and abs(fmean(gains)) > half_width(gains):
            (above if fmean(gains) > 0 else below).append(f"`{arm}`")
    if above or below:
        yield f"Beyond the interval: above L1 {', '.join(above) or 'none'}; below {', '.join(below) or 'none'}."
        yield ""


def _gains(group: Sequence[LeagueRow], arm: str) -> list[float]:
    """Differences to retrained L1, seed by seed: both started from the same dense network."""
    base = {row.seed: _choose_shown(row) for row in group if row.arm == BASELINE and row.state == "complete"}
    own = {row.seed: _choose_shown(row) for row in group if row.arm == arm and row.state == "complete"}
    return [own[seed] - base[seed] for seed in sorted(own.keys() & base.keys())]


def _choose_shown(row: LeagueRow) -> float:
    """Quality on the test set where there is one: no choice was made by it."""
    return row.validation if math.isnan(row.test) else row.test


def _name_split(rows: Sequence[LeagueRow]) -> str:
    return "validation" if any(math.isnan(row.test) for row in rows if row.state == "complete") else "test"


def _mean(values: Sequence[float], sign: bool = False) -> str:
    """Write a mean in percent with its interval."""
    if not values:
        return ""
    mean, half = 100 * fmean(values), 100 * half_width(values)
    return f"{mean:+.2f}" * sign + f"{mean:.2f}" * (not sign) + ("" if math.isnan(half) else f" ± {half:.2f}")


def _write_remarks(own: Sequence[LeagueRow]) -> str:
    failed = [row for row in own if row.state != "complete"]
    shares = [row.channel_share for row in own if not math.isnan(row.channel_share)]
    said = [f"{fmean(shares):.0%} by removing channels"] if shares and fmean(shares) > 0 else []
    if any("damage" in row.point.values() for row in own):  # whatever the method calls the parameter
        said.append("widths by damage")
    said += [f"{len(failed)} failed: {failed[-1].error}"] if failed else []
    return "; ".join(said).replace("|", "/")
