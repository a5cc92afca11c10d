"""What a notebook shows of fronts, networks, plans, spaces and a running sweep."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from search.records.outcome import DenseRow
from search.report import listeners, notebook, plots
from search.report.progress import Lines
from spaces import Categorical, Condition, LogReal, Space
from tests.search.cases import outcome
from tests.search.report.test_study_page import HOSTILE, view


def test_a_front_shows_picture_and_table() -> None:
    html = view(HOSTILE).front._repr_html_()
    assert html is not None
    assert "<svg" in html and "<table" in html and "=2" in html
    assert "<script" not in html


def test_a_member_shows_its_numbers_beside_dense() -> None:
    html = view().front.best()._repr_html_()
    assert html is not None
    for part in (
        "trial 0 · magnitude",
        "validation accuracy",
        "97.00 %",
        "60.0 % of dense",
        "sparsity.flops",
        "96.00 %",
    ):
        assert part in html


def test_a_plan_shows_its_lines() -> None:
    html = notebook.plan_html(["model     resnet: 5 FLOPs", f"data      {HOSTILE}"])
    assert '<td class="w">model</td><td class="w">resnet: 5 FLOPs</td>' in html and "<script>" not in html


def test_a_space_shows_conditions_and_defaults() -> None:
    space = Space(
        {"rate": LogReal(1e-4, 1e-1, default=1e-2), "mode": Categorical(("<a>", "b")), "depth": LogReal(1, 9)},
        {"depth": Condition("mode", ("b",))},
    )
    html = space._repr_html_()
    for part in ("0.0001 … 0.1, logarithmic", "0.01", "&lt;a&gt; | b", "if mode = b"):
        assert part in html


def test_a_figure_is_shown_inline() -> None:
    figure: Any = plots.front_figure(view().front)
    assert figure._repr_png_().startswith(b"\x89PNG")


class Handle:
    """Stands for an output of a cell."""

    shown: list[dict[str, str]] = []  # noqa: RUF012

    def display(self, data: dict[str, str], raw: bool) -> None:
        self.shown.append(data)

    update = display


def test_progress_renews_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(DisplayHandle=Handle))
    monkeypatch.setattr(Handle, "shown", [])
    heard = notebook.NotebookProgress()
    heard.stage("dense network")
    heard.dense_epoch({"epoch": 1.0, "loss": 0.5, "accuracy": 0.9}, 2)
    heard.sweep_started("digits", 2, 0, DenseRow.from_metrics(accuracy=0.9, flops=1000, params=100, seconds=1.0))
    heard.trial_started(0, "magnitude")
    heard.trial_finished(outcome(0), 0.5, 1)
    heard.warning("<b>careful</b>")
    heard.close()
    last = Handle.shown[-1]["text/html"]
    assert 'max="2" value="1"' in last and "1/2 trials digits: hypervolume 0.5000, 1 on the front" in last
    assert "accuracy 90.00 %  FLOPs 50.0 %" in last and "&lt;b&gt;careful" in last


def test_a_kernel_is_told_from_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not listeners.is_in_notebook()
    assert isinstance(listeners.choose_listener(), Lines)
    shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert isinstance(listeners.choose_listener(), notebook.NotebookProgress)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    assert not listeners.is_in_notebook(), "IPython on a terminal"
