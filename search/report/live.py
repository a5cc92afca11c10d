"""The live display of a sweep on a terminal: bar, dense network, hypervolume, running and last finished trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.objectives.units import write_duration
from search.records.listener import Measurement
from search.records.outcome import DenseRow, Outcome
from search.records.text import strip_control_characters
from search.report.progress import (
    choose_told_measurements,
    dense_numbers,
    epoch_numbers,
    front_numbers,
    numbers,
    progress_numbers,
    reason,
)

FRAMES_PER_SECOND = 4
BAR_COLUMNS = 32
SHOWN_TRIALS = 5


@dataclass(frozen=True)
class _Row:
    """A finished trial as it is shown."""

    outcome: Outcome
    gained: bool


class Display:
    """Draws a sweep's progress in place, and leaves one line behind.

    The drawing thread of rich reads what the driver's thread writes: every container here is replaced as a
    whole and never changed in place.

    Args:
        console: The terminal.
        clock: Seconds that only ever grow.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._began: float | None = None
        self._closed = False
        self._stage = ""
        self._epochs: tuple[dict[str, float], int] | None = None
        self._study = ""
        self._total = 0
        self._earlier = 0
        self._finished = 0
        self._failed = 0
        self._dense: DenseRow | None = None
        self._objectives: Sequence[Measurement] = ()
        self._hypervolume: float | None = None
        self._members: int | None = None
        self._trials_began = 0.0
        self._last_finish = 0.0
        self._running: dict[int, str] = {}
        self._progress: dict[int, str] = {}
        self._last: tuple[_Row, ...] = ()
        # Last, because it draws a first frame at once.
        self._live = Live(console=console, get_renderable=self.frame, refresh_per_second=FRAMES_PER_SECOND)

    def stage(self, text: str) -> None:
        """Show what is done now."""
        self._start()
        self._stage, self._epochs = text, None

    def dense_epoch(self, record: dict[str, float], epochs: int) -> None:
        """Show how far the training of the dense network is."""
        self._start()
        self._epochs = (dict(record), epochs)

    def sweep_started(
        self, study: str, total: int, done: int, dense: DenseRow, objectives: Sequence[Measurement] = ()
    ) -> None:
        """Show the bar of trials and the dense network."""
        self._start()
        self._stage, self._epochs = "", None
        self._total, self._earlier, self._finished = total, done, done
        self._trials_began = self._last_finish = self._clock()
        # What an earlier run reached is not told, so that its first successor cannot be said to gain on it.
        self._hypervolume = None if done else 0.0
        self._dense, self._objectives = dense, objectives
        self._study = study

    def trial_started(self, number: int, method: str) -> None:
        """Show a trial among the running ones."""
        self._running = self._running | {number: method}

    def trial_progress(self, number: int, method: str, what: str, done: int, total: int) -> None:
        """Show how far a running trial is."""
        if number in self._running:
            self._progress = self._progress | {number: progress_numbers(what, done, total)}

    def trial_finished(self, outcome: Outcome, hypervolume: float, members: int) -> None:
        """Show a trial among the finished ones; a failed one leaves a line that stays."""
        self._running = {number: method for number, method in self._running.items() if number != outcome.number}
        self._progress = {number: text for number, text in self._progress.items() if number in self._running}
        self._finished += 1
        self._last_finish = self._clock()
        if not outcome.complete:
            self._failed += 1
            self._say(f"trial {outcome.number} {outcome.method} failed: {reason(outcome)}", "red")
        gained = self._hypervolume is not None and hypervolume > self._hypervolume
        self._hypervolume, self._members = hypervolume, members
        self._last = (*self._last, _Row(outcome, gained))[-SHOWN_TRIALS:]

    def warning(self, text: str) -> None:
        """Leave a warning above the display."""
        self._say(f"warning: {text}", "yellow")

    def close(self) -> None:
        """Give the terminal back; the bar of trials stays as the last line."""
        self._closed = True
        if self._began is not None:
            # Nothing to keep of a display that never got to its trials.
            self._live.transient = not self._study
            self._live.stop()
            self._began = None

    def frame(self) -> RenderableType:
        """Draw the display as it is now.

        Returns:
            What rich prints.
        """
        parts: list[RenderableType] = []
        if self._study:
            parts.append(self._bar())
        if self._closed:
            return Group(*parts)
        if self._dense is not None:
            parts += [self._facts(), *([self._trials()] if self._last else [])]
        if self._stage:
            parts.append(Text(f"{self._stage} …", style="dim"))
        if self._epochs is not None:
            parts.append(self._training(*self._epochs))
        return Group(*parts)

    def _start(self) -> None:
        if self._began is None and not self._closed:
            self._began = self._clock()
            self._live.start()

    def _say(self, text: str, style: str) -> None:
        self._console.print(Text(strip_control_characters(text), style=style), soft_wrap=True)

    def _bar(self) -> Table:
        elapsed = self._clock() - (self._trials_began if self._began is None else self._began)
        grid = Table.grid(padding=(0, 2))
        count = Text(f"{self._finished}/{self._total} trials")
        if self._failed:
            count.append(f", {self._failed} failed", style="red")
        times = f"{_clock_face(elapsed)} elapsed"
        left = self._estimate_remaining()
        if left is not None and not self._closed:
            times += f", {_clock_face(left)} left"
        bar = _progress_bar(self._finished, self._total)
        grid.add_row(Text(self._study, style="bold"), bar, count, Text(times, style="dim"))
        return grid

    def _estimate_remaining(self) -> float | None:
        """Seconds to go at the pace so far; counts down between two finished trials."""
        here = self._finished - self._earlier
        if here < 1 or self._finished >= self._total:
            return None
        pace = (self._last_finish - self._trials_began) / here
        return max(0.0, pace * (self._total - self._finished) - (self._clock() - self._last_finish))

    def _facts(self) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim")
        if self._dense is not None:
            grid.add_row("dense", dense_numbers(self._dense, self._objectives))
        if self._hypervolume is not None and self._last:
            grid.add_row("front", front_numbers(self._hypervolume, self._members))
        if self._running:
            grid.add_row("running", ", ".join(f"{number} {method}" for number, method in self._running.items()))
        for number, text in self._progress.items():
            grid.add_row(f"trial {number}", text)
        return grid

    def _trials(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        headings = [measurement.heading for measurement in choose_told_measurements(self._objectives)]
        for title in ("trial", "method", *headings, "time", ""):
            table.add_column(title, justify="left" if title in ("method", "") else "right")
        for row in reversed(self._last):
            outcome = row.outcome
            cells = ["stopped" if outcome.state == "stopped" else "failed", *[""] * (len(headings) - 1)]
            if outcome.state == "complete":
                cells = [text for _, text in numbers(outcome, self._dense, self._objectives)]
            mark = Text("joined the front", style="green") if row.gained else Text("")
            style = "red" if not outcome.complete else None
            table.add_row(
                str(outcome.number), outcome.method, *cells, write_duration(outcome.seconds), mark, style=style
            )
        return table

    def _training(self, record: dict[str, float], epochs: int) -> Table:
        grid = Table.grid(padding=(0, 2))
        epoch = record.get("epoch", 0.0)
        bar = _progress_bar(epoch, epochs)
        grid.add_row("dense network", bar, f"epoch {epoch:.0f}/{epochs}", Text(epoch_numbers(record), style="dim"))
        return grid


def _progress_bar(completed: float, total: int) -> ProgressBar:
    return ProgressBar(
        total=max(total, 1), completed=completed, width=BAR_COLUMNS, complete_style="cyan", finished_style="cyan"
    )


def _clock_face(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
