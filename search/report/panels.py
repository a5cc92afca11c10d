"""Everything about one trial, for the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from search.objectives import OBJECTIVES, Objective, list_shown_objectives
from search.objectives.units import write_duration, write_latency
from search.report.fitted import Column, FittedTable

if TYPE_CHECKING:
    from search.records.outcome import DenseRow, Outcome

_BAR = 24  # characters of a whole group of channels
_PER_LAYER = re.compile(r"(?P<quantity>[^\[]+)\[(?P<layer>.+)\]")  # a number of one layer: rank_in[layer1.0.conv1]


def trial_panel(
    outcome: Outcome, dense: DenseRow, objectives: Sequence[Objective] = (), metrics: Sequence[Objective] = ()
) -> Panel:
    """Lay out a finished trial: what was asked, what came out, what is left of every group.

    Args:
        outcome: The trial, complete or failed.
        dense: The dense network of its study.
        objectives: What its study searches for; needed for what is not of ours.
        metrics: Descriptions of the metrics of its task.

    Returns:
        The panel.
    """
    started = datetime.fromtimestamp(outcome.started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    facts = {"method": outcome.method, "seed": str(outcome.seed), "started": started}
    facts["took"] = write_duration(outcome.seconds)
    parts: list[RenderableType] = [_pairs(facts.items())]
    if outcome.metrics:
        shown = list_shown_objectives([*objectives, *OBJECTIVES.values()], metrics, dense)
        parts += _section("Result", _pairs(_results(outcome, dense, shown)))
    if outcome.timings or outcome.untimed:
        parts += _section("Latency as measured, by turns with the dense network", *_timings(outcome, dense))
    if outcome.point:
        parts += _section("Parameters", _pairs((name, str(value)) for name, value in outcome.point.items()))
    if outcome.extra:
        parts += _section("The method's own results", *_lay_out_results(outcome.extra))
    if outcome.history:
        parts += _section(f"Last of {len(outcome.history)} epochs", _pairs(_numbers(outcome.history[-1])))
    if outcome.widths:
        parts += _section(f"Channels kept{_explain_savings(outcome, dense)}", _widths(outcome.widths))
    if outcome.error is not None:
        parts += _section("Traceback", Text(outcome.error.rstrip(), style="red"))
    failed = not outcome.complete
    title = Text(f" trial {outcome.number} · {outcome.state} ", style="bold")
    return Panel(Group(*parts), title=title, title_align="left", border_style="red" if failed else "green")


def _results(outcome: Outcome, dense: DenseRow, shown: Mapping[str, Objective]) -> Iterator[tuple[str, str]]:
    """Yield each measurement in words, beside the dense network's.

    Args:
        outcome: The trial.
        dense: The dense network.
        shown: Descriptions of measurements by name.

    Yields:
        Name and text.
    """
    names = dict.fromkeys([*(name for name in shown if name in outcome.metrics), *outcome.metrics])
    for name in names:
        objective, value, whole = shown.get(name), outcome.metrics[name], dense.metrics.get(name)
        if objective is None:
            yield name, f"{value:.6g}"
        elif name != "seconds":  # told as what the trial took
            yield (
                name,
                objective.format(value) + ("" if whole is None else _compare_with_dense(objective, value, whole)),
            )
        if objective is not None and name in outcome.test_metrics:
            known = dense.test_metrics.get(name)
            beside = "" if known is None else f" (dense {objective.format(known)})"
            yield f"test {name}", objective.format(outcome.test_metrics[name]) + beside


def _compare_with_dense(objective: Objective, value: float, whole: float) -> str:
    if objective.relative and whole:
        return f" ({100 * value / whole:.1f} % of dense {objective.format(whole)})"
    drop = objective.drop(value, whole)
    lost = f"{abs(drop):.2f} points" if objective.style.endswith("%") else f"{abs(drop):.4g}"
    worse, better = ("below", "above") if objective.maximise else ("above", "below")
    return f" ({lost} {worse if drop >= 0 else better} dense {objective.format(whole)})"


def _timings(outcome: Outcome, dense: DenseRow) -> Iterator[RenderableType]:
    """Lay out every target: both networks, quotient, efficiency; or why it is missing.

    Args:
        outcome: The trial.
        dense: The dense network.

    Yields:
        A table, and a line for each target that is missing.
    """
    timed = outcome.timings
    if timed:
        share = outcome.metrics["flops"] / dense.flops
        yield FittedTable(
            "",
            [
                Column("target", [f"{name}{' ~' * timing.noisy}" for name, timing in timed.items()], words=True),
                Column("dense", [write_latency(each.dense.median) for each in timed.values()], 1),
                Column("pruned", [write_latency(each.pruned.median) for each in timed.values()]),
                Column("of dense", [f"{100 * each.share:.1f} %" for each in timed.values()]),
                Column("efficiency", [f"{each.efficiency(share):.2f}" for each in timed.values()], 2),
            ],
            "~ noisy: the measurement scattered" if any(each.noisy for each in timed.values()) else "",
        )
    for target, reason in outcome.untimed.items():
        yield Text.assemble(f"{target}  ", (reason, "red"))


def _lay_out_results(extra: Mapping[str, float]) -> Iterator[RenderableType]:
    """Lay out what a method reports: numbers of the whole network, then those of layers, a layer a line.

    Args:
        extra: The numbers by name; ``name[layer]`` for those of a layer.

    Yields:
        Grids.
    """
    whole: dict[str, float] = {}
    layers: dict[str, dict[str, float]] = {}
    for name, value in extra.items():
        found = _PER_LAYER.fullmatch(name)
        if found is None:
            whole[name] = value
        else:
            layers.setdefault(found["quantity"], {})[found["layer"]] = value
    if whole:
        yield _pairs(_numbers(whole))
    if layers:
        yield _LayerTables(layers)


@dataclass(frozen=True)
class _LayerTables:
    """Numbers of layers, a layer a line; quantities for which a line has no room come in a further table below."""

    layers: Mapping[str, Mapping[str, float]]
    """Values by quantity and layer."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        left = dict(self.layers)
        room = options.max_width - max(len(layer) for values in left.values() for layer in values)
        while left:
            beside: list[str] = []
            for quantity in left:
                if not beside or sum(_column(name, left[name]) for name in [*beside, quantity]) <= room:
                    beside.append(quantity)
            yield _tabulate_by_layer({quantity: left.pop(quantity) for quantity in beside})


def _column(quantity: str, values: Mapping[str, float]) -> int:
    """Characters that a column takes, with the space beside it."""
    return 2 + max(len(quantity), *(len(f"{value:.6g}") for value in values.values()))


def _tabulate_by_layer(quantities: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("layer", style="dim", overflow="fold")
    for quantity in quantities:
        table.add_column(Text(quantity), justify="right", no_wrap=True)
    for layer in dict.fromkeys(layer for values in quantities.values() for layer in values):
        cells = (f"{values[layer]:.6g}" if layer in values else "" for values in quantities.values())
        table.add_row(Text(layer), *map(Text, cells))
    return table


def _explain_savings(outcome: Outcome, dense: DenseRow) -> str:
    """Say how a network can be cheaper and have all its channels."""
    cheaper = outcome.metrics.get("flops", dense.flops) < dense.flops
    whole = all(kept == all_of_it for kept, all_of_it in outcome.widths.values())
    return ": all of them, what was saved lies within the layers" if cheaper and whole else ""


def _widths(widths: Mapping[str, tuple[int, int]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for group, (kept, whole) in widths.items():
        filled = round(_BAR * kept / whole)
        bar = Text("█" * filled) + Text("·" * (_BAR - filled), style="dim")
        table.add_row(Text(group), bar, Text(f"{kept} of {whole}"))
    return table


def _numbers(values: Mapping[str, float]) -> Iterable[tuple[str, str]]:
    return ((name, f"{value:.6g}") for name, value in values.items())


def _pairs(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold", style="dim")
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(Text(name), Text(text))
    return table


def _section(title: str, *bodies: RenderableType) -> list[RenderableType]:
    return [Text(), Text(title, style="bold"), *bodies]
