"""A profile of a network for people: a table for the terminal, and a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from search.objectives.units import write_count, write_latency
from search.report.fitted import Column, FittedTable
from search.report.palette import INK, MUTED, RULE, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from search.speed.profile import Layer, Profile, Saving

_UNKNOWN = "–"


def profile_table(profile: Profile, name: str) -> FittedTable:
    """Lay out a profile: two lines per layer; where a line has little room, without some of the cuts.

    Args:
        profile: The profile.
        name: Name of the network.

    Returns:
        The table. A cut is written at the first layer of its group.
    """
    cuts = [saving.cut for saving in next(iter(profile.savings.values()))]
    told: set[str] = set()
    rows = []
    for layer in profile.layers:
        first = layer.group is not None and layer.group not in told
        savings = profile.savings[layer.group] if first and layer.group is not None else ()
        rows.append(_cells(profile, layer, savings, len(cuts)))
        told |= {layer.group} if layer.group is not None else set()
    layers, flops, seconds, *saved = zip(*rows, strict=True)
    middle = len(cuts) // 2
    return FittedTable(
        f"{name} on {profile.target}",
        [
            Column("layer", layers, words=True),
            Column("FLOPs", flops, 1),
            Column("time", seconds),
            *(
                Column(f"cut {100 * cut:.0f} %", cells, 2 if place == middle else 3)
                for place, (cut, cells) in enumerate(zip(cuts, saved, strict=True))
            ),
        ],
        _caption(profile),
    )


def _cells(profile: Profile, layer: Layer, savings: tuple[Saving, ...], cuts: int) -> list[Text]:
    """Write a layer: name and shape, FLOPs and time with their shares, and what each cut saves."""
    tilde = "~" if layer.name in profile.noisy else ""
    seconds = _UNKNOWN if layer.seconds is None else tilde + write_latency(layer.seconds)
    share = "" if layer.seconds is None else f"{100 * layer.seconds / profile.modules:.1f} %"
    cells = [
        _stack_lines(layer.name, layer.shape),
        _stack_lines(write_count(layer.flops), f"{100 * layer.flops / profile.flops:.1f} %"),
    ]
    cells.append(_stack_lines(seconds, share))
    for saving in savings:
        cells.append(_stack_lines(f"{100 * saving.flops / profile.flops:.1f} %", _format_saved(saving.seconds)))
    if not savings:
        note = "stays" if layer.group is None else f"as {layer.group}"
        cells += [Text(note if len(note) <= 12 else "as above", style="dim")] + [Text("")] * (cuts - 1)
    return cells


def _stack_lines(first: str, second: str) -> Text:
    return Text(first) + Text(f"\n{second}", style="dim")


def _format_saved(seconds: float | None) -> str:
    if seconds is None:
        return _UNKNOWN
    return write_latency(seconds) if seconds >= 0 else f"-{write_latency(-seconds)}"


def _caption(profile: Profile) -> str:
    """Say what the numbers are."""
    lines = [
        f"batch of {profile.batch_size}, {profile.threads} thread{'s' * (profile.threads > 1)}: "
        f"{write_latency(profile.seconds)} a pass; modules timed alone add up to {write_latency(profile.modules)}",
        "cut: FLOPs and time that the whole network saves when the group of this layer loses these units",
    ]
    if profile.noisy:
        lines.append("~ scattered by more than 5 %: repeat it on a quieter machine")
    if profile.untimed:
        lines.append(f"not timed alone: {', '.join(profile.untimed)}")
    return "\n".join(lines)


def profile_figure(profile: Profile, name: str) -> Figure:
    """Draw a profile: where FLOPs and time are, and what cutting each group buys of both.

    Args:
        profile: The profile.
        name: Name of the network.

    Returns:
        The figure; its height grows with the number of layers.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from search.report.inline import InlineFigure

    rows = max(len(profile.layers), len(profile.savings))
    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12)
    figure = InlineFigure(figsize=(14, min(2.4 + 0.34 * rows, 60)), dpi=100, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_shares(left, profile)
    _draw_savings(right, profile)
    batch = f"batch of {profile.batch_size}, {write_latency(profile.seconds)} a pass on {profile.target}"
    left.set_title(name, loc="left", fontsize=15, fontweight="bold", color=INK, pad=12, parse_math=False)
    right.set_title(batch, loc="right", fontsize=10, color=MUTED, pad=12, parse_math=False)
    return figure


def _draw_shares(axes: Axes, profile: Profile) -> None:
    """Draw the share of FLOPs and of time of every layer as two bars."""
    looks = styles(["FLOPs", "time"])
    bars = {
        "FLOPs": [100 * layer.flops / profile.flops for layer in profile.layers],
        "time": [100 * (layer.seconds or 0.0) / profile.modules for layer in profile.layers],
    }
    for offset, (kind, values) in zip((-0.2, 0.2), bars.items(), strict=True):
        places = [row + offset for row in range(len(values))]
        axes.barh(places, values, height=0.38, color=looks[kind].colour, label=f"share of {kind}")
    _frame(axes, [layer.name for layer in profile.layers], "percent of the whole network")


def _draw_savings(axes: Axes, profile: Profile) -> None:
    """Draw what each cut of a group saves: time as dots, FLOPs as rings."""
    names = list(profile.savings)
    looks = styles(f"{saving.cut:.2f}" for savings in profile.savings.values() for saving in savings)
    for row, savings in enumerate(profile.savings.values()):
        for saving in savings:
            colour = looks[f"{saving.cut:.2f}"].colour
            share = 100 * saving.flops / profile.flops
            axes.scatter([share], [row], s=60, zorder=3, facecolors="none", edgecolors=colour, linewidths=1.4)
            if saving.seconds is not None:
                axes.scatter([100 * saving.seconds / profile.modules], [row], s=38, color=colour, zorder=4)
    for cut, look in looks.items():
        axes.scatter([], [], s=38, color=look.colour, label=f"{100 * float(cut):.0f} % of the units: time saved")
    axes.scatter([], [], s=60, facecolors="none", edgecolors=MUTED, label="FLOPs saved")
    _frame(axes, names, "percent of the whole network that a cut of the group saves")


def _frame(axes: Axes, names: list[str], label: str) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=9, color=INK, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(label, color=INK, fontsize=10, labelpad=8)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "left")
        spine.set_color(MUTED)
    # Below the axes, some 75 pixels lower, where it covers nothing.
    anchor = (0.5, -75 / axes.figure.bbox.height)
    axes.legend(loc="upper center", bbox_to_anchor=anchor, ncols=2, frameon=False, fontsize=9, labelcolor=INK)
