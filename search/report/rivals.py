"""Networks off the shelf beside a front, as a table of a page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from search.fronts.front import Front
from search.fronts.off_the_shelf import OffTheShelf, rivals
from search.objectives.units import write_count


def rivals_html(front: Front, networks: Sequence[OffTheShelf]) -> str:
    """Set each member of a front beside the best network of a table that costs no more.

    Args:
        front: The front.
        networks: Networks of a table; at least one.

    Returns:
        HTML.
    """
    cost, found = rivals(front, networks)
    word = {"flops": "FLOPs", "params": "parameters"}[cost]
    write, quality = write_count, front.quality
    rows = []
    for each in found:
        member, other = each.member, each.network
        own = member.test_metrics.get(quality.name, member.metrics[quality.name])
        cells = [f"{member.trial}", escape(member.method), write(member.metrics[cost]), quality.format(own)]
        if other is None:
            cells += ["none as cheap", "", "", ""]
        else:
            points = 100 * (own - other.accuracy)
            cells += [escape(other.name), write(other.costs[cost]), quality.format(other.accuracy), f"{points:+.2f}"]
        rows.append("<tr>" + "".join(f"<td{_kind(place)}>{cell}</td>" for place, cell in enumerate(cells)) + "</tr>")
    heads = ["trial", "method", word, "accuracy", "off the shelf", word, "accuracy", "points"]
    head = "".join(f"<th{_kind(place)}>{text}</th>" for place, text in enumerate(heads))
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _kind(place: int) -> str:
    return ' class="w"' if place in (1, 4) else ""
