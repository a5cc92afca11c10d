from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from search.objectives import Objective
from search.records.listener import Listener
from search.records.outcome import DenseRow
from search.report.listeners import choose_listener
from search.report.live import Display
from search.report.progress import LONGEST_REASON, PROGRESS_EVERY, Lines, Warnings, reason
from tests.search.cases import outcome

DENSE = DenseRow.from_metrics(accuracy=0.9861, flops=1000, params=78_100, seconds=9.0)
ERROR = "Traceback (most recent call last):\n  ...\nValueError: [b]0 channels[/b] left"


@pytest.fixture(autouse=True)
def usual_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def tell_everything(heard: Listener) -> None:
    """A sweep of three trials, one of them finished earlier and one failing."""
    heard.stage("dense network")
    heard.dense_epoch({"epoch": 1.0, "loss": 0.5, "accuracy": 0.97}, 2)
    heard.sweep_started("digits-001", 3, 1, DENSE)
    heard.trial_started(1, "magnitude")
    heard.trial_finished(
        outcome(1, metrics={"accuracy": 0.9833, "flops": 249.0, "params": 9, "seconds": 4.2}), 0.921, 5
    )
    heard.trial_started(2, "magnitude")
    heard.trial_finished(outcome(2, error=ERROR), 0.921, 5)
    heard.warning("MLflow lacks 1 trial")
    heard.close()


def draw_display(display: Display, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(display.frame())
    return capture.get()


def display(clock: Clock, stream: io.StringIO | None = None) -> Display:
    console = Console(file=stream or io.StringIO(), force_terminal=True, width=100)
    return Display(console, clock)


def test_lines_say_one_event_each() -> None:
    stream = io.StringIO()
    tell_everything(Lines(stream))
    assert stream.getvalue().splitlines() == [
        "dense network",
        "dense network, epoch 1/2  loss 0.500  accuracy 97.00 %",
        "study digits-001: 3 trials, 1 of them finished earlier",
        "dense network  accuracy 98.61 %  FLOPs 1.00 k  parameters 78.1 k",
        "trial 1 magnitude  started",
        "2/3  trial 1 magnitude  accuracy 98.33 %  FLOPs 24.9 %  1.5 s  hypervolume 0.9210, 5 on the front",
        "trial 2 magnitude  started",
        "3/3  trial 2 magnitude  failed after 1.5 s: ValueError: [b]0 channels[/b] left",
        "warning: MLflow lacks 1 trial",
    ]


def test_lines_break_a_long_silence() -> None:
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.trial_started(3, "greedy")
    for step in range(100):
        lines.trial_progress(3, "greedy", "channels of conv1 (layer 1 of 9), by global_ce", step, 100)
        clock.now += PROGRESS_EVERY / 40
    assert stream.getvalue().splitlines() == [
        "trial 3 greedy  started",
        "trial 3 greedy  channels of conv1 (layer 1 of 9), by global_ce: 40 % (40/100)",
        "trial 3 greedy  channels of conv1 (layer 1 of 9), by global_ce: 80 % (80/100)",
    ]
    quiet = io.StringIO()
    Warnings(quiet).trial_progress(3, "greedy", "channels", 1, 2)
    assert not quiet.getvalue()


def test_display_shows_how_far_a_trial_is_while_it_runs() -> None:
    shown = display(Clock())
    shown.sweep_started("digits-001", 4, 0, DENSE)
    shown.trial_started(0, "greedy")
    shown.trial_progress(0, "greedy", "covariances, by example", 512, 2048)
    shown.trial_progress(7, "greedy", "of no running trial", 1, 2)
    text = draw_display(shown)
    assert re.search(r"trial 0 +covariances, by example: 25 % \(512/2048\)", text) and "no running" not in text
    shown.trial_finished(outcome(0), 0.5, 1)
    assert "covariances" not in draw_display(shown)
    shown.close()


def test_the_size_of_the_front_is_shown_where_it_is_known() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.sweep_started("s", 2, 0, DENSE)
    lines.trial_finished(outcome(0), 0.5, 4)
    assert stream.getvalue().endswith("hypervolume 0.5000, 4 on the front\n")


def test_quiet_lets_warnings_through() -> None:
    stream = io.StringIO()
    tell_everything(Warnings(stream))
    assert stream.getvalue() == "warning: MLflow lacks 1 trial\n"


def test_long_reasons_are_cut() -> None:
    said = reason(outcome(0, error="ValueError: " + 500 * "x"))
    assert len(said) == LONGEST_REASON
    assert said.endswith("…")


@pytest.mark.parametrize(
    ("stream", "term", "quiet", "kind"),
    [
        (Terminal(), "xterm-256color", False, Display),
        (Terminal(), "dumb", False, Lines),
        (io.StringIO(), "xterm-256color", False, Lines),
        (Terminal(), "xterm-256color", True, Warnings),
    ],
)
def test_a_display_is_for_terminals_that_can_show_it(
    stream: io.StringIO, term: str, quiet: bool, kind: type[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("FORCE_COLOR", "1")  # must not bring control codes into a file
    assert isinstance(choose_listener(quiet, stream), kind)


def test_display_shows_how_far_the_sweep_is() -> None:
    clock = Clock()
    shown = display(clock)
    try:
        shown.sweep_started("digits-001", 4, 0, DENSE)
        shown.trial_started(0, "magnitude")
        shown.trial_started(1, "increg")
        clock.now += 65
        shown.trial_finished(outcome(0), 0.45, 1)
        text = draw_display(shown)
    finally:
        shown.close()
    assert re.search(r"digits-001 .* 1/4 trials +1:05 elapsed, 3:15 left", text)
    assert re.search(r"dense +accuracy 98.61 %  FLOPs 1.00 k  parameters 78.1 k", text)
    assert re.search(r"front +hypervolume 0.4500", text)
    assert re.search(r"running +1 increg +\n", text)
    assert re.search(r" 0 +magnitude +90.00 % +50.0 % +1.5 s +joined the front", text)


def test_remaining_time_counts_down_and_ignores_earlier_runs() -> None:
    clock = Clock()
    shown = display(clock)
    try:
        shown.sweep_started("s", 10, 6, DENSE)
        assert "left" not in draw_display(shown)
        clock.now += 10
        shown.trial_finished(outcome(6), 0.5, 1)
        assert "0:30 left" in draw_display(shown)
        clock.now += 12
        assert "0:18 left" in draw_display(shown)
        clock.now += 3600
        assert "1:00:22 elapsed, 0:00 left" in draw_display(shown)
    finally:
        shown.close()


def test_after_a_resumption_the_first_trial_gets_no_credit_for_the_front_of_others() -> None:
    shown = display(Clock())
    try:
        shown.sweep_started("s", 10, 6, DENSE)
        shown.trial_finished(outcome(6), 0.5, 1)
        assert "joined" not in draw_display(shown)
        shown.trial_finished(outcome(7), 0.6, 1)
        assert draw_display(shown).count("joined the front") == 1
    finally:
        shown.close()


def test_only_the_last_trials_are_shown() -> None:
    shown = display(Clock())
    try:
        shown.sweep_started("s", 100, 0, DENSE)
        for number in range(40):
            shown.trial_finished(outcome(number), 0.5, 1)
        rows = re.findall(r"^ +(\d+) +magnitude", draw_display(shown), flags=re.MULTILINE)
    finally:
        shown.close()
    assert rows == ["39", "38", "37", "36", "35"]


def test_training_of_the_dense_network_is_shown_until_trials_begin() -> None:
    shown = display(Clock())
    try:
        shown.stage("dense network")
        shown.dense_epoch({"epoch": 3.0, "loss": 0.25, "accuracy": 0.97}, 20)
        assert re.search(r"epoch 3/20  loss 0.250  accuracy 97.00 %", draw_display(shown))
        shown.sweep_started("s", 4, 0, DENSE)
        assert "epoch" not in draw_display(shown)
    finally:
        shown.close()


def test_a_failed_trial_and_a_warning_stay_on_the_screen_as_they_were_written() -> None:
    stream = io.StringIO()
    tell_everything(display(Clock(), stream))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "trial 2 magnitude failed: ValueError: [b]0 channels[/b] left\n" in text
    assert "warning: MLflow lacks 1 trial\n" in text
    assert text.rstrip().splitlines()[-1].startswith("digits-001")
    assert "3/3 trials, 1 failed" in text.splitlines()[-1]


def test_the_terminal_is_given_back_when_a_sweep_breaks_off() -> None:
    stream = io.StringIO()
    shown = display(Clock(), stream)
    with pytest.raises(RuntimeError, match="lost"):
        try:
            shown.stage("loading data")
            raise RuntimeError("lost")
        finally:
            shown.close()
    hidden, visible = stream.getvalue().rfind("\x1b[?25l"), stream.getvalue().rfind("\x1b[?25h")
    assert 0 <= hidden < visible
    shown.close()  # once more does no harm


def test_a_closed_display_does_not_start_again() -> None:
    stream = io.StringIO()
    shown = display(Clock(), stream)
    shown.close()
    shown.stage("too late")
    assert stream.getvalue() == ""


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7])")
    plain, painted = Terminal(), Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    tell_everything(choose_listener(stream=painted))
    monkeypatch.setenv("NO_COLOR", "1")
    tell_everything(choose_listener(stream=plain))
    assert coloured.search(painted.getvalue())
    assert not coloured.search(plain.getvalue())


IOU = Objective(
    name="mean_iou", title="mean IoU", direction="maximise", style=".1%", ideal=1.0, quality=True, trained=True
)
ENERGY = Objective(name="energy", title="energy", direction="minimise", unit="mJ", style=".3g")


@pytest.mark.parametrize("live", [False, True])
def test_progress_is_told_in_the_objectives_of_the_study(live: bool) -> None:
    stream = io.StringIO()
    heard = display(Clock(), stream) if live else Lines(stream)
    dense = DenseRow.from_metrics(mean_iou=0.6, flops=1000, params=78_100, seconds=9.0, energy=8.0)
    heard.sweep_started("streets", 2, 0, dense, (IOU, ENERGY))
    measured = {"mean_iou": 0.55, "flops": 249.0, "params": 9.0, "seconds": 4.2, "energy": 2.0}
    heard.trial_finished(outcome(1, metrics=measured), 0.5, 1)
    text = " ".join((draw_display(heard) if isinstance(heard, Display) else stream.getvalue()).split())
    assert "mean IoU 60.0 % FLOPs 1.00 k parameters 78.1 k energy 8" in text
    assert ("55.0 % 25.0 %" if live else "mean IoU 55.0 % energy 25.0 %") in text
    heard.close()
