"""The pictures of a report about a study; each is empty where the study has nothing for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from typing import Any

from search.fronts.attribution import attribute_methods
from search.fronts.front import Front, Member
from search.report.axis import Axis, choose_even_ticks, cost_axis, quality_axis
from search.report.page import network_text
from search.report.palette import COLOURS, styles
from search.report.plane import plane
from search.report.study_view import StudyView
from search.report.svg import Canvas, Scale


def overlay_svg(fronts: Sequence[Front]) -> str:
    """Draw the fronts of several studies with the same objectives in one picture, a colour each.

    Args:
        fronts: The fronts.

    Returns:
        A picture; empty where no front has a member.
    """
    quality, cost = fronts[0].quality, fronts[0].cost
    members = [(place, member) for place, front in enumerate(fronts) for member in front.members]
    if not members:
        return ""
    wholes = {front.dense.metrics.get(cost.name) for front in fronts}
    whole = wholes.pop() if len(wholes) == 1 else None
    across = cost_axis(cost, whole, [member.metrics[cost.name] for _, member in members])
    up = quality_axis(quality, fronts[0].dense_value(quality), [each.metrics[quality.name] for _, each in members], [])
    canvas = _canvas(across, up, 1180, 480)
    for place, front in enumerate(fronts):
        colour = place % len(COLOURS)
        corners = [
            (across.place(dot.member.metrics[cost.name]), up.place(dot.member.metrics[quality.name]))
            for dot in plane(front, cost, quality).stairs
        ]
        canvas.line(_steps(corners, across.high), f"l{colour}")
        for member in front.members:
            place_of = across.place(member.metrics[cost.name]), up.place(member.metrics[quality.name])
            canvas.mark(*place_of, "circle", 5, f"m{colour} o", f"{front.study}\n{network_text(front, member)}")
        canvas.text(canvas.width - 24, canvas.height - canvas.bottom - 12 - 18 * place, f"● {front.study}", "e")
        canvas.marks[-1] = canvas.marks[-1].replace('class="e"', f'class="e" style="fill:var(--m{colour})"')
    return canvas.render("fronts of all studies")


def _steps(corners: Sequence[tuple[float, float]], right: float) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for x, y in corners:
        points += [(x, points[-1][1]), (x, y)] if points else [(x, y)]
    return [*points, (right, points[-1][1])] if points else []


def _canvas(across: Axis, up: Axis, width: int, height: int) -> Canvas:
    canvas = Canvas(
        Scale(across.low, across.high, across.ticks(), across.title),
        Scale(up.low, up.high, up.ticks(), up.title),
        width,
        height,
        left=82,
    )
    canvas.frame()
    return canvas


def growth_svg(view: StudyView) -> str:
    """Draw the hypervolume over trials.

    Args:
        view: The study.

    Returns:
        A picture; empty without trials.
    """
    if not view.growth:
        return ""
    most = max(volume for _, volume in view.growth) or 1.0
    count = len(view.growth)
    across = Scale(0, count, [(x, f"{x:g}") for x in choose_even_ticks(0, count, 10) if x == int(x)], "finished trials")
    up = Scale(0, 1.08 * most, [(y, f"{y:g}") for y in choose_even_ticks(0, 1.08 * most, 6)], "hypervolume")
    canvas = Canvas(across, up, 760, 330)
    canvas.frame()
    canvas.line(_steps([(0, 0.0), *view.growth], count), "l0")
    looks = styles(outcome.method for outcome in view.outcomes)
    before = 0.0
    for (number, volume), outcome in zip(view.growth, view.outcomes, strict=True):
        if volume > before:
            look = looks[outcome.method]
            tip = f"trial {outcome.number} {outcome.method}\nhypervolume {volume:.4f} (+{volume - before:.4f})"
            canvas.mark(number, volume, look.symbol, 5, f"m{look.place} o", tip)
        before = volume
    return canvas.render("hypervolume over trials")


def draw_bars(rows: Sequence[tuple[str, float, str, int]], width: int = 560) -> str:
    """Draw bars, one below the other, with a text at each.

    Args:
        rows: Name, length from 0 to 1, text, and number of the colour of each bar.
        width: Width of the picture in pixels.

    Returns:
        A picture.
    """
    left = 24 + 7 * max((len(name) for name, *_ in rows), default=0)
    words = 20 + max(7 * len(text) for _, _, text, _ in rows)
    room = max(120, width - left - words)
    marks = []
    for place, (name, length, text, colour) in enumerate(rows):
        y = 8 + 26 * place
        marks.append(f'<text x="{left - 8}" y="{y + 13}" class="e">{escape(name)}</text>')
        marks.append(f'<rect class="b" x="{left}" y="{y}" width="{room}" height="18" rx="3"/>')
        marks.append(
            f'<rect class="m{colour}" x="{left}" y="{y}" width="{max(1.0, room * length):.1f}" height="18" rx="3"/>'
        )
        marks.append(f'<text x="{left + room + 8}" y="{y + 13}" class="s">{escape(text)}</text>')
    height = 12 + 26 * len(rows)
    box = f'viewBox="0 0 {left + room + words} {height}" width="{left + room + words}" height="{height}"'
    return f'<svg {box} role="img" aria-label="bars">{"".join(marks)}</svg>'


def _pairs_svg(view: StudyView, pairs: Sequence[tuple[Member, float, float]], words: tuple[str, str]) -> str:
    """Draw two values of the quality for each network of the front: an open mark, a full one, a line between."""
    if not pairs:
        return ""
    front = view.front
    quality = front.quality
    values = [value for _, first, second in pairs for value in (first, second)]
    axis = quality_axis(quality, front.dense_value(quality), values, [])
    names = [(len(pairs) - place, f"{member.trial} {member.method}") for place, (member, _, _) in enumerate(pairs)]
    canvas = Canvas(
        Scale(axis.low, axis.high, axis.ticks(7), quality.title),
        Scale(0.3, len(pairs) + 0.7, names),
        820,
        86 + 26 * len(pairs),
        left=150,
        top=10,
    )
    canvas.frame()
    looks = styles(outcome.method for outcome in front.outcomes)
    for place, (member, first, second) in enumerate(pairs):
        y, look = len(pairs) - place, looks[member.method]
        told = [f"{word} {quality.format(value)}" for word, value in zip(words, (first, second), strict=True)]
        tip = "\n".join([f"trial {member.trial} {member.method}", *told])
        canvas.line([(axis.place(first), y), (axis.place(second), y)], f"l{look.place} f", tip)
        canvas.mark(axis.place(first), y, "circle", 5, f"l{look.place}", tip)
        canvas.mark(axis.place(second), y, "circle", 6, f"m{look.place} o", tip)
    return canvas.render(f"{words[0]} and {words[1]}")


def tuning_svg(view: StudyView) -> str:
    """Draw the quality right after the cut and after fine-tuning.

    Args:
        view: The study.

    Returns:
        A picture; empty where no method reports the first.
    """
    name = view.front.quality.name
    found = [(member, view.outcome(member).extra.get(f"{name}_cut")) for member in view.front.members]
    pairs = [(member, cut, member.metrics[name]) for member, cut in found if cut is not None]
    return _pairs_svg(view, pairs, ("after the cut", "fine-tuned"))


def test_svg(view: StudyView) -> str:
    """Draw the quality on validation and on the test set.

    Args:
        view: The study.

    Returns:
        A picture; empty before the test set was looked at.
    """
    name = view.front.quality.name
    tested = [member for member in view.front.members if name in member.test_metrics]
    pairs = [(member, member.metrics[name], member.test_metrics[name]) for member in tested]
    return _pairs_svg(view, pairs, ("validation", "test"))


def curves_svg(view: StudyView) -> str:
    """Draw the quality on validation over epochs, for the networks of the front.

    Args:
        view: The study.

    Returns:
        A picture; empty where no network has a history.
    """
    front = view.front
    name = front.quality.name
    curves = []
    for member in front.members:
        history = [record for record in view.outcome(member).history if math.isfinite(record.get(name, math.nan))]
        if history:
            curves.append((
                member,
                [(record.get("epoch", place + 1), record[name]) for place, record in enumerate(history)],
            ))
    if not curves:
        return ""
    last = [curve[-1][1] for _, curve in curves]
    everything = [value for _, curve in curves for _, value in curve]
    axis = quality_axis(front.quality, front.dense_value(front.quality), last, everything)
    ends = [epoch for _, curve in curves for epoch, _ in curve]
    low, high = min(0.0, *ends), max(ends)
    across = Scale(
        low, high * 1.03 or 1.0, [(x, f"{x:g}") for x in choose_even_ticks(low, high, 10) if x == int(x)], "epoch"
    )
    canvas = Canvas(across, Scale(axis.low, axis.high, axis.ticks(), axis.title), 760, 380, left=82)
    canvas.frame()
    looks = styles(outcome.method for outcome in front.outcomes)
    for member, curve in curves:
        look = looks[member.method]
        points = [(epoch, max(axis.low, axis.place(value))) for epoch, value in curve]
        canvas.line(points, f"l{look.place}", f"trial {member.trial} {member.method}")
        canvas.mark(*points[-1], look.symbol, 4, f"m{look.place} o", network_text(front, member))
    return canvas.render("learning curves")


def timing_svg(view: StudyView) -> str:
    """Draw measured latency against FLOPs, both as shares of the dense network.

    Args:
        view: The study.

    Returns:
        A picture; empty where latency was not measured.
    """
    front = view.front
    networks = [member for member in (*front.dominated, *front.members) if member.latency_share is not None]
    if not networks:
        return ""
    most = 1.06 * max(1.0, *(max(each.flops_share, each.latency_share or 0.0) for each in networks))
    ticks = [(share, f"{100 * share:g} %") for share in choose_even_ticks(0, most, 8)]
    canvas = Canvas(
        Scale(0, most, ticks, "FLOPs, share of dense"), Scale(0, most, ticks, "latency, share of dense"), 620, 480
    )
    canvas.frame()
    canvas.line([(0, 0), (most, most)], "d")
    looks = styles(outcome.method for outcome in front.outcomes)
    best = {member.trial for member in front.members}
    for each in networks:
        look, strong = looks[each.method], each.trial in best
        kind = f"m{look.place} {'o' if strong else 'f'}"
        canvas.mark(
            each.flops_share,
            each.latency_share or 0.0,
            look.symbol,
            6 if strong else 4,
            kind,
            network_text(front, each),
        )
    canvas.mark(1.0, 1.0, "star", 9, "k o", "dense network")
    return canvas.render("latency against FLOPs")


def parallel_svgs(view: StudyView) -> str:
    """Draw parallel coordinates, one picture for each method, whose parameters are its own.

    Args:
        view: The study.

    Returns:
        Pictures; empty without complete trials.
    """
    looks = styles(outcome.method for outcome in view.front.outcomes)
    drawn = [_parallel(view, method, looks[method].place) for method in looks]
    return f'<div class="row">{"".join(each for each in drawn if each)}</div>' if any(drawn) else ""


ROOM = 1040
"""Pixels among which the axes of parallel coordinates are shared out; their names alternate between two lines."""


def _parallel(view: StudyView, method: str, colour: int) -> str:
    """Draw the trials of one method; a parameter that a trial does not have interrupts its line."""
    front = view.front
    mine = [outcome for outcome in front.outcomes if outcome.method == method]
    names = dict.fromkeys(name for outcome in mine for name in outcome.point)
    varied = [name for name in names if len({repr(outcome.point.get(name)) for outcome in mine}) > 1]
    if len(mine) < 2 or not varied:
        return ""
    columns: list[tuple[str, list[Any]]] = [(name, [outcome.point.get(name) for outcome in mine]) for name in varied]
    for objective in front.objectives:
        columns.append((objective.heading, [outcome.metrics[objective.name] for outcome in mine]))
    written = {objective.heading: objective.format for objective in front.objectives}
    step = max(76, min(118, ROOM // (len(columns) - 1)))
    width = 90 + step * (len(columns) - 1) + 90
    canvas = Canvas(Scale(0, len(columns) - 1), Scale(0, 1), width, 300, left=90, right=90, top=46, bottom=36)
    places = []
    for x, (name, values) in enumerate(columns):
        rank, ends = _rank_values(values, written.get(name))
        places.append(rank)
        canvas.marks.append(f'<path class="a n" d="M{canvas.x(x)} {canvas.y(0)}V{canvas.y(1)}"/>')
        shown = name if len(name) <= 17 else f"{name[:8]}…{name[-8:]}"
        canvas.marks.append(
            f'<text x="{canvas.x(x)}" y="{28 if x % 2 else 14}" class="c"><title>{escape(name)}</title>'
            f"{escape(shown)}</text>"
        )
        canvas.text(canvas.x(x), canvas.y(0) + 15, ends[0], "c s")
        canvas.text(canvas.x(x), canvas.y(1) - 4, ends[1], "c s")
    best = {member.trial for member in front.members}
    for row, outcome in sorted(enumerate(mine), key=lambda pair: pair[1].number in best):
        tip = network_text(front, Member.from_outcome(outcome, front.dense))
        for run in _split_at_gaps([(float(x), place[row]) for x, place in enumerate(places)]):
            canvas.line(run, f"l{colour}{'' if outcome.number in best else ' f'}", tip)
    picture = canvas.render(f"parameters of {method}")
    return f'<div class="wide"><h3>{escape(method)}</h3>{picture}</div>'


def _rank_values(
    values: Sequence[Any], write: Callable[[float], str] | None
) -> tuple[list[float | None], tuple[str, str]]:
    """Place values between 0 and 1, numbers by size, words in order of the alphabet; and name both ends."""
    known = [value for value in values if value is not None]
    numbers = [value for value in known if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(known):
        low, high = min(numbers), max(numbers)
        span = (high - low) or 1.0
        text = write or (lambda value: f"{value:.3g}")
        return [None if value is None else (value - low) / span for value in values], (text(low), text(high))
    words = sorted({str(value) for value in known})
    places = {word: place / max(1, len(words) - 1) for place, word in enumerate(words)}
    return [None if value is None else places[str(value)] for value in values], (words[0], words[-1])


def _split_at_gaps(points: Iterable[tuple[float, float | None]]) -> Iterator[list[tuple[float, float]]]:
    """Yield stretches without a gap."""
    run: list[tuple[float, float]] = []
    for x, y in points:
        if y is None:
            if run:
                yield run
            run = []
        else:
            run.append((x, y))
    if run:
        yield run


def attribution_bars(view: StudyView) -> str:
    """Draw what the front would lose without each method.

    Args:
        view: The study.

    Returns:
        A picture; empty where a single method was tried, or the front commands nothing.
    """
    whole = view.front.hypervolume()
    shares = attribute_methods(view.front)
    if len(shares) < 2 or whole <= 0:
        return ""
    looks = styles(share.method for share in shares)
    rows = [
        (
            share.method,
            share.lost / whole,
            f"{100 * share.lost / whole:.1f} %, {share.members} of {share.trials} trials on the front",
            looks[share.method].place,
        )
        for share in shares
    ]
    return draw_bars(rows, 620)


def importance_bars(view: StudyView) -> str:
    """Draw which parameters decide which objective.

    Args:
        view: The study.

    Returns:
        Pictures; empty where there are too few trials to say.
    """
    drawn = []
    looks = styles(view.importances)
    titles = {objective.name: objective.heading for objective in view.front.objectives}
    for method, by_objective in view.importances.items():
        for name, weights in by_objective.items():
            ordered = sorted(weights.items(), key=lambda pair: -pair[1])[:8]
            if ordered:
                rows = [(key, weight, f"{100 * weight:.0f} %", looks[method].place) for key, weight in ordered]
                drawn.append(
                    f"<div><h3>{escape(method)}: {escape(titles.get(name, name))}</h3>{draw_bars(rows, 520)}</div>"
                )
    return f'<div class="row">{"".join(drawn)}</div>' if drawn else ""
