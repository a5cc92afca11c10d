"""Tables and pictures: what they say, that they fit, that they are safe, that files are whole."""

from __future__ import annotations

import gc
import itertools
import json
import os
import random
import re
import weakref
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console, RenderableType

from methods import method_names
from search.fronts.front import Front
from search.objectives import load_objectives
from search.records.outcome import DenseRow, Outcome
from search.report import plots, tables
from search.report.axis import LEAST_WINDOW
from search.report.listed import ListedTable
from search.report.palette import styles
from search.report.plane import plane, planes
from search.report.views import ReportViews
from spaces import Categorical, Condition, InputError, Integer, LogReal, Real, Space
from tests.search.cases import outcome

DENSE = DenseRow.from_metrics(accuracy=0.9861, flops=3_050_000, params=77_850, seconds=9.4)
METHODS = ("eigendamage", "greedy", "increg", "magnitude", "pivoting", "random", "sdprun", "spp")
HOSTILE = "</script><script>alert(1)</script> [red]$x$"


def trial(number: int, accuracy: float, share: float, method: str = "magnitude", **changes: Any) -> Outcome:
    metrics = {"accuracy": accuracy, "flops": float(int(share * DENSE.flops)), "seconds": 5.0}
    metrics["params"] = float(int(share * DENSE.params))
    return outcome(number, method=method, metrics=metrics, **changes)


def front(trials: int = 24, seed: int = 0, study: str = "digits", objectives: str = "accuracy,flops") -> Front:
    """A front like a real one: accuracy falls faster the less is left."""
    rng = random.Random(seed)
    outcomes = []
    for number in range(trials):
        share = 0.03 * 30 ** rng.random()
        accuracy = DENSE.accuracy - 0.05 * rng.random() * (1 - share) ** 6 - 0.004 * rng.random()
        outcomes.append(trial(number, round(accuracy * 360) / 360, share, METHODS[number % len(METHODS)]))
    return Front(study, DENSE, outcomes, load_objectives(objectives), views=ReportViews())


def print_table(table: RenderableType, width: int = 80) -> str:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def rows_of(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]


def test_the_front_table_tells_what_is_needed() -> None:
    shown = Front("digits", DENSE, [trial(7, 0.98, 0.25), trial(3, 0.9889, 0.5)], load_objectives("accuracy,flops"))
    rows = rows_of(print_table(tables.front_table(shown)))
    assert ["dense", "98.61 %", "3.05 M", "100.0 %", "77.85 k"] in rows
    assert ["magnitude", "7", "98.00 %", "0.61", "0.76 M", "25.0 %", "19.46 k"] in rows
    assert ["magnitude", "*3", "98.89 %", "-0.28", "1.52 M", "50.0 %", "38.92 k"] in rows
    assert f"hypervolume {shown.hypervolume():.4f}" in print_table(tables.front_table(shown))


def test_the_front_table_takes_any_order_and_selection() -> None:
    shown = front()
    chosen = shown.sort("accuracy")[:2]
    rows = rows_of(print_table(tables.front_table(shown, chosen)))
    assert [row[1].lstrip("*") for row in rows if row[0] in METHODS] == [str(member.trial) for member in chosen]


def test_test_accuracy_has_a_column_once_it_is_known() -> None:
    assert "test" not in print_table(tables.front_table(front()))
    tested = [trial(0, 0.98, 0.5, test_metrics={"accuracy": 0.97}), trial(1, 0.97, 0.25)]
    rows = rows_of(print_table(tables.front_table(Front("s", DENSE, tested, load_objectives("accuracy,flops")))))
    assert [row[-1] for row in rows if row[0] in ("dense", "magnitude")] == ["–", "–", "97.00 %"]


def test_an_empty_front_says_so() -> None:
    assert "no complete trial within these limits" in print_table(tables.front_table(front().filter(max_flops="1k")))


def a_space() -> Space:
    return Space.choose("method", {
        "increg": Space({
            "penalty_step": LogReal(1e-5, 1e-2, default=1e-4),
            "sparsity.mode": Categorical(("uniform", "layer")),
            "sparsity.ratios[stages.2.0.conv1]": Real(0, 0.9),
            "epochs": Integer(1, 8),
        }, {"sparsity.ratios[stages.2.0.conv1]": Condition("sparsity.mode", ("layer",))})
    })  # fmt: skip


OWN_RESULTS = {
    f"{name}[layer{n}.0.conv1]": 0.123456 * n
    for name in ("rank_in", "rank_out", "directions", "damage", "eigenvalues", "least_squares")
    for n in (1, 2)
}

STATUS = {
    "study": "2026-11-21-resnet56-on-cifar10-all-methods",
    "states": {"complete": 1200, "failed": 10, "running": 16, "waiting": 2000},
    "driver": True,
}


@pytest.mark.parametrize(
    "table",
    [
        lambda: tables.front_table(front(60, study="a long name of a study, " * 9)),
        lambda: tables.compare_table([front(), front(40, 1, "2026-11-21-resnet56-on-cifar10-all-methods")]),
        lambda: tables.status_table([STATUS]),
        lambda: tables.space_table(a_space()),
        lambda: tables.methods_table([{"name": name, "title": "t" * 70, "source": "s " * 70} for name in METHODS]),
        lambda: tables.trial_panel(outcome(error="x" * 300 + "\n"), DENSE),
    ],
)
def test_tables_fit_into_80_columns_with_every_number_whole(table: Any) -> None:
    text = print_table(table())
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    # The same numbers, in full, as with all the room in the world.
    numbers = re.compile(r"\d+(?:\.\d+)? [%kM]|\b0\.\d{4}\b")
    assert sorted(numbers.findall(text)) == sorted(numbers.findall(print_table(table(), width=400)))


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize(
    "table",
    [
        lambda: tables.front_table(front(30, study="digits-resnet-001")),
        lambda: tables.compare_table([front(study="digits-resnet-001"), front(40, 1, "digits-resnet-002")]),
        lambda: tables.status_table([{**STATUS, "study": "digits-resnet-001"}]),
        lambda: tables.space_table(a_space()),
        lambda: tables.methods_table([{"name": name, "title": "word " * 30, "source": "s " * 70} for name in METHODS]),
        lambda: tables.trial_panel(outcome(extra=OWN_RESULTS), DENSE),
        lambda: ListedTable("", ["key", "default", "meaning"], [["finetune.recipe.distill", "0.0", "weight of " * 9]]),
    ],
)
def test_no_word_and_no_number_is_cut(table: Any, width: int) -> None:
    def list_words(text: str) -> set[str]:
        return {word for word in re.split(r"[\s│╭╮╰╯─]+", text.partition("left out for want of room")[0]) if word}

    text = print_table(table(), width=width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    labels = {"values:", "default:", "what", "it", "does:", "source:", "meaning:", "layer"}  # of entries and tables
    assert list_words(text) - labels <= list_words(print_table(table(), width=400))


def test_counts_of_a_column_share_their_unit() -> None:
    assert [tables.Scale(125_490_000).text(n) for n in (125_490_000, 3_100_000)] == ["125.5 M", "3.1 M"]
    assert [tables.Scale(640).text(n) for n in (640, 17)] == ["640", "17"]


def test_comparison_tells_the_best_at_each_budget() -> None:
    outcomes = [trial(0, 0.98, 0.5), trial(1, 0.97, 0.25), trial(2, 0.96, 0.2), trial(3, 0.99, 0.9)]
    shown = Front("s", DENSE, outcomes, load_objectives("accuracy,flops"))
    (row,) = tables.compare_rows([shown])
    assert row["best_accuracy"] == {"50%": 0.98, "25%": 0.97, "12.5%": None}
    assert (row["trials"], row["members"], row["hypervolume"]) == (4, 4, shown.hypervolume())
    assert json.loads(json.dumps(row)) == row
    assert ["s", "4 of 4", f"{shown.hypervolume():.4f}", "98.61 %", "98.00 %", "97.00 %", "–"] in rows_of(
        print_table(tables.compare_table([shown]))
    )


def test_the_space_table_tells_kind_range_default_and_condition() -> None:
    rows = rows_of(print_table(tables.space_table(a_space()), width=120))
    assert ["increg.penalty_step", "1e-05 … 0.01 (real, log)", "0.0001"] in rows
    assert ["increg.epochs", "1 … 8 (whole)"] in rows
    assert ["increg.sparsity.mode", "uniform | layer"] in rows
    last = rows.index(["increg.sparsity.ratios[stages.2.0.conv1]", "0 … 0.9 (real)"])
    assert rows[last + 1] == ["if increg.sparsity.mode = layer"]
    assert rows[rows.index(["increg.epochs", "1 … 8 (whole)"]) + 1] == ["if method = increg"]


def test_the_trial_panel_tells_everything() -> None:
    reported: dict[str, Any] = {"extra": {"forced": 3.0}, "widths": {"conv1": (4, 16)}}
    done = trial(12, 0.98, 0.25, point={"a": 1e-4}, test_metrics={"accuracy": 0.97}, **reported)
    text = print_table(tables.trial_panel(done, DENSE))
    for part in (
        "trial 12 · complete",
        "98.00 % (0.61 points below dense 98.61 %)",
        "762 k (25.0 % of dense 3.05 M)",
        "0.0001",
        "forced",
        "4 of 16",
        "97.00 %",
        "2023-11-14 22:13:20 UTC",
    ):
        assert part in text


def test_the_trial_panel_sets_numbers_of_layers_side_by_side() -> None:
    extra = {"steps": 32.0, "rank_in[conv1]": 8.0, "rank_out[conv1]": 16.0, "rank_out[fc]": 4.0}
    extra |= {f"quantity_{number}[conv1]": float(number) for number in range(9)}
    done = trial(1, 0.98, 0.5, extra=extra, widths={"conv1": (16, 16)})
    text = print_table(tables.trial_panel(done, DENSE))
    rows = [line.strip("│ ").split() for line in text.splitlines()]
    assert ["steps", "32"] in rows
    assert ["layer", "rank_in", "rank_out", "quantity_0", "quantity_1", "quantity_2", "quantity_3"] in rows
    assert ["conv1", "8", "16", "0", "1", "2", "3"] in rows and ["fc", "4"] in rows
    assert max(map(len, text.splitlines())) <= 80 and "quantity_8" in text
    assert "all of them, what was saved lies within the layers" in text


def test_hypervolumes_of_different_objectives_are_told_apart() -> None:
    same = print_table(tables.compare_table([front(), front(40, 1, "other")]))
    assert "cannot be compared" not in same
    text = print_table(tables.compare_table([front(), front(40, 1, "other", objectives="accuracy,params")]))
    assert "hypervolumes of different objectives cannot be compared" in text
    assert "digits: accuracy, flops" in text and "other: accuracy, params" in text


def test_what_users_wrote_is_no_markup() -> None:
    error = 'Traceback:\n  File "[bold]x[/bold].py"\nValueError: shape [/red] is [3, 4]\n'
    text = print_table(tables.trial_panel(outcome(error=error, point={"[red]": "[/]"}), DENSE))
    assert "shape [/red] is [3, 4]" in text
    assert "[red]" in text
    assert "[/x]" in print_table(tables.front_table(front(study="[/x]")))


def test_methods_differ_in_colour_and_in_shape() -> None:
    looks = styles(METHODS)
    assert list(looks) == sorted(METHODS)
    assert len({look.colour for look in looks.values()}) == len(METHODS)
    assert len({look.marker for look in looks.values()}) == len(METHODS)
    assert styles(["random", "spp"]) == {name: styles(method_names())[name] for name in ("random", "spp")}
    many = styles(f"method{number}" for number in range(40))
    assert len({(look.colour, look.marker) for look in many.values()}) == 40


def test_collapsed_trials_do_not_squash_the_picture() -> None:
    good = front(20)
    collapsed = [trial(100, 0.10, 0.4), trial(101, 0.31, 0.5)]
    shown = plane(Front("s", DENSE, [*good.outcomes, *collapsed], good.objectives))
    assert {dot.member.trial for dot in shown.below} == {100, 101}
    assert shown.told_below.startswith("2 trials below 9") and shown.told_below.endswith("%, down to 10.00 %")
    assert shown.up.low > 90 and shown.up.kind == "linear"
    assert all(shown.up.low < dot.y < shown.up.high for dot in shown.dots if dot not in shown.below)
    assert plane(good).below == ()


def make_collapsed_front(objectives: str = "accuracy,flops") -> Front:
    """The cheapest member of the front has nearly nothing left of its accuracy."""
    shown = front(20, objectives=objectives)
    return Front("s", DENSE, [*shown.outcomes, trial(101, 0.31, 0.01)], shown.objectives)


@pytest.mark.parametrize("shown", [front(60, seed) for seed in range(4)] + [make_collapsed_front()])
def test_every_member_of_the_front_is_in_the_picture(shown: Front) -> None:
    for drawn in planes(shown):
        assert {dot.member.trial for dot in drawn.front} == {member.trial for member in shown.members}
        for dot in drawn.front:
            assert drawn.across.low <= dot.x <= drawn.across.high
            assert drawn.up.low < dot.y < drawn.up.high


def test_a_member_that_collapsed_makes_the_axis_one_of_decades() -> None:
    drawn = plane(make_collapsed_front())
    assert drawn.up.kind == "loss" and drawn.below == ()
    heights = [dot.y for dot in drawn.front]
    assert heights == sorted(heights), "still the better the higher"
    assert (heights[-1] - heights[1]) / (heights[-1] - heights[0]) > 0.2, "and the good ones are told apart"


def test_a_flat_front_is_not_magnified_into_noise() -> None:
    shown = plane(Front("s", DENSE, [trial(0, 0.986, 0.5)], load_objectives("accuracy,flops")))
    assert shown.up.high - shown.up.low >= LEAST_WINDOW
    assert shown.dense[1] is not None and shown.up.low < 98.6 < shown.dense[1] < shown.up.high


def test_the_cost_axis_is_the_first_that_is_a_cost() -> None:
    shown = plane(front(40, objectives="seconds,accuracy,flops"))
    assert shown.across.objective.name == "seconds"
    # In this plane one member is best; the others are on the front for their FLOPs.
    assert len(shown.stairs) == 1 < len(shown.front)


def test_small_shares_make_the_axis_logarithmic() -> None:
    objectives = load_objectives("accuracy,flops")
    assert plane(Front("s", DENSE, [trial(0, 0.98, 0.03), trial(1, 0.985, 0.6)], objectives)).across.kind == "log"
    assert plane(Front("s", DENSE, [trial(0, 0.98, 0.3), trial(1, 0.985, 0.6)], objectives)).across.kind == "linear"


def test_three_objectives_have_a_colour_and_all_pairs() -> None:
    shown = front(24, objectives="accuracy,flops,params")
    drawn = planes(shown)
    pairs = [(each.up.objective.name, each.across.objective.name) for each in drawn]
    assert pairs == [("accuracy", "flops"), ("accuracy", "params"), ("params", "flops")]
    assert [each.third.name if each.third else None for each in drawn] == ["params", None, None]
    shades = {dot.member.params: drawn[0].shade(dot.member) for dot in drawn[0].dots}
    assert [shades[params] for params in sorted(shades)] == sorted(shades.values())
    assert min(shades.values()) == 0 and max(shades.values()) == 1
    assert len(plots.front_figure(shown).get_axes()) == 3


def test_ties_are_in_the_picture_with_their_member() -> None:
    outcomes = [trial(3, 0.98, 0.5), trial(5, 0.98, 0.5, "random"), trial(6, 0.97, 0.3)]
    shown = Front("s", DENSE, outcomes, load_objectives("accuracy,flops"))
    drawn = plane(shown)
    assert [dot.label for dot in drawn.front] == ["6", "3 = 5"] and drawn.dominated == ()
    assert "3 = 5" in texts_of(plots.front_figure(shown))
    assert "the same: trial 5 random" in plots.front_html(shown)


def texts_of(figure: Figure) -> list[str]:
    return [found.get_text() for found in figure.findobj(Text) if isinstance(found, Text) and found.get_text()]


def renderer_of(figure: Figure) -> RendererBase:
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer: RendererBase = canvas.get_renderer()  # type: ignore[no-untyped-call]
    return renderer


def test_the_picture_names_everything() -> None:
    shown = front(24)
    figure = shown.plot()
    texts = texts_of(figure)
    assert "digits" in texts
    assert any(f"hypervolume {shown.hypervolume():.4f}" in text for text in texts)
    assert f"dense {100 * DENSE.accuracy:.2f} %" in texts
    used = {each.method for each in shown.outcomes}
    assert {*used, "dense network", "Pareto front", "knee", "dominated"} <= set(texts)


def make_crowded_front() -> Front:
    """Thirty members of the front, most of them on top of each other."""
    outcomes = [trial(100 + step, 0.95 + step / 1000, 0.3 + step / 250) for step in range(30)]
    return Front("crowded", DENSE, outcomes, load_objectives("accuracy,flops"))


@pytest.mark.parametrize("shown", [front(60, 0), front(60, 1), front(60, 2), make_crowded_front()])
def test_labels_of_the_front_do_not_overlap(shown: Front) -> None:
    figure = plots.front_figure(shown)
    (axes,) = (axes for axes in figure.axes if isinstance(axes, Axes))
    trials = {str(member.trial) for member in shown.members}
    renderer = renderer_of(figure)
    labels = [text for text in axes.texts if text.get_text() in trials]
    assert len(labels) >= min(4, len(trials))
    boxes = [label.get_window_extent(renderer) for label in labels]
    assert not [1 for one, other in itertools.combinations(boxes, 2) if one.overlaps(other)]
    centres = [axes.transData.transform((dot.x, dot.y)) for dot in plane(shown).front]
    assert not [1 for box in boxes for x, y in centres if box.contains(x, y)]


def test_nothing_is_drawn_outside_the_figure() -> None:
    figure = plots.front_figure(front(60))
    box = figure.get_tightbbox(renderer_of(figure))
    assert box.x0 >= 0 and box.y0 >= 0
    assert box.x1 <= 10 and box.y1 <= 6.5


def test_odd_fronts_can_be_drawn(tmp_path: Path) -> None:
    empty = front().filter(max_flops="1k")
    assert "no complete trial within these limits" in texts_of(plots.front_figure(empty))
    assert "no complete trial within these limits" in plots.front_html(empty)
    one = Front(HOSTILE, DENSE, [trial(0, 0.2, 1.2)], load_objectives("accuracy,flops"))
    assert HOSTILE in texts_of(plots.front_figure(one))
    assert plots.save_front(one, tmp_path / "one.svg").read_text().startswith("<?xml")


def test_the_page_holds_all_it_needs_and_calls_nobody() -> None:
    page = plots.front_html(front(60))
    assert len(page) < 200_000
    assert not re.search(r"(src|href)=|url\(|@import|https?:", page)


def test_the_page_tells_every_value_and_runs_none() -> None:
    hostile = trial(5, 0.98, 0.5, "increg", point={"schedule": HOSTILE, "penalty_step": 2.5e-4})
    page = plots.front_html(Front(HOSTILE, DENSE, [hostile], load_objectives("accuracy,flops")))
    assert "<script>alert" not in page and page.count("<script>") == 1
    for part in ("penalty_step = 0.00025", "trial 5 · increg", "50.0 % of dense", "&lt;script&gt;alert"):
        assert part in page


def test_widths_are_drawn_per_group() -> None:
    widths = {f"stages.{stage}.conv": (5 + stage, 16) for stage in range(3)}
    texts = texts_of(plots.widths_figure(trial(4, 0.98, 0.5, widths=widths)))
    assert {"stages.0.conv", "stages.2.conv", "5 of 16", "7 of 16", "Trial 4 · magnitude"} <= set(texts)
    assert any("18 of 48 channels kept" in text for text in texts)


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"), (".HTML", b"<!DOCTYPE html>")]
)
def test_the_suffix_says_the_form(suffix: str, start: bytes, tmp_path: Path) -> None:
    path = plots.save_front(front(), tmp_path / "new" / f"front{suffix}")
    assert path.read_bytes().startswith(start)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["front.gif", "front", ".png", "front.png.txt"])
def test_other_suffixes_teach(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.html or \.png or \.svg or \.pdf"):
        plots.save_front(front(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_page_is_no_png(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.html"):
        plots.save("<!DOCTYPE html>", tmp_path / "front.png")


def test_the_same_front_gives_the_same_picture(tmp_path: Path) -> None:
    for suffix in (".png", ".svg"):
        first, second = (plots.save_front(front(), tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
        assert first == second


def test_a_picture_that_is_needed_no_more_gives_its_memory_back_without_the_collector(tmp_path: Path) -> None:
    figure = plots._canvas(4, 3)
    figure.subplots().plot([1, 2, 3])
    plots.save(figure, tmp_path / "kept.png")
    assert isinstance(figure.canvas, FigureCanvasAgg)
    gc.disable()
    try:
        pixels = weakref.ref(figure.canvas.get_renderer())  # type: ignore[no-untyped-call]
        plots.save_and_clear(figure, tmp_path / "cleared.png")
        assert pixels() is None and not figure.axes
    finally:
        gc.enable()
    assert (tmp_path / "cleared.png").read_bytes() == (tmp_path / "kept.png").read_bytes()


def test_a_picture_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plots.save("old", tmp_path / "front.html")

    def fail_with_full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", fail_with_full_disk)
    with pytest.raises(OSError, match="no space left"):
        plots.save("new", path)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["front.html"]
