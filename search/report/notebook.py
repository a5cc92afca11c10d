"""Fronts, networks and progress as a notebook shows them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from typing import Any

from search.fronts.front import Front, Member
from search.records.listener import Measurement
from search.records.outcome import DenseRow, Outcome
from search.report.page import front_pictures, summary_line
from search.report.progress import Lines, front_numbers
from search.report.study_page import STYLE as TABLES
from search.report.study_page import front_table_html
from search.report.svg import STYLE

SHOWN_LINES = 8


def front_html(front: Front) -> str:
    """Show a front: its picture, then its table.

    Args:
        front: The front.

    Returns:
        HTML without scripts; what belongs to a mark is its tooltip.
    """
    body = f"<b>{escape(front.study)}</b> <span>{escape(summary_line(front))}</span>"
    return _add_style(f"{body}{front_pictures(front)}{front_table_html(front)}")


def member_html(member: Member) -> str:
    """Show a network: its numbers beside the dense network's, and its parameters.

    Args:
        member: The network.

    Returns:
        HTML.
    """
    pairs = []
    for objective in member.shown:
        value, share = member.metrics.get(objective.name), member.share(objective.name)
        if value is not None:
            beside = f" ({100 * share:.1f} % of dense)" if objective.relative and share is not None else ""
            pairs.append((objective.title, objective.format(value) + beside))
        if objective.name in member.test_metrics:
            pairs.append((f"test {objective.heading}", objective.format(member.test_metrics[objective.name])))
    pairs += [(name, str(value)) for name, value in member.point.items()]
    return _add_style(f"<b>trial {member.trial} · {escape(member.method)}</b>{_pairs_table(pairs)}")


def plan_html(lines: Sequence[str]) -> str:
    """Show a plan.

    Args:
        lines: Its lines, each a word and a text.

    Returns:
        HTML.
    """
    pairs = [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]
    return _add_style(_pairs_table(pairs))


def _pairs_table(pairs: Sequence[tuple[str, str]]) -> str:
    rows = (
        f'<tr><td class="w">{escape(name)}</td><td class="w">{escape(text.strip())}</td></tr>' for name, text in pairs
    )
    return f"<table>{''.join(rows)}</table>"


def _add_style(body: str) -> str:
    return f'<style>{STYLE}{TABLES}</style><div class="pp" style="padding:10px">{body}</div>'


class NotebookProgress:
    """Shows a sweep in one output of a notebook cell, which renews itself."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        self._lines = Lines(self._text)
        self._handle: Any = None
        self._total = 0
        self._finished = 0
        self._head = ""

    def stage(self, text: str) -> None:
        """Show what is done now."""
        self._lines.stage(text)
        self._show()

    def dense_epoch(self, record: dict[str, float], epochs: int) -> None:
        """Show what an epoch reached."""
        self._lines.dense_epoch(record, epochs)
        self._show()

    def sweep_started(
        self, study: str, total: int, done: int, dense: DenseRow, objectives: Sequence[Measurement] = ()
    ) -> None:
        """Show how many trials there will be."""
        self._total, self._finished, self._head = total, done, study
        self._lines.sweep_started(study, total, done, dense, objectives)
        self._show()

    def trial_started(self, number: int, method: str) -> None:
        """Show that a trial runs."""
        self._lines.trial_started(number, method)
        self._show()

    def trial_progress(self, number: int, method: str, what: str, done: int, total: int) -> None:
        """Show how far a trial is."""
        self._lines.trial_progress(number, method, what, done, total)
        self._show()

    def trial_finished(self, outcome: Outcome, hypervolume: float, members: int) -> None:
        """Show what a trial reached."""
        self._finished += 1
        self._head = f"{self._head.partition(':')[0]}: {front_numbers(hypervolume, members)}"
        self._lines.trial_finished(outcome, hypervolume, members)
        self._show()

    def warning(self, text: str) -> None:
        """Show a warning."""
        self._lines.warning(text)
        self._show()

    def close(self) -> None:
        """Leave the last state behind."""
        self._lines.close()

    def _show(self) -> None:
        from IPython.display import DisplayHandle

        told = self._text.getvalue().splitlines()
        last = "\n".join(told[-SHOWN_LINES:])
        bar = f'<progress max="{max(1, self._total)}" value="{self._finished}"></progress>' if self._total else ""
        count = f" {self._finished}/{self._total} trials" if self._total else ""
        html = f"<div>{bar}{count} {escape(self._head)}</div><pre>{escape(last)}</pre>"
        data = {"text/plain": told[-1] if told else "", "text/html": html}
        if self._handle is None:
            self._handle = DisplayHandle()  # type: ignore[no-untyped-call]
            self._handle.display(data, raw=True)
        else:
            self._handle.update(data, raw=True)
