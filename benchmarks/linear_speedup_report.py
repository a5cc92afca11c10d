"""Tables and plot of what ``benchmarks/linear_speedup.py`` measured.

    python benchmarks/linear_speedup_report.py speedup.jsonl --plot docs/images/linear_speedup.png

For each network, target and batch one table: milliseconds of every variant, and its efficiency. ``faster`` is the
time of the dense network over a variant's, the median over rounds of quotients within a round; ``efficiency`` is that
over the ratio of multiply-accumulates.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from search.records.timing import NOISE, Quartiles
from search.report.palette import RULE, styles

VARIANTS = ("pivoted", "both", "channels", "masked", "bsr", "csr")
"""What is drawn."""

DENSE = "dense"
PREPARED = "dense, prepared"
NAMES = {
    DENSE: "dense",
    PREPARED: "dense, prepared",
    "pivoted": "**pivoted**",
    "both": "**channels, then blocks**",
    "channels": "channels (L1)",
    "masked": "masked",
    "bsr": "block-compressed sparse (BSR)",
    "csr": "compressed sparse rows (CSR)",
}
"""Rows of the tables, in order, as they are written."""


@dataclass(frozen=True)
class Row:
    """One variant in one measurement.

    Attributes:
        variant: Its name.
        flops: Multiply-accumulates of the dense network over its own.
        seconds: Quartiles of its time.
        faster: Time of the dense network over its own: the median of quotients within rounds.
    """

    variant: str
    flops: float
    seconds: Quartiles
    faster: float

    @property
    def efficiency(self) -> float:
        """Latency ratio over FLOPs ratio."""
        return self.faster / self.flops


def rows(line: dict[str, Any], beside: str = DENSE) -> dict[str, Row]:
    """Evaluate a measurement.

    Args:
        line: A line of the file.
        beside: The variant that others are compared with.

    Returns:
        Rows by variant.
    """
    found = {}
    for table in (line["sparse_seconds"], line["seconds"]):
        for name, seconds in table.items() if beside in table else ():
            faster = median(d / s for d, s in zip(table[beside], seconds, strict=True))
            found[name] = Row(
                name, line["flops"]["dense"] / line["flops"][name], Quartiles.from_seconds(seconds), faster
            )
    return found


Panel = tuple[str, str, int]
"""Network, target and batch."""


def panels(lines: Sequence[dict[str, Any]]) -> dict[Panel, list[dict[str, Any]]]:
    """Put measurements of one network, target and batch together.

    Args:
        lines: The measurements.

    Returns:
        Measurements by network, target and batch, in order of saving.
    """
    found: dict[Panel, list[dict[str, Any]]] = {}
    for line in lines:
        found.setdefault((line["network"], line["target"], line["batch"]), []).append(line)
    ordered = sorted(found, key=lambda panel: (panel[1], -panel[2]))
    ordered.sort(key=lambda panel: panel[0], reverse=True)
    return {panel: sorted(found[panel], key=lambda line: float(line["saving"])) for panel in ordered}


def table(measurements: Sequence[dict[str, Any]]) -> str:
    """Write the measurements of a panel as a table in Markdown.

    Args:
        measurements: One for each saving.

    Returns:
        The table: of each variant milliseconds and efficiency at each saving, with ``~`` where the interquartile
        range is above what is called noisy.
    """
    savings = [line["saving"] for line in measurements]
    heads = ["network", *(f"{saving} times: ms" for saving in savings)]
    heads += [f"efficiency at {saving}" for saving in savings]
    written = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    found = [rows(line) for line in measurements]
    for name, title in NAMES.items():
        if not any(name in each for each in found):
            continue
        cells = [title]
        for each in found:
            row = each.get(name)
            cells.append("" if row is None else f"{'~' * (row.seconds.spread > NOISE)}{1e3 * row.seconds.median:.2f}")
        for each in found:
            row = each.get(name)
            cells.append("" if row is None or name == DENSE else f"{row.efficiency:.2f}")
        written.append("| " + " | ".join(cells) + " |")
    return "\n".join(written) + "\n"


def compare_with_prepared(lines: Sequence[dict[str, Any]]) -> str:
    """Write efficiencies beside the dense network that is prepared as the variants are.

    Args:
        lines: The measurements.

    Returns:
        A table in Markdown; of targets on which preparing makes a difference.
    """
    variants = ("pivoted", "both", "channels")
    heads = ["network, target, batch", "times fewer", *(NAMES[name] for name in variants)]
    written = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for (network, target, batch), measurements in panels(lines).items():
        for line in measurements:
            if PREPARED not in line["seconds"]:
                continue
            found = rows(line, PREPARED)
            cells = [f"{network}, {target}, {batch}", str(line["saving"])]
            cells += [f"{found[name].efficiency:.2f}" for name in variants]
            written.append("| " + " | ".join(cells) + " |")
    return "\n".join(written) + "\n"


def figure(lines: Sequence[dict[str, Any]]) -> Figure:
    """Draw how much faster networks are over how many fewer multiply-accumulates they have.

    Args:
        lines: The measurements.

    Returns:
        A figure, with a panel for each network, batch and target.
    """
    shown = panels(lines)
    columns = min(3, len(shown))
    height = -(-len(shown) // columns)
    drawn = Figure(figsize=(4.2 * columns, 3.6 * height), layout="constrained")
    for number, ((network, target, batch), measurements) in enumerate(shown.items()):
        axes = drawn.add_subplot(height, columns, number + 1)
        curves: dict[str, list[Row]] = {}
        for line in measurements:
            for name, row in rows(line).items():
                curves.setdefault(name, []).append(row)
        axes.plot([1, 9], [1, 9], color=RULE, linewidth=2, zorder=0)
        for name, look in styles(VARIANTS).items():
            points = sorted(curves.get(name, []), key=lambda row: row.flops)
            if points:
                x, y = [row.flops for row in points], [row.faster for row in points]
                axes.plot(x, y, marker=look.marker, color=look.colour, label=NAMES[name].strip("*"), linewidth=1)
        axes.set(title=f"{network}, batch {batch}, {target}", xscale="log", yscale="log")
        axes.set(xlabel="fewer multiply-accumulates", ylabel="faster")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(FixedLocator([0.125, 0.25, 0.5, 1, 2, 4, 8]))
            axis.set_major_formatter("{x:g}x")
            axis.set_minor_locator(NullLocator())
    known = {label: line for axes in drawn.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    drawn.legend(known.values(), known.keys(), loc="outside lower center", ncols=3, frameon=False)
    return drawn


def main() -> None:
    """Print the tables, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the measurements, one a line")
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args()
    lines = [json.loads(line) for line in asked.file.read_text(encoding="utf-8").splitlines()]
    for (network, target, batch), measurements in panels(lines).items():
        print(f"{network}, {target}, batch {batch}:\n\n{table(measurements)}")
    print(compare_with_prepared(lines), end="")
    if asked.plot is not None:
        figure(lines).savefig(asked.plot, dpi=110)


if __name__ == "__main__":
    main()
