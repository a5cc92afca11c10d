"""Table and plot of what ``benchmarks/linear_speedup.py`` measured.

    python benchmarks/linear_speedup_report.py speedup.jsonl --plot docs/images/linear_speedup.png

``faster`` is the time of the dense network over a variant's, the median over rounds of quotients within a round;
``efficiency`` is that over the ratio of multiply-accumulates. ``beside prepared`` is the efficiency beside the dense
network that was prepared as the variants are.
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

from search.report.palette import RULE, styles
from search.timing.record import Quartiles

VARIANTS = ("pivoted", "both", "channels", "masked", "bsr", "csr")
"""What is drawn."""

DENSE = "dense"
PREPARED = "dense, prepared"
COLUMNS = ("network", "batch", "target", "fewer", "variant", "ms", "IQR", "faster", "efficiency", "beside prepared")


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
            found[name] = Row(name, line["flops"]["dense"] / line["flops"][name], Quartiles.of(seconds), faster)
    return found


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Write all measurements as a table in Markdown.

    Args:
        lines: The measurements.

    Returns:
        The table.
    """
    written = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for line in lines:
        prepared_alike = rows(line, PREPARED) if PREPARED in line["seconds"] else {}
        for name, row in rows(line).items():
            alike = f"{prepared_alike[name].efficiency:.2f}" if name in prepared_alike else ""
            cells = [
                line["network"],
                str(line["batch"]),
                line["target"],
                f"{row.flops:.2f}x",
                name,
                f"{1e3 * row.seconds.median:.2f}",
                f"{100 * row.seconds.spread:.1f} %",
                f"{row.faster:.2f}x",
                f"{row.efficiency:.2f}",
                alike,
            ]
            written.append("| " + " | ".join(cells) + " |")
    return "\n".join(written) + "\n"


def figure(lines: Sequence[dict[str, Any]]) -> Figure:
    """Draw how much faster networks are over how many fewer multiply-accumulates they have.

    Args:
        lines: The measurements.

    Returns:
        A figure, with a panel for each network, batch and target.
    """
    panels: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for line in lines:
        panels.setdefault((line["network"], line["batch"], line["target"]), []).append(line)
    columns = min(3, len(panels))
    height = -(-len(panels) // columns)
    drawn = Figure(figsize=(4.2 * columns, 3.6 * height), layout="constrained")
    for number, ((network, batch, target), measurements) in enumerate(panels.items()):
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
                axes.plot(x, y, marker=look.marker, color=look.colour, label=name, linewidth=1)
        axes.set(title=f"{network}, batch {batch}, {target}", xscale="log", yscale="log")
        axes.set(xlabel="fewer multiply-accumulates", ylabel="faster")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(FixedLocator([0.125, 0.25, 0.5, 1, 2, 4, 8]))
            axis.set_major_formatter("{x:g}x")
            axis.set_minor_locator(NullLocator())
        axes.legend(frameon=False, fontsize=8)
    return drawn


def main() -> None:
    """Print the table, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the measurements, one a line")
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args()
    lines = [json.loads(line) for line in asked.file.read_text(encoding="utf-8").splitlines()]
    print(table(lines), end="")
    if asked.plot is not None:
        figure(lines).savefig(asked.plot, dpi=110)


if __name__ == "__main__":
    main()
