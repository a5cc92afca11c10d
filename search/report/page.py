"""A front as a page of its own: the picture with a text under the pointer, no server and no network needed."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from search.fronts.front import Front, Member
from search.objectives import Objective
from search.report.palette import Style, shade_hex, styles
from search.report.plane import Dot, Plane, planes
from search.report.svg import STYLE, Canvas, Scale, shape_path

EMPTY = "no complete trial within these limits"

# What stands in a mark's title is shown at once, and beside the pointer, where scripts may run.
_SCRIPT = """
(() => {
  const box = document.createElement('div');
  box.className = 'tip';
  document.querySelector('.pp').append(box);
  for (const title of document.querySelectorAll('.pp svg title')) {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  }
  document.addEventListener('pointermove', event => {
    const mark = event.target.closest && event.target.closest('[data-tip]');
    box.style.display = mark ? 'block' : 'none';
    if (!mark) return;
    box.textContent = mark.dataset.tip;
    const x = Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8);
    const y = event.clientY + 16 + box.offsetHeight > innerHeight ? event.clientY - box.offsetHeight - 10
      : event.clientY + 16;
    box.style.left = Math.max(4, x) + 'px';
    box.style.top = Math.max(4, y) + 'px';
  });
})();
"""

_LAYOUT = """
html{min-height:100%}
body.pp{margin:0;box-sizing:border-box;padding:20px 28px 40px;min-height:100vh}
.pp h1{font-size:22px;margin:0 0 2px}.pp .sub{color:var(--muted);margin:0 0 14px}
.pp .tip{position:fixed;display:none;pointer-events:none;white-space:pre-line;background:var(--card);color:var(--ink);
border:1px solid var(--muted);border-radius:6px;padding:7px 10px;font-size:13px;max-width:420px;z-index:9}
.pp .keys{display:flex;flex-wrap:wrap;gap:4px 18px;margin:6px 0 12px;font-size:13px}
.pp .keys span{display:inline-flex;align-items:center;gap:6px}.pp .keys svg{display:inline-block}
.pp .grid{display:flex;flex-wrap:wrap;gap:18px}
"""


def page(title: str, body: str, style: str = "") -> str:
    """Make a page that holds all it needs.

    Args:
        title: What stands in the tab.
        body: HTML.
        style: Further rules.

    Returns:
        The page; nothing is loaded from anywhere.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{_LAYOUT}{style}</style>\n</head>\n"
        f'<body class="pp">\n<main>\n{body}\n</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n'
    )


def front_html(front: Front) -> str:
    """Draw a front as a page of its own.

    Args:
        front: The front.

    Returns:
        The page. Names and values of the user's are escaped.
    """
    head = f'<h1>{escape(front.study)}</h1>\n<p class="sub">{escape(summary_line(front))}</p>'
    return page(f"{front.study}: Pareto front", f"{head}\n{front_pictures(front, width=1160, height=600)}")


def summary_line(front: Front) -> str:
    """Say how large and how good a front is.

    Args:
        front: The front.

    Returns:
        One line.
    """
    counted = f"{len(front.members)} of {len(front.outcomes)} trials on the front"
    return f"{counted}, hypervolume {front.hypervolume():.4f}"


def front_pictures(front: Front, width: int = 760, height: int = 430) -> str:
    """Draw a front: one picture for each plane, and what the marks mean.

    Args:
        front: The front.
        width: Width of a picture in pixels.
        height: Its height.

    Returns:
        HTML.
    """
    looks = styles(outcome.method for outcome in front.outcomes)
    drawn = [plane_svg(front, shown, looks, width, height) for shown in planes(front)]
    pictures = "\n".join(f'<div id="front{f"-{place}" * (place > 0)}">{svg}</div>' for place, svg in enumerate(drawn))
    return f'{legend(looks, front)}\n<div class="grid">\n{pictures}\n</div>'


def legend(looks: dict[str, Style], front: Front) -> str:
    """Say what the marks mean.

    Args:
        looks: Style of each method.
        front: The front.

    Returns:
        HTML.
    """
    ring = 'style="stroke:var(--ink);stroke-width:1.6"'
    marks = {name: (f'class="m{look.place}"', look.symbol, 6) for name, look in looks.items()}
    marks["dominated"] = ('class="g f"', "circle", 5)
    if front.members:
        marks["knee"] = (f'class="n" {ring}', "circle", 7)
    marks["dense network"] = ('class="k"', "star", 7)
    keys = [
        (f'<path {kind} d="{shape_path(shape, 9, 9, size)}"/>', name) for name, (kind, shape, size) in marks.items()
    ]
    keys.append(('<path class="st" d="M1 14H9V5H17"/>', "Pareto front"))
    spans = (f'<span><svg width="18" height="18">{mark}</svg>{escape(name)}</span>' for mark, name in keys)
    return f'<div class="keys">{"".join(spans)}</div>'


def plane_svg(front: Front, shown: Plane, looks: dict[str, Style], width: int = 760, height: int = 430) -> str:
    """Draw one objective against another.

    Args:
        front: The front.
        shown: The picture's content.
        looks: Style of each method.
        width: Width in pixels.
        height: Height in pixels.

    Returns:
        One ``<svg>`` element.
    """
    across = Scale(shown.across.low, shown.across.high, shown.across.ticks(), shown.across.title)
    up = Scale(shown.up.low, shown.up.high, shown.up.ticks(), shown.up.title)
    canvas = Canvas(across, up, width, height, left=82, top=48)
    canvas.frame(shown.across.absolute_ticks(), shown.across.objective.title if shown.across.relative else "")
    canvas.stairs([(dot.x, dot.y) for dot in shown.stairs])
    if shown.dense[1] is not None:
        canvas.line([(across.low, shown.dense[1]), (across.high, shown.dense[1])], "d")
        canvas.text(canvas.left + 6, canvas.y(shown.dense[1]) - 5, shown.dense_text, "s")
    for dot in shown.dominated:
        look, tip = looks[dot.member.method], network_text(front, dot.member)
        if dot.y >= up.low:
            canvas.mark(dot.x, dot.y, look.symbol, 4.5, f"{_colour(shown, look)} f", tip, _shade(shown, dot))
        else:
            canvas.mark(dot.x, up.low, "triangle-down", 5, f"m{look.place} f", tip)
    if shown.below:
        canvas.text(width - canvas.right - 4, height - canvas.bottom - 14, f"▾ {shown.told_below}", "s e")
    knee = front.knee().trial if front.members else None
    for dot in shown.front:
        _draw_member(canvas, front, shown, dot, looks, dot.member.trial == knee)
    if None not in shown.dense:
        canvas.mark(shown.dense[0] or 0.0, shown.dense[1] or 0.0, "star", 10, "k o", dense_text(front))
    if shown.third is not None:
        _draw_scale_of_third(canvas, shown)
    if not shown.dots:
        canvas.text(width / 2, height / 2, EMPTY, "c s")
    return canvas.render(f"{shown.up.title} against {shown.across.title} of {front.study}")


def _draw_member(canvas: Canvas, front: Front, shown: Plane, dot: Dot, looks: dict[str, Style], is_knee: bool) -> None:
    tip = network_text(front, dot.member)
    x, y = canvas.x(dot.x), canvas.y(dot.y)
    if is_knee:
        body = shape_path("circle", x, y, 13)
        canvas.marks.append(f'<path class="n" style="stroke:var(--ink);stroke-width:1.6" d="{body}"/>')
    for distance, tie in enumerate(dot.ties):
        look = looks[tie.method]
        outline = shape_path(look.symbol, x, y, 10 + 3 * distance)
        told = f"<title>{escape(network_text(front, tie))}</title>"
        canvas.marks.append(f'<path class="l{look.place}" d="{outline}">{told}</path>')
    look = looks[dot.member.method]
    canvas.mark(dot.x, dot.y, look.symbol, 7, f"{_colour(shown, look)} o", tip, _shade(shown, dot))
    canvas.text(x - 9, y - 9, dot.label, "e")


def _colour(shown: Plane, look: Style) -> str:
    return f"m{look.place}" if shown.third is None else ""


def _shade(shown: Plane, dot: Dot) -> str:
    return "" if shown.third is None else shade_hex(shown.shade(dot.member))


def _draw_scale_of_third(canvas: Canvas, shown: Plane) -> None:
    """Say which colour is which value of the third objective."""
    third = shown.third
    if third is None or not shown.dots:
        return
    values = sorted((dot.member.metrics[third.name] for dot in shown.dots), reverse=third.maximise)
    # Above the line about what is not in the picture.
    right, y = canvas.width - canvas.right, canvas.height - canvas.bottom - 46
    for place in range(24):
        fill = shade_hex(place / 23)
        canvas.marks.append(f'<rect x="{right - 130 + 4 * place}" y="{y}" width="4" height="9" style="fill:{fill}"/>')
    canvas.text(right - 134, y + 9, third.format(values[0]), "e s")
    canvas.text(right - 30, y + 9, third.format(values[-1]), "s")
    canvas.text(right - 82, y - 5, third.title, "c s")


def network_text(front: Front, member: Member) -> str:
    """Say everything about a network in a few lines.

    Args:
        front: The front.
        member: A complete trial of its study.

    Returns:
        Lines of text.
    """
    lines = [f"trial {member.trial} · {member.method}"]
    for objective in front.shown.values():
        value = member.metrics.get(objective.name)
        if value is not None:
            lines.append(
                f"{objective.heading} {objective.format(value)}{_compare_with_dense(front, member, objective)}"
            )
        if objective.name in member.test_metrics:
            lines.append(f"test {objective.heading} {objective.format(member.test_metrics[objective.name])}")
    if ties := front.ties(member):
        lines.append("the same: " + ", ".join(f"trial {tie.trial} {tie.method}" for tie in ties))
    values = [f"{name} = {_value(value)}" for name, value in member.point.items()]
    return "\n".join(lines + ([""] + values if values else []))


def _compare_with_dense(front: Front, member: Member, objective: Objective) -> str:
    if objective == front.quality and objective.trained and (drop := front.drop(member)) is not None:
        points = "points " if objective.style.endswith("%") else ""
        return f" ({abs(drop):.2f} {points}{'worse' if drop >= 0 else 'better'} than dense)"
    share = member.share(objective.name) if objective.relative and objective.name != "seconds" else None
    if share is None:
        return ""
    more = ""
    if objective.name == "latency" and member.efficiency is not None:
        more = f", efficiency {member.efficiency:.2f}{', noisy' * member.noisy}"
    return f" ({100 * share:.1f} % of dense{more})"


def dense_text(front: Front) -> str:
    """Say everything about the dense network in a few lines.

    Args:
        front: The front.

    Returns:
        Lines of text.
    """
    return "\n".join(["dense network", *_dense_lines(front)])


def _dense_lines(front: Front) -> Iterable[str]:
    for objective in front.shown.values():
        if objective.name in front.dense.metrics and objective.name != "seconds":
            yield f"{objective.heading} {objective.format(front.dense.metrics[objective.name])}"
        if objective.name in front.dense.test_metrics:
            yield f"test {objective.heading} {objective.format(front.dense.test_metrics[objective.name])}"


def _value(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
