"""One page about one study or several: self-contained, for light and dark, at home on 1280 pixels and more."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from search.fronts.confirmation import Spread
from search.fronts.front import Front, Member
from search.objectives import Objective
from search.report.confirmation import write_spread
from search.report.page import front_pictures, page
from search.report.palette import shade_hex
from search.report.quantised import precision_html
from search.report.rivals import rivals_html
from search.report.study_charts import (
    attribution_bars,
    curves_svg,
    growth_svg,
    importance_bars,
    overlay_svg,
    parallel_svgs,
    test_svg,
    timing_svg,
    tuning_svg,
)
from search.report.study_view import StudyView
from search.report.tables import BANDS, compare_rows

STYLE = """
.pp main{max-width:1560px;margin:0 auto}
.pp section+section h1,.pp nav~section h1{margin-top:46px}
.pp h2{font-size:18px;margin:34px 0 4px}.pp h3{font-size:15px;margin:14px 0 4px}
.pp p.why{color:var(--muted);margin:0 0 10px;max-width:90ch}
.pp .tiles{display:flex;flex-wrap:wrap;gap:10px;margin:14px 0}
.pp .tile{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:8px 14px;min-width:96px}
.pp .tile b{display:block;font-size:19px}.pp .tile span{color:var(--muted);font-size:12.5px}
.pp table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
.pp th,.pp td{padding:4px 10px;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
.pp th{color:var(--muted);font-weight:600}.pp td.w,.pp th.w{text-align:left;white-space:normal}
.pp .wide{overflow-x:auto;max-width:100%}.pp .wide svg{max-width:none}
.pp tr.dense td{font-weight:600}.pp tr.tie td{color:var(--muted)}
.pp td.heat{color:#fff;text-align:center;min-width:46px;border:1px solid var(--page)}
.pp td.heat.pale{color:#111}
.pp .row{display:flex;flex-wrap:wrap;gap:26px;align-items:flex-start}
.pp details{margin:8px 0}.pp summary{cursor:pointer;color:var(--muted)}
.pp .two{display:grid;grid-template-columns:repeat(auto-fit,minmax(560px,1fr));gap:0 34px}.pp .two>div{min-width:0}
.pp nav a{color:inherit;margin-right:16px}
.pp code{font-size:12.5px}
"""


def study_page(studies: Sequence[StudyView]) -> str:
    """Make the page.

    Args:
        studies: One study or several.

    Returns:
        HTML that loads nothing; names and values of the user's are escaped.
    """
    title = " and ".join(view.name for view in studies)
    parts = []
    if len(studies) > 1:
        links = "".join(f'<a href="#study-{place}">{escape(view.name)}</a>' for place, view in enumerate(studies))
        parts += [f"<h1>{len(studies)} studies</h1>", f"<nav>{links}</nav>", compare_section(studies)]
    for place, view in enumerate(studies):
        parts.append(f'<section id="study-{place}">{"".join(_study(view))}</section>')
    return page(f"{title}: report", "\n".join(parts), STYLE)


def _study(view: StudyView) -> Iterator[str]:
    """Yield the sections about one study; what it does not have is left out."""
    front = view.front
    objectives = ", ".join(objective.title for objective in front.objectives)
    yield f'<h1>{escape(front.study)}</h1><p class="sub">searched for {escape(objectives)}</p>'
    yield _tiles(view)
    yield section("Pareto front", "Nothing lies above and to the left of the steps.", front_pictures(front, 1180, 560))
    yield section("The networks of the front", _table_note(front), front_table_html(front))
    if view.confirmation:
        yield section("The front over further seeds", _CONFIRMED, confirmation_html(view))
    if view.shelf:
        yield section("Should I prune at all?", _SHELF, rivals_html(front, view.shelf))
    if view.precisions:
        yield section("In 8 bits", _PRECISION, precision_html(view.front, view.precisions))
    yield from _pair_up([
        ("Which method gives which part", _SHARES, attribution_bars(view)),
        ("Hypervolume over trials", "How much the front commands after each trial.", growth_svg(view)),
        ("Before and after fine-tuning", _TUNED, tuning_svg(view)),
        ("Validation against test", _TESTED, test_svg(view)),
        ("Learning curves", "Networks of the front, on validation.", curves_svg(view)),
        ("Latency against FLOPs", _TIMED, timing_svg(view)),
    ])
    parts = (
        ("Widths side by side", _WIDTHS, widths_table(view)),
        ("Parameters and what came of them", _PARALLEL, parallel_svgs(view)),
        ("What decides", _IMPORTANCE, importance_bars(view)),
        ("What can be pruned", _DIAGNOSIS, diagnosis_html(view)),
        ("Failed trials", "The last line of each traceback.", failures(view)),
        ("Settings", "All that decides the study.", settings(view)),
    )
    for title, why, body in parts:
        if body:
            yield section(title, why, body)


def _pair_up(parts: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """Yield sections two beside each other where there is room."""
    present = "".join(f"<div>{section(*part)}</div>" for part in parts if part[2])
    yield f'<div class="two">{present}</div>' if present else ""


_CONFIRMED = (
    "Means of runs with further seeds, by which nothing was chosen, and their 95 % intervals (Student's t). A member "
    "that noise cannot tell from a cheaper one is merged with it."
)
_SHELF = (
    "The best network of the table that costs no more than each of ours, and by how many points ours is better (on "
    "the test set, where it was looked at). The table has accuracies on its own data: yours compares if it is the same."
)
_DIAGNOSIS = (
    "Proven before anything was trained: each group was cut, compared with the network in which it was only silenced, "
    "counted and rebuilt."
)
_PRECISION = (
    "Graphs of ONNX Runtime in single precision (open) and in 8 bits (full), timed in turns on one core: quality on "
    "validation against seconds of one input. Those that lead are marked in the table."
)
_SHARES = (
    "Share of the hypervolume that would be lost without a method's trials, and its members of the front. What two "
    "methods reach alike is lost by neither."
)
_WIDTHS = (
    "Share of the channels that each network of the front keeps, by group in order of depth, cheapest network first."
)
_TUNED = "What was left right after the cut (open mark), and after the budget of fine-tuning (full mark)."
_TESTED = "The search looked at validation (open mark) and chose by it; nothing was chosen by the test set (full mark)."
_TIMED = "On the diagonal, saved FLOPs are saved time; above it they are not seen by the stopwatch."
_PARALLEL = (
    "One line per trial, drawn in full where it is on the front. Each method has its own axes: a line ends where a "
    "parameter does not apply."
)
_IMPORTANCE = "Share of each parameter in deciding an objective (PED-ANOVA), over the trials of one method."


def section(title: str, why: str, body: str) -> str:
    """Write a section.

    Args:
        title: Its heading.
        why: A sentence below it.
        body: HTML.

    Returns:
        HTML.
    """
    return f'<h2>{escape(title)}</h2><p class="why">{escape(why)}</p>{body}'


def _tiles(view: StudyView) -> str:
    front = view.front
    failed = sum(outcome.state == "failed" for outcome in view.outcomes)
    tiles = [
        (f"{len(view.outcomes)}", f"trials{f', {failed} failed' if failed else ''}"),
        (f"{len(front.members)}", "on the front"),
        (f"{front.hypervolume():.4f}", "hypervolume"),
    ]
    whole = front.dense_value(front.quality)
    if whole is not None:
        tiles.append((front.quality.format(whole), f"dense {front.quality.heading}"))
    if front.members:
        for rule in ("best", "knee"):
            member = front.pick(rule)
            tiles.append((
                front.quality.format(member.metrics[front.quality.name]),
                f"{rule}: trial {member.trial}, {member.method}, {_cost_text(front, member)}",
            ))
    return f'<div class="tiles">{"".join(_tile(*tile) for tile in tiles)}</div>'


def _tile(number: str, text: str) -> str:
    return f'<div class="tile"><b>{escape(number)}</b><span>{escape(text)}</span></div>'


def _cost_text(front: Front, member: Member) -> str:
    share = member.share(front.cost.name)
    if share is None:
        return f"{front.cost.heading} {front.cost.format(member.metrics[front.cost.name])}"
    return f"{100 * share:.1f} % of the {front.cost.heading}"


def _table_note(front: Front) -> str:
    ties = any(front.ties(member) for member in front.members)
    note = "Cheapest first; the knee has an asterisk."
    beyond = ""
    if front.outside:
        several = len(front.outside) > 1
        beyond = f" Trial{'s' * several} {', '.join(map(str, front.outside))} came out beyond the limits of the study."
    return note + (" A trial with = reaches exactly the same as the one above it." if ties else "") + beyond


def front_table_html(front: Front) -> str:
    """Write a front as a table, the dense network first.

    Args:
        front: The front.

    Returns:
        HTML.
    """
    shown = [objective for objective in front.shown.values() if objective.name != "seconds"]
    tested = [each for each in shown if each.quality and each.trained and _has_test_results(front, each)]
    heads = ['<th class="w">method</th>', "<th>trial</th>"]
    for objective in shown:
        heads.append(f"<th>{escape(objective.heading)}</th>")
        heads += ["<th>of dense</th>"] if objective.relative else []
    heads += [f"<th>test {escape(objective.heading)}</th>" for objective in tested]
    knee = front.knee().trial if front.members else None
    rows = [
        _row("dense", "", front.dense.metrics, front.dense.metrics, shown, front.dense.test_metrics, tested, "dense")
    ]
    for member in front.members:
        label = f"{'*' if member.trial == knee else ''}{member.trial}"
        for each, text, kind in [(member, label, ""), *((tie, f"={tie.trial}", "tie") for tie in front.ties(member))]:
            row = _row(each.method, text, each.metrics, front.dense.metrics, shown, each.test_metrics, tested, kind)
            rows.append(row)
    return f'<div class="wide"><table><tr>{"".join(heads)}</tr>{"".join(rows)}</table></div>'


def _has_test_results(front: Front, metric: Objective) -> bool:
    return metric.name in front.dense.test_metrics or any(metric.name in each.test_metrics for each in front.members)


def _row(
    method: str,
    trial: str,
    metrics: Mapping[str, float],
    dense: Mapping[str, float],
    shown: Sequence[Objective],
    test: Mapping[str, float],
    tested: Sequence[Objective],
    kind: str,
) -> str:
    cells = [f'<td class="w">{escape(method)}</td>', f"<td>{escape(trial)}</td>"]
    for objective in shown:
        value = metrics.get(objective.name)
        cells.append(f"<td>{'–' if value is None else escape(objective.format(value))}</td>")
        if objective.relative:
            whole = dense.get(objective.name)
            cells.append(f"<td>{f'{100 * value / whole:.1f} %' if value is not None and whole else '–'}</td>")
    for objective in tested:
        value = test.get(objective.name)
        cells.append(f"<td>{'–' if value is None else escape(objective.format(value))}</td>")
    return f'<tr class="{kind}">{"".join(cells)}</tr>'


def compare_section(studies: Sequence[StudyView]) -> str:
    """Set several studies beside each other: their fronts in one picture, and a table.

    Args:
        studies: Two studies or more.

    Returns:
        HTML.
    """
    fronts = [view.front for view in studies]
    rows = compare_rows(fronts)
    heads = "".join(f"<th>{head}</th>" for head in ("front", "hypervolume", "dense", *(f"≤ {band}" for band in BANDS)))
    body = []
    for front, row in zip(fronts, rows, strict=True):
        quality = front.quality
        best = [row[f"best_{quality.name}"][band] for band in BANDS]
        values = [row[f"dense_{quality.name}"], *best]
        cells = [f"{row['members']} of {row['trials']}", f"{row['hypervolume']:.4f}"]
        cells += ["–" if value is None else quality.format(value) for value in values]
        body.append(f'<tr><td class="w">{escape(front.study)}</td>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    table = f'<div class="wide"><table><tr><th class="w">study</th>{heads}</tr>{"".join(body)}</table></div>'
    same = len({tuple(objective.name for objective in front.objectives) for front in fronts}) == 1
    note = "Best quality at or below these shares of the dense FLOPs."
    if not same:
        note += " Hypervolumes of different objectives cannot be compared."
    return section("Studies compared", note, table + (overlay_svg(fronts) if same else ""))


def widths_table(view: StudyView) -> str:
    """Set the widths of all networks of the front side by side.

    Args:
        view: The study.

    Returns:
        A table, a row for each group of channels; empty where no network has groups.
    """
    members = [(member, view.outcome(member)) for member in view.front.members]
    groups = dict.fromkeys(group for _, outcome in members for group in outcome.widths)
    if not groups:
        return ""
    heads = "".join(f"<th>{member.trial}<br>{escape(member.method)}</th>" for member, _ in members)
    rows = []
    for group in groups:
        cells = []
        for _, outcome in members:
            kept, whole = outcome.widths.get(group, (0, 0))
            share = kept / whole if whole else math.nan
            pale = " pale" if share < 0.25 else ""
            colour = f' style="background:{shade_hex(1 - share)}"' if whole else ""
            text = f"{kept}" if whole else "–"
            cells.append(f'<td class="heat{pale}"{colour} title="{escape(group)}: {kept} of {whole} kept">{text}</td>')
        dense = max(outcome.widths.get(group, (0, 0))[1] for _, outcome in members)
        rows.append(f'<tr><td class="w"><code>{escape(group)}</code></td><td>{dense}</td>{"".join(cells)}</tr>')
    head = f'<tr><th class="w">group</th><th>dense</th>{heads}</tr>'
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def confirmation_html(view: StudyView) -> str:
    """Write what further seeds said of the front.

    Args:
        view: A study that was confirmed.

    Returns:
        A table: recorded value, mean and interval of every quality, and the verdict.
    """
    qualities = [objective for objective in view.front.objectives if objective.quality]
    heads = "".join(f"<th>{escape(each.heading)}, recorded</th><th>over seeds</th>" for each in qualities)
    rows = []
    for member in view.confirmation["members"]:
        cells = ""
        for objective in qualities:
            found = member["validation"][objective.name]
            again = write_spread(objective, Spread(tuple(found["values"])))
            cells += f"<td>{escape(objective.format(found['recorded']))}</td><td>{escape(again)}</td>"
        into = "" if member["into"] is None else f": {member['into']:d}"
        rows.append(
            f'<tr><td>{member["trial"]:d}</td><td class="w">{escape(member["method"])}</td>{cells}'
            f'<td class="w">{escape(member["verdict"])}{into}</td></tr>'
        )
    head = f'<tr><th>trial</th><th class="w">method</th>{heads}<th class="w">verdict</th></tr>'
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def diagnosis_html(view: StudyView) -> str:
    """Write what ``doctor`` found of the network before the sweep.

    Args:
        view: The study.

    Returns:
        A sentence, and a table of what stays whole; empty for a study that did not keep it.
    """
    found = view.record.get("diagnosis")
    if not found:
        return ""
    units = sum(group["units"] for group in found["groups"])
    flops, params = (100 * found[f"reachable_{name}_share"][0] for name in ("flops", "params"))
    told = (
        f"{len(found['groups'])} groups with {units} units can be pruned, down to {flops:.3g} % of the FLOPs and "
        f"{params:.3g} % of the parameters; cut and silenced networks differ by at most {found['difference']:.1g}."
    )
    reasons: dict[str, list[str]] = {}
    for name, why in {**found["stays"], **found["left_out"]}.items():
        reasons.setdefault(why, []).append(name)
    rows = "".join(
        f'<tr><td class="w"><code>{escape(", ".join(names[:3]))}</code>'
        f'{f" and {len(names) - 3} more" if len(names) > 3 else ""}</td><td class="w">{escape(why)}</td></tr>'
        for why, names in reasons.items()
    )
    head = '<tr><th class="w">stays whole</th><th class="w">why</th></tr>'
    return f"<p>{escape(told)}</p>" + (f"<table>{head}{rows}</table>" if rows else "")


def failures(view: StudyView) -> str:
    """List the trials that failed.

    Args:
        view: The study.

    Returns:
        A table; empty if none failed.
    """
    rows = []
    for outcome in view.outcomes:
        if outcome.error is not None:
            last = (outcome.error.strip().splitlines() or ["unknown"])[-1]
            rows.append(
                f'<tr><td>{outcome.number}</td><td class="w">{escape(outcome.method)}</td>'
                f'<td class="w">{escape(last[:300])}</td></tr>'
            )
    head = '<tr><th>trial</th><th class="w">method</th><th class="w">why</th></tr>'
    return f"<table>{head}{''.join(rows)}</table>" if rows else ""


def settings(view: StudyView) -> str:
    """Write the configuration and the versions.

    Args:
        view: The study.

    Returns:
        Two tables.
    """
    tables = []
    for title, tree in (
        ("configuration", view.record.get("config", {})),
        ("versions", view.record.get("versions", {})),
    ):
        rows = "".join(
            f'<tr><td class="w"><code>{escape(name)}</code></td><td class="w">{escape(text)}</td></tr>'
            for name, text in _flatten(tree)
        )
        tables.append(f"<div><h3>{title}</h3><table>{rows}</table></div>" if rows else "")
    return f'<details><summary>show all</summary><div class="row">{"".join(tables)}</div></details>'


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        elif value not in (None, {}, [], ()):
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
