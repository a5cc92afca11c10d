"""The way from the dense network to a trial's: measured, drawn, stored, refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from search.commands.cli import app
from search.driver.sweep import Sweep
from search.records.outcome import Outcome
from search.report.plots import save
from search.report.valley import barrier, valley_figure
from search.store.files import write_json
from search.store.studies import StudyFiles
from search.study.config import StudyConfig
from search.tracking.records import trial_metrics
from spaces import InputError
from tests.search.cases import make_quick_config, outcome

LINE = [(0.0, 0.2), (0.5, 0.5), (1.0, 0.3)]
CURVE = [(0.0, 0.2), (0.25, 0.21), (1.0, 0.3)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> StudyFiles:
    directory = tmp_path_factory.mktemp("runs")
    config = make_quick_config(directory, name="v", trials=1, methods=["magnitude"])
    Sweep(StudyConfig.model_validate(config.model_dump())).run()
    return StudyFiles.open(directory, "v")


def run(files: StudyFiles, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["valley", *arguments, "--directory", str(files.directory)])
    if done.exit_code != 0:
        raise AssertionError(f"{done.exit_code}: {done.output}")
    return done.stdout


def test_barrier_by_hand() -> None:
    assert barrier(LINE) == pytest.approx(0.2)
    assert barrier(CURVE) == 0


def test_the_picture_tells_the_barriers_and_the_ends(tmp_path: Path) -> None:
    figure = valley_figure({"line": LINE, "curve": CURVE}, "Trial 3 · $x$", ("dense", "pruned"))
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    told = [text.get_text() for text in legend.get_texts()]
    assert told == ["straight line: barrier 0.2", "trained Bézier curve: no barrier", "larger end"]
    assert axes.get_title("left") == "Trial 3 · $x$"
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks[0] == "0\ndense" and ticks[-1] == "1\npruned"
    line, curve, level = axes.get_lines()
    assert np.array_equal(line.get_xydata(), LINE) and np.array_equal(curve.get_xydata(), CURVE)
    assert np.array_equal(np.asarray(level.get_ydata()), [0.3, 0.3])
    assert axes.get_yscale() == "linear" and axes.get_ylim()[0] == 0
    assert save(figure, tmp_path / "valley.png").stat().st_size > 10_000


def test_losses_far_apart_have_a_logarithmic_axis_also_with_zeros() -> None:
    figure = valley_figure({"line": [(0.0, 0.0), (0.5, 4.0), (1.0, 1e-3)]}, "t", ("a", "b"))
    assert figure.axes[0].get_yscale() == "log"
    figure.draw_without_rendering()


def test_profiles_are_stored_and_become_series_in_mlflow() -> None:
    told = outcome(profiles={"line": LINE, "curve": CURVE})
    assert Outcome.from_json(json.loads(json.dumps(told.to_json()))) == told
    series = [(point.value, point.step) for point in trial_metrics(told, None) if point.name == "profile/line"]
    assert series == [(0.2, 0), (0.5, 1), (0.3, 2)]
    old = told.to_json()
    del old["profiles"]
    assert Outcome.from_json(old).profiles == {}


def test_the_command_measures_prints_and_draws(files: StudyFiles, tmp_path: Path) -> None:
    plot = tmp_path / "v.png"
    told = json.loads(run(files, "v", "0", "--points", "3", "--steps", "2", "--plot", str(plot), "--json", "--quiet"))
    assert plot.stat().st_size > 10_000
    assert [position for position, _ in told["profiles"]["line"]] == [0.0, 0.5, 1.0]
    losses = [loss for _, loss in told["profiles"]["line"]]
    assert told["loss_unpruned"] == losses[0] and told["loss_pruned"] == losses[-1]
    assert told["line_barrier"] == max(losses) - max(losses[0], losses[-1])
    assert sum(map(len, files.read_kept(0).values())) == sum(kept for kept, _ in files.outcome(0).widths.values())


def test_a_name_without_a_picture_is_refused_before_anything_is_measured(files: StudyFiles) -> None:
    with pytest.raises(AssertionError, match=r"2: error: cannot write a picture to 'v.txt'"):
        run(files, "v", "0", "--plot", "v.txt")


def test_trials_without_a_place_in_the_dense_network_are_refused(files: StudyFiles) -> None:
    stored = files.folder(0) / "kept.json"
    kept = files.read_kept(0)
    try:
        write_json(stored, {name: units[:-1] or units for name, units in kept.items()})
        with pytest.raises(AssertionError, match=r"the pruned network is not the dense one less some channels: \S+"):
            run(files, "v", "0")
        stored.unlink()
        with pytest.raises(InputError, match="trial 0 of study 'v' was written by an earlier version"):
            files.read_kept(0)
    finally:
        write_json(stored, kept)
