"""A front as a page of its own: the picture with a text under the pointer, no server and no network needed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from search.objectives import OBJECTIVES
from search.objectives.units import write_count, write_duration, write_latency, write_percent
from search.report.palette import DENSE, INK, MUTED, RULE, Style, styles
from search.report.plane import Dot, Plane, planes

if TYPE_CHECKING:
    from search.fronts.front import Front, Member

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_TICKS = [a * 10.0**b for b in range(-5, 1) for a in (1, 2, 5)]
_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    # On by default in plotly 7: a button that sends the data to plotly's servers.
    "showSendToCloud": False,
    "modeBarButtonsToRemove": ["lasso2d", "select2d"],
}
_HALO = {"color": "white", "width": 1.5}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>html, body {{ margin: 0; height: 100%; background: #fff; }}</style>
</head>
<body>
{body}
</body>
</html>
"""


def front_html(front: Front) -> str:
    """Draw a front as an interactive page that holds all it needs.

    Args:
        front: The front.

    Returns:
        The page. Names and values of the user's are escaped.
    """
    shown = planes(front)
    # plotly itself is in the page once, with the first picture.
    bodies = [_picture(front, each, "front" + f"-{number}" * (number > 0)) for number, each in enumerate(shown)]
    return _PAGE.format(title=escape(f"{front.study}: Pareto front"), body="\n".join(bodies))


def _picture(front: Front, shown: Plane, name: str) -> str:
    """Draw accuracy against one cost, as a part of the page."""
    import plotly.graph_objects as go
    import plotly.io

    looks = styles(outcome.method for outcome in front.outcomes)
    figure = go.Figure([go.Scatter(trace) for trace in _traces(front, shown, looks)], _layout(front, shown))
    body: str = plotly.io.to_html(
        figure,
        include_plotlyjs=name == "front",
        full_html=False,
        default_height="100vh",
        div_id=name,
        config=_CONFIG,
    )
    return body


def _traces(front: Front, shown: Plane, looks: dict[str, Style]) -> Iterable[dict[str, Any]]:
    """Yield what is drawn, from back to front.

    Args:
        front: The front.
        shown: The picture's content.
        looks: Style of each method.

    Yields:
        One scatter trace each, in plotly's words.
    """
    if shown.stairs:
        yield {
            "x": [dot.x for dot in shown.stairs] + [shown.right],
            "y": [dot.y for dot in shown.stairs] + [shown.stairs[-1].y],
            "name": "Pareto front",
            "mode": "lines",
            "line": {"shape": "hv", "color": MUTED, "width": 2},
            "hoverinfo": "skip",
        }
    for method, look in looks.items():
        faint = [dot for dot in shown.dominated if dot.member.method == method]
        yield _dots(front, faint, method) | {
            "marker": {"symbol": look.symbol, "color": look.colour, "size": 9, "opacity": 0.38},
            "showlegend": False,
        }
    knee = front.knee().trial if front.members else None
    for dot in shown.front:
        if dot.member.trial == knee:
            ring = {"symbol": "circle-open", "color": INK, "size": 23, "line": {"width": 2}}
            yield {"x": [dot.x], "y": [dot.y], "name": "knee", "mode": "markers", "hoverinfo": "skip", "marker": ring}
    for method, look in looks.items():
        best = [dot for dot in shown.front if dot.member.method == method]
        marker = {"symbol": look.symbol, "color": look.colour, "size": 14, "line": _HALO}
        # Without points a trace is left out of the legend: one point that is nowhere stands for them.
        nowhere = {} if best else {"x": [None], "y": [None]}
        yield _dots(front, best, method) | {"marker": marker} | nowhere
    yield {
        "x": [1.0],
        "y": [shown.dense_accuracy],
        "name": "dense network",
        "mode": "markers",
        "marker": {"symbol": "star", "color": DENSE, "size": 19, "line": _HALO},
        "text": [_dense_text(front)],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _dots(front: Front, dots: list[Dot], method: str) -> dict[str, Any]:
    return {
        "x": [dot.x for dot in dots],
        "y": [dot.y for dot in dots],
        "name": escape(method),
        "legendgroup": escape(method),
        "mode": "markers",
        "text": [_text(front, dot.member) for dot in dots],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _text(front: Front, member: Member) -> str:
    """Return what the pointer tells about a trial, in the few tags that plotly knows."""
    lines = [
        f"<b>trial {member.trial} · {escape(member.method)}</b>",
        f"accuracy {write_percent(member.accuracy)} ({_beside(front.drop(member))})",
        f"FLOPs {write_count(member.flops)} ({100 * member.flops_share:.1f} % of dense)",
        f"parameters {write_count(member.params)} ({100 * member.params_share:.1f} % of dense)",
        *_latency_line(member),
        f"took {write_duration(member.seconds)}",
    ]
    if member.test_accuracy is not None:
        lines.insert(2, f"test accuracy {write_percent(member.test_accuracy)}")
    known = {"accuracy", "flops", "params", "seconds", "latency"}
    for name, objective in OBJECTIVES.items():
        if name in member.metrics and name not in known:
            lines.append(f"{escape(objective.title)} {escape(objective.format(member.metrics[name]))}")
    values = [f"{escape(name)} = {escape(_value(value))}" for name, value in member.point.items()]
    return "<br>".join(lines + ([""] + values if values else []))


def _latency_line(member: Member) -> list[str]:
    """Return the line about latency; none where it was not measured."""
    if member.latency is None or member.latency_share is None:
        return []
    told = f"{100 * member.latency_share:.1f} % of dense, efficiency {member.efficiency:.2f}"
    return [f"latency {write_latency(member.latency)} ({told}{', noisy' * member.noisy})"]


def _value(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _beside(drop: float | None) -> str:
    if drop is None:
        return "dense not known"
    return f"{abs(drop):.2f} points {'below' if drop >= 0 else 'above'} dense"


def _dense_text(front: Front) -> str:
    dense = front.dense
    test = [] if dense.test_accuracy is None else [f"test accuracy {write_percent(dense.test_accuracy)}"]
    cost = [f"FLOPs {write_count(dense.flops)}", f"parameters {write_count(dense.params)}"]
    cost += [] if dense.latency is None else [f"latency {write_latency(dense.latency)}"]
    return "<br>".join(["<b>dense network</b>", f"accuracy {write_percent(dense.accuracy)}", *test, *cost])


def _layout(front: Front, shown: Plane) -> dict[str, Any]:
    """Return axes, title and notes in plotly's words."""
    told = f"{len(front.members)} of {len(front.outcomes)} trials on the front, "
    told += f"hypervolume {front.hypervolume():.4f}"
    axis = {"gridcolor": RULE, "zeroline": False, "linecolor": MUTED, "showline": True}
    cost: dict[str, Any] = {"title": {"text": f"{shown.name}, share of the dense network"}, **axis}
    if shown.logarithmic:
        cost |= {"type": "log", "range": [math.log10(shown.left), math.log10(shown.right)]}
        cost |= {"tickvals": _TICKS, "ticktext": [f"{100 * tick:g} %" for tick in _TICKS]}
    else:
        cost |= {"range": [shown.left, shown.right], "tickformat": ".0%"}
    accuracy = {"title": {"text": "validation accuracy"}, "range": [shown.low, shown.high], "ticksuffix": " %"}
    return {
        "title": {
            "text": f"<b>{escape(front.study)}</b>",
            "subtitle": {"text": told, "font": {"color": MUTED, "size": 14}},
            "font": {"size": 22},
            "x": 0.02,
            "xanchor": "left",
        },
        "xaxis": cost,
        "yaxis": accuracy | axis,
        "font": {"family": _FONT, "color": INK, "size": 14},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "hoverlabel": {"bgcolor": "white", "bordercolor": MUTED, "font": {"color": INK}, "align": "left"},
        "legend": {"orientation": "h", "y": -0.13, "yanchor": "top", "x": 0, "traceorder": "normal"},
        "margin": {"l": 80, "r": 30, "t": 90, "b": 110},
        "shapes": [_dense_line(shown)],
        "annotations": _notes(shown),
    }


def _dense_line(shown: Plane) -> dict[str, Any]:
    height = {"y0": shown.dense_accuracy, "y1": shown.dense_accuracy}
    line = {"color": DENSE, "width": 1, "dash": "dot"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, **height, "line": line, "layer": "below"}


def _notes(shown: Plane) -> list[dict[str, Any]]:
    common: dict[str, Any] = {"xref": "paper", "showarrow": False, "font": {"color": MUTED, "size": 13}}
    text = f"dense {shown.dense_accuracy:.2f} %"
    notes = [{**common, "x": 0.005, "y": shown.dense_accuracy, "text": text, "yanchor": "bottom", "xanchor": "left"}]
    if shown.below:
        text = f"▾ {shown.told_below}; double-click to see all"
        notes.append({**common, "x": 1, "y": 0.01, "yref": "paper", "text": text, "xanchor": "right"})
    if not shown.dots:
        text = "no complete trial within these limits"
        notes.append({**common, "x": 0.5, "y": 0.4, "yref": "paper", "text": text})
    return notes
