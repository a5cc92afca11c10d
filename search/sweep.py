"""A sweep from configuration to front: the driver.

Prepares (``search.prepare``), runs (``search.running.schedule``, workers, study, recorder) and finishes
(``search.finish``). Everything that must survive is on disk before the next step is taken.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from search.config import StudyConfig
from search.environment import versions
from search.events import Listener, Nobody
from search.finish import finish_front, note, ranks
from search.front import Front
from search.objectives import load_objectives
from search.outcome import DenseRow
from search.prepare import Plan, dense_setting, plan
from search.running.inline import run_inline
from search.running.recorder import Recorder
from search.running.schedule import Schedule
from search.store import StudyFiles, study_names
from search.study import Study
from search.study_space import first_points
from search.tracking.tracker import Tracker
from search.trial import Setting
from spaces import InputError, Space

MIN_LAG = 6
"""Trials that may be asked and not told, on up to three workers; twice the workers on more."""


@dataclass(frozen=True)
class Summary:
    """What a finished sweep says of itself.

    Attributes:
        seconds: Wall-clock seconds from start to end, dense training included.
        overhead: Share of the workers' time in which they neither ran trials nor trained the dense network.
        files: The front's files by name.
    """

    seconds: float
    overhead: float
    files: Mapping[str, Path]


class Sweep:
    """A study that is run, or gone on with: ``Sweep(load_config(trials=24)).run().table()``.

    Args:
        config: The configuration.
        listener: Hears of progress.
    """

    def __init__(self, config: StudyConfig, listener: Listener | None = None) -> None:
        self.config = config
        self.summary: Summary | None = None
        self._listener: Listener = listener or Nobody()
        self._files: StudyFiles | None = None

    @classmethod
    def resume(
        cls,
        name: str | None = None,
        directory: Path | str = "mlruns",
        listener: Listener | None = None,
        trials: int | None = None,
    ) -> Self:
        """Take up a study where it stopped.

        Args:
            name: Name of the study; ``None`` for the one that was begun last.
            directory: The run store.
            listener: Hears of progress.
            trials: New total of trials, to go on with a finished study; ``None`` keeps the total.

        Returns:
            The sweep; call :meth:`run`.

        Raises:
            InputError: If ``trials`` is less than the study has.
        """
        files = StudyFiles.open(directory, name)
        total = files.status()["total"]
        if trials is not None and trials < total:
            raise InputError(f"study {files.name!r} has {total} trials already; --trials {trials} is less")
        sweep = cls(files.config().model_copy(update={"trials": trials or total, "name": files.name}), listener)
        sweep._files = files
        return sweep

    @property
    def name(self) -> str | None:
        """Name of the study, once it is known."""
        return self._files.name if self._files else self.config.name

    def plan(self) -> Plan:
        """Say what would be done; nothing is trained or written.

        Returns:
            The plan.
        """
        return plan(self.config)

    def run(self) -> Front:
        """Run all trials that are not finished, then finish the front.

        Returns:
            The front.
        """
        began = time.perf_counter()
        with ExitStack() as stack:
            stack.callback(self._listener.close)
            if self._files is None and self.config.name is not None:
                _refuse_taken(self.config.directory, self.config.name)  # before anything is trained
            tracker = Tracker.open(self.config.directory, self.config.tracking_uri)
            stack.callback(self._deliver, tracker)
            self._listener.stage("loading data and network")
            planned = self.plan()
            self._listener.stage("dense network")
            setting, dense = dense_setting(planned, self._listener.dense_epoch)
            files = self._files = self._files or _created(planned, dense)
            stack.enter_context(files.lock())
            store = tracker.store.public
            parent = tracker.start_sweep(
                files.name, self.config.model_dump(mode="json"), dense, run_id=files.tracked().get(store)
            )
            files.write_tracked({**files.tracked(), store: parent})
            try:
                return self._run(files, planned, setting, dense, tracker, began)
            except BaseException as error:
                tracker.stop_sweep("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
                raise

    def _run(
        self,
        files: StudyFiles,
        planned: Plan,
        setting: Setting,
        dense: DenseRow,
        tracker: Tracker,
        began: float,
    ) -> Front:
        """Run the trials, finish the front, sum up."""
        earlier = set(files.numbers())
        workers = self._trials(files, planned, setting, dense, tracker)
        self._listener.stage("testing and drawing the front")
        front, paths = finish_front(files, planned.task, setting)
        seconds = time.perf_counter() - began
        busy = sum(outcome.seconds for outcome in files.outcomes() if outcome.number not in earlier)
        busy += workers * min(dense.seconds, seconds)  # nothing else can run while the dense network trains
        self.summary = Summary(seconds, max(0.0, 1 - busy / (seconds * workers)), paths)
        tracker.finish_sweep(
            ranks(front),
            paths,
            front.hypervolume(),
            note(front),
            {"trials": len(files.numbers()), "overhead_share": self.summary.overhead, "seconds": seconds},
        )
        return front

    def _trials(self, files: StudyFiles, planned: Plan, setting: Setting, dense: DenseRow, tracker: Tracker) -> int:
        """Run every trial that is not finished; returns how many ran at a time."""
        total = self.config.trials
        recorder = Recorder(files, dense, load_objectives(self.config.objectives), total, self._listener, tracker)
        with ExitStack() as stack:
            stack.callback(recorder.close)
            done = files.outcomes()
            recorder.resumed(done)
            self._listener.sweep_started(files.name, total, len(done), dense)
            study, lag = _study(files)
            finished = {outcome.number: outcome for outcome in done}
            schedule = Schedule(study, total, lag, finished.get, recorder.finished)
            if schedule.done:
                return 1
            if self.config.resources.executor == "inline":
                run_inline(schedule, setting, files, recorder.started)
                return 1
            return _on_ray(stack, schedule, setting, files, recorder, planned)

    def _deliver(self, tracker: Tracker) -> None:
        """Wait for MLflow to have everything; tell if it has not."""
        if (warning := tracker.close().warning) is not None:
            self._listener.warning(warning)


def train_dense(config: StudyConfig, listener: Listener | None = None) -> DenseRow:
    """Train the dense network of a study, unless it is cached.

    Args:
        config: The configuration.
        listener: Hears of progress.

    Returns:
        What it reaches on validation, and its cost.
    """
    heard: Listener = listener or Nobody()
    try:
        heard.stage("loading data and network")
        planned = plan(config)
        heard.stage("dense network")
        return dense_setting(planned, heard.dense_epoch)[1]
    finally:
        heard.close()


def _on_ray(
    stack: ExitStack, schedule: Schedule, setting: Setting, files: StudyFiles, recorder: Recorder, planned: Plan
) -> int:
    from search.running import workers  # ray is not needed to run trials in this process

    resources = planned.config.resources
    workers.start(resources)
    stack.callback(workers.stop)
    slots = workers.slots(resources, planned.gpus_per_trial)
    workers.run_on_ray(schedule, setting, files, recorder.started, resources, planned.gpus_per_trial, slots)
    return slots


def _created(planned: Plan, dense: DenseRow) -> StudyFiles:
    """Make the study's folder and its Optuna study."""
    config = planned.config
    name = config.name or _free_name(config)
    config = config.model_copy(update={"name": name})
    files = StudyFiles(config.directory, name)
    workers = config.resources.max_concurrent or 1
    first = first_points(planned.space, config.methods, limit=max(1, config.trials // 2))
    files.create({
        "config": config.model_dump(mode="json"),
        "dense": dense.to_json(),
        "task": {
            "classes": planned.task.data.classes,
            "example_shape": list(planned.task.data.example.shape),
        },
        "space": planned.space.to_json(),
        "lag": max(MIN_LAG, 2 * workers),
        "recipe": planned.recipe.model_dump(mode="json"),
        "steps": planned.steps,
        "versions": versions(),
    })
    Study.create(storage(files.directory), name, planned.space, config.objectives, config.seed, config.sampler, first)
    return files


def _study(files: StudyFiles) -> tuple[Study, int]:
    """Open the Optuna study of a folder; how many of its trials may be asked and not told."""
    record, config = files.record(), files.config()
    study = Study.load(
        storage(files.directory),
        files.name,
        Space.from_json(record["space"]),
        config.objectives,
        config.seed,
        config.sampler,
    )
    return study, record["lag"]


def storage(directory: Path) -> str:
    """Name the Optuna storage of a run store.

    Args:
        directory: The run store.

    Returns:
        An URL that ``optuna.load_study`` accepts.
    """
    return f"sqlite:///{directory.resolve() / 'optuna.db'}"


def _refuse_taken(directory: Path, name: str) -> None:
    if name in study_names(directory):
        raise InputError(
            f"study {name!r} exists; continue it with `paretoprune resume {name}` or choose another --name"
        )


def _free_name(config: StudyConfig) -> str:
    """Number a study after its data and model."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", f"{config.data}-{config.model.rpartition(':')[2]}").strip("-")[:60]
    taken = set(study_names(config.directory))
    return next(name for n in range(1, len(taken) + 2) if (name := f"{stem}-{n:03d}") not in taken)
