"""Networks in 8 bits beside single precision: a table for the terminal, and a picture and a table for a page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from search.fronts.front import Front
from search.fronts.quantised import Precision
from search.objectives.units import write_latency
from search.report.axis import choose_even_ticks, quality_axis
from search.report.fitted import Column, FittedTable
from search.report.palette import styles
from search.report.svg import Canvas, Scale


def precision_table(front: Front, points: Sequence[Precision]) -> FittedTable:
    """Lay out networks in both precisions, the fastest first.

    Args:
        front: Their front.
        points: The networks.

    Returns:
        The table.
    """
    columns = [Column(head, cells, rank, words=head == "method") for head, cells, rank in _columns(front, points)]
    leading = frozenset(place for place, each in enumerate(points) if each.leading)
    caption = "in ONNX Runtime, one input on one core; • none is both better and faster"
    return FittedTable(f"{front.study} in 8 bits", columns, caption, strong=leading)


def precision_html(front: Front, points: Sequence[Precision]) -> str:
    """Draw networks in both precisions, quality against time, and list them.

    Args:
        front: Their front.
        points: The networks; at least one.

    Returns:
        HTML.
    """
    columns = _columns(front, points)
    heads = "".join(f'<th class="w">{head}</th>' if head == "method" else f"<th>{head}</th>" for head, *_ in columns)
    rows = []
    for place, each in enumerate(points):
        cells = "".join(
            f"<td{' class=w' if head == 'method' else ''}>{escape(texts[place])}</td>" for head, texts, _ in columns
        )
        rows.append(f"<tr{' class=dense' if each.leading else ''}>{cells}</tr>")
    table = f"<table><tr>{heads}</tr>{''.join(rows)}</table>"
    return f'<div class="row"><div>{_picture(front, points)}</div><div class="wide">{table}</div></div>'


def _columns(front: Front, points: Sequence[Precision]) -> list[tuple[str, list[str], int]]:
    """Headings, texts, and which go first where room is short."""
    quality = front.quality
    tests = [each.test_metrics.get(quality.name) for each in points]
    return [
        ("trial", [f"{'•' * each.leading}{each.trial}" for each in points], 0),
        ("method", [each.method for each in points], 1),
        ("bits", [str(each.bits) for each in points], 0),
        (quality.heading, [quality.format(each.metrics[quality.name]) for each in points], 0),
        ("test", ["–" if value is None else quality.format(value) for value in tests], 2),
        ("time", [write_latency(each.latency) for each in points], 0),
        ("size", [f"{each.bytes / 1000:,.0f} kB" for each in points], 1),
    ]


def _picture(front: Front, points: Sequence[Precision]) -> str:
    """Both precisions of each network, joined by a line."""
    quality = front.quality
    values = [each.metrics[quality.name] for each in points]
    up = quality_axis(quality, front.dense_value(quality), values, [])
    longest = 1.1 * max(each.latency for each in points)
    ticks = [(time, write_latency(time) if time else "0") for time in choose_even_ticks(0, longest, 6)]
    across = Scale(0, longest, ticks, "time of one input")
    canvas = Canvas(across, Scale(up.low, up.high, up.ticks(), up.title), 700, 420, left=82)
    canvas.frame()
    looks = styles(outcome.method for outcome in front.outcomes)
    for trial in dict.fromkeys(each.trial for each in points):
        pair = sorted((each for each in points if each.trial == trial), key=lambda each: -each.bits)
        look = looks[pair[0].method]
        places = [(each.latency, up.place(each.metrics[quality.name])) for each in pair]
        canvas.line(places, f"l{look.place}")
        for each, place in zip(pair, places, strict=True):
            text = f"trial {trial} {each.method}, {each.bits} bits\n{quality.format(each.metrics[quality.name])}, "
            text += f"{write_latency(each.latency)}, {each.bytes / 1000:,.0f} kB"
            canvas.mark(*place, look.symbol, 6, f"m{look.place} {'f' if each.bits == 32 else 'o'}", text)
    return canvas.render("quality against time in both precisions")
