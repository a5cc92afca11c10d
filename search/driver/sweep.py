"""A sweep from configuration to front: the driver.

Prepares (``search.driver.prepare``), runs (``search.study.schedule``, workers, study, recorder) and finishes
(``search.driver.finish``). Everything that must survive is on disk before the next step is taken.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from search.artefacts.export import prepare_exports
from search.driver.aim import study_parts
from search.driver.begin_study import create_study_files, open_study, refuse_taken_name
from search.driver.chance import chance_warning
from search.driver.dense_setting import dense_setting, measure_damages
from search.driver.ending import Ending
from search.driver.finish import draw_front, evaluate_front, knee_numbers, note, ranks
from search.driver.guard import GuardedListener
from search.driver.keeping import study_url
from search.driver.networks import keep_networks
from search.driver.plan import Plan, list_by_damage
from search.driver.prepare import plan, require_same
from search.driver.recorder import Recorder
from search.driver.warm import load_earlier_trials
from search.fronts.front import Front
from search.objectives import load_objectives
from search.records.collector import pause_collector
from search.records.listener import Listener, NullListener
from search.records.outcome import DenseRow
from search.report.listeners import choose_listener
from search.store.files import find_full_disk_error
from search.store.studies import StudyFiles
from search.study.config import StudyConfig, places
from search.study.config_file import move_places
from search.study.opening import BEAT, import_storages, is_shared
from search.study.schedule import Schedule
from search.study.stored_studies import set_aside_damaged
from search.tasks.workload import Workload
from search.tracking.away import Away, Elsewhere
from search.tracking.run_store import RunStore
from search.tracking.tracker import Tracker
from search.trials.trial import Setting
from search.workers.finish import ended_leg, stop_paused
from search.workers.launch import Launch
from search.workers.lender import Lender
from search.workers.pool import Pool, open_pool
from search.workers.progress import watch_progress
from search.workers.shared import SharedSchedule
from spaces import InputError, Space

SETTLED_AFTER = 2.0
"""Seconds after which the first trials run, and others begin: they would take from them what they need to begin."""


@dataclass(frozen=True)
class Summary:
    """What a finished sweep says of itself.

    Attributes:
        seconds: Wall-clock seconds from start to end, dense training included.
        slots: How many workers there were.
        busy: Seconds that workers spent, all together: on ``trials``, on the ``dense`` network, for which all of them
            wait, and on ``exports``.
        files: The front's files by name.
    """

    seconds: float
    slots: int
    busy: Mapping[str, float]
    files: Mapping[str, Path]

    @property
    def overhead(self) -> float:
        """Share of the workers' time that was spent on nothing of it."""
        return max(0.0, 1 - sum(self.busy.values()) / (self.seconds * self.slots))

    def share(self, what: str) -> float:
        """Tell what share of the workers' time was spent on something.

        Args:
            what: A key of ``busy``.

        Returns:
            The share.
        """
        return self.busy[what] / (self.seconds * self.slots)


class Sweep:
    """A study that is run, or gone on with: ``Sweep(load_config(trials=24)).run().table()``.

    Args:
        config: The configuration.
        workload: Network and data in hand; ``None`` loads those that the configuration names.
        listener: Receives progress. By default it is shown: live on a terminal, in one output of a notebook, else line
            by line on stderr; :class:`search.records.listener.NullListener` shows nothing. An exception of it is
            logged, and ends nothing.
        launch: Ray, if it is being started already.
    """

    def __init__(
        self,
        config: StudyConfig,
        listener: Listener | None = None,
        workload: Workload | None = None,
        launch: Launch | None = None,
    ) -> None:
        self.config = config
        self._launch = launch
        self._workload = workload
        self.summary: Summary | None = None
        self._listener = GuardedListener(listener or choose_listener())
        self._files: StudyFiles | None = None

    @classmethod
    def resume(
        cls,
        name: str | None = None,
        directory: Path | str = "mlruns",
        listener: Listener | None = None,
        trials: int | None = None,
        moved: Mapping[str, Any] | None = None,
        launch: Launch | None = None,
    ) -> Self:
        """Take up a study where it stopped.

        Args:
            name: Name of the study; ``None`` for the one that was begun last.
            directory: The run store.
            listener: Receives progress.
            trials: New total of trials, to go on with a finished study; ``None`` keeps the total.
            moved: What has another place now, by name: ``data_root``, ``weights``, ``tracking_uri`` and the fields of
                :class:`search.study.config.Resources`; ``None`` values change nothing. Later resumes remember it.
            launch: Ray, if it is being started already.

        Returns:
            The sweep; call :meth:`run`.

        Raises:
            InputError: If ``trials`` is less than the study has.
        """
        files = StudyFiles.open(directory, name)
        total = files.total()
        if trials is not None and trials < total:
            raise InputError(f"study {files.name!r} has {total} trials already; --trials {trials} is less")
        before = files.config()
        config = move_places(before, moved or {})
        if places(config)["study_storage"] != before.study_storage and files.is_driven():
            raise InputError(
                f"study {files.name!r} is being run over {before.study_storage or 'its own database'}; give the same "
                "--study-storage, or wait until it ends"
            )
        files.write_places(places(config))
        sweep = cls(config.model_copy(update={"trials": trials or total, "name": files.name}), listener, launch=launch)
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
        return plan(self.config, self._workload)

    def run(self) -> Front:
        """Run all trials that are not finished, then finish the front.

        Where the study's storage is shared and another driver is at work, its trials are run together with that one,
        which then finishes the front; should it have ended, this one does.

        Returns:
            The front.
        """
        try:
            front, whole = self._run()
        except Exception as error:
            if (full := find_full_disk_error(error, self.config.directory)) is not None:
                raise full from error
            raise
        files = self._files
        if whole or files is None or files.is_locked() or files.is_finished():
            return front
        moved = {"study_storage": self.config.study_storage}
        last = Sweep.resume(files.name, files.directory, self._listener, None, moved)
        last._workload = self._workload
        front, _ = last._run()
        self.summary = last.summary
        return front

    def _run(self) -> tuple[Front, bool]:
        """Run the trials; the second value tells whether the front was finished, too."""
        began = time.perf_counter()
        with ExitStack() as stack:
            stack.callback(self._listener.close)
            if self._files is None and self.config.name is not None:
                refuse_taken_name(self.config, self.config.name)  # before anything is trained
            self._listener.stage("loading data and network")
            launch = stack.enter_context(self._launch or Launch(self.config.resources))
            pools = stack.enter_context(ExitStack())
            threads = stack.enter_context(ThreadPoolExecutor(3, thread_name_prefix="beside"))
            with pause_collector():  # much is imported here
                planned = self.plan()
            for warning in planned.warnings:
                self._listener.warning(warning)
            if self._files is not None:
                require_same(self._files, planned.workload)
            # Nothing is written before here: what the user got wrong has been said.
            store = self._check_store()
            tracked_from = threading.Event()
            opening = threads.submit(self._open_tracker, store, tracked_from)
            stack.callback(tracked_from.set)
            if self._must_track(store):
                tracked_from.set()
                opening.result()
            launch.wait()  # what it failed with is raised here
            pool = pools.enter_context(open_pool(self.config.resources, planned.gpus_per_trial, self._listener.warning))
            importing = threads.submit(import_storages)
            setting, dense, dense_seconds = self._train_dense(planned)
            importing.result()
            self._set_aside_damaged_database()
            files = self._files = self._files or create_study_files(planned, dense, pool.slots)
            files.network = getattr(self._workload, "network", None)
            leads = self._take_part(files, stack)
            earlier = set(files.numbers())
            tracked = threads.submit(self._begin_mirror if leads else _stand_aside, opening, files, dense)
            stack.callback(self._deliver, tracked)
            with _ended(tracked, tracked_from):
                # Exports are made on this machine, as many at a time as trials are, or as it has room for.
                several = min(pool.slots, (os.cpu_count() or 1) // self.config.resources.cpus_per_trial)
                lender = None
                if leads and several > 1 and self.config.exports:
                    lender = stack.enter_context(closing(Lender(partial(prepare_exports, self.config.exports))))
                own = self._trials(pool, files, planned, setting, dense, tracked, leads, tracked_from, lender)
                if not leads:
                    busy = {"trials": own, "dense": dense_seconds * pool.slots, "exports": 0.0}
                    self.summary = Summary(time.perf_counter() - began, pool.slots, busy, {})
                    return files.front(), False
                leaving = threads.submit(_leave, pools, launch)  # Ray takes seconds to end
                self._listener.stage("testing and drawing the front")
                front = evaluate_front(files, planned.workload, setting)
                drawing = threads.submit(draw_front, files, front)
                tracker = tracked.result()
                exports = self._export(files, planned.workload, front, tracker, lender, several)
                tracker.log_dense(front.dense)
                paths = drawing.result()
                trials = own or sum(outcome.seconds for outcome in files.outcomes() if outcome.number not in earlier)
                # While the dense network trains there is no trial that a worker could run.
                busy = {"trials": trials, "dense": dense_seconds * pool.slots, "exports": exports}
                self.summary = Summary(time.perf_counter() - began, pool.slots, busy, paths)
                numbers = {"overhead_share": self.summary.overhead, "seconds": self.summary.seconds}
                numbers["trials"] = len(files.numbers())
                numbers |= knee_numbers(front)
                tracker.finish_sweep(ranks(front), paths, front.hypervolume(), note(front), numbers)
                leaving.result()
                files.write_finished()
        return front, True

    def _train_dense(self, planned: Plan) -> tuple[Setting, DenseRow, float]:
        """Train the dense network and measure it, as far as that is not known; the third value is how long it took."""
        self._listener.stage("dense network")
        began = time.perf_counter()
        known = None if self._files is None else self._files.dense().latency
        setting, dense = dense_setting(planned, self._listener.dense_epoch, known)
        if planned.steps > 0 and (said := chance_warning(setting.model, setting.validation, setting.task)) is not None:
            self._listener.warning(said)
        if methods := list_by_damage(planned):
            # Once, on the device that trials compute on: the sampler asks what widths by damage cost before any trial.
            self._listener.stage("measuring damage curves")
            measure_damages(planned, setting, methods)
        return setting, dense, time.perf_counter() - began

    def _export(
        self,
        files: StudyFiles,
        workload: Workload,
        front: Front,
        tracker: Tracker | Away,
        lender: Lender | None,
        several: int,
    ) -> float:
        """Keep the networks of the front; return the seconds that processes spent on it."""
        if (scale := front.scale_note()) is not None:
            self._listener.warning(scale)
        formats = self.config.exports
        if formats:
            self._listener.stage("exporting the networks of the front")
        return keep_networks(files, workload, front, tracker, self._listener, formats, lender, several)

    def _take_part(self, files: StudyFiles, stack: ExitStack) -> bool:
        """Claim the study, or join the driver that has; tell whether this one leads: tests, draws and mirrors."""
        try:
            stack.enter_context(files.lock())
        except InputError as error:
            if not is_shared(study_url(self.config)):
                raise InputError(
                    f"{error}; several drivers can share a study whose trials are in PostgreSQL (--study-storage)"
                ) from error
            stack.enter_context(files.join())
            self._listener.stage(f"joining the other drivers of {files.name}")
            return False
        return True

    def _check_store(self) -> RunStore:
        """Look whether MLflow's store can be used; only a new study refuses a place that the user has just named."""
        store = RunStore.resolve(self.config.directory, self.config.tracking_uri)
        store.require_directory()
        if (aside := store.set_aside_damaged()) is not None:
            self._listener.warning(
                f"MLflow's database was damaged and is now {aside.name}; the study is sent there anew"
            )
        if self._must_track(store):
            store.prepare()
        return store

    def _open_tracker(self, store: RunStore, wanted: threading.Event) -> Tracker | Away:
        """Open MLflow's store when it is wanted; where that is not possible the search goes on without it."""
        wanted.wait()  # MLflow takes seconds to come up, and no trial needs it
        try:
            return Tracker.open(store.directory, store.uri if store.given else None)
        except InputError as error:
            if self._must_track(store):
                raise
            return self._without_mlflow(store, str(error))

    def _without_mlflow(self, store: RunStore, reason: str) -> Away:
        self._listener.warning(f"{reason}; the search goes on without MLflow, and the study's files keep everything")
        return Away(store, reason)

    def _must_track(self, store: RunStore) -> bool:
        """Whether a store that cannot be used is refused: one that was just named, for a new study."""
        return store.given and self._files is None

    def _begin_mirror(self, opening: Future[Tracker | Away], files: StudyFiles, dense: DenseRow) -> Tracker | Away:
        """Open the parent run, or take it up again; trials do not wait for it."""
        tracker = opening.result()
        store, known = tracker.store, files.read_tracked()
        config = self.config.model_dump(mode="json") | places(self.config)
        try:
            parent = tracker.start_sweep(
                files.name, config, dense, run_id=store.find_known_run(known), objectives=files.objectives()
            )
        except InputError as error:
            tracker.close(timeout=5.0)
            return self._without_mlflow(tracker.store, str(error))
        if parent:
            files.write_tracked({**known, store.key: parent})
        return tracker

    def _trials(
        self,
        pool: Pool,
        files: StudyFiles,
        planned: Plan,
        setting: Setting,
        dense: DenseRow,
        tracker: Future[Tracker | Away],
        leads: bool,
        tracked_from: threading.Event,
        lender: Lender | None,
    ) -> float:
        """Run every trial that is not finished; return the seconds of those that this driver ran beside others."""
        total, wanted = self.config.trials, load_objectives(self.config.objectives, setting.task)
        recorder = Recorder(files, dense, wanted, total, self._listener, tracker, leads)
        with ExitStack() as stack:
            stack.callback(recorder.close)
            stack.callback(tracked_from.set)  # before that, which waits for MLflow
            lag, url = files.record()["lag"], study_url(self.config)
            study = open_study(files, url, leads)
            begun, space = files.config(), Space.from_json(files.record()["space"])
            earlier = load_earlier_trials(files.record().get("earlier", ()))
            maker, ladder = study_parts(planned, space, setting, dense, begun.trials, earlier)
            study.use(maker, planned.limits)
            with study.storage.exclusive():  # what other drivers write meanwhile is in both records or in none
                files.remove_leftovers()
                for line in files.set_aside_damaged():
                    self._listener.warning(line)
                finished = {outcome.number: outcome for outcome in files.outcomes()}
                waiting = {n: seen for n in files.list_paused() if (seen := files.read_paused(n)) is not None}
                for line in study.reconcile(finished, lag, waiting, ladder()):
                    self._listener.warning(line)
            recorder.record_resumed(list(finished.values()))
            self._listener.sweep_started(files.name, total, len(finished), dense, wanted)
            resources = self.config.resources
            devices = planned.gpus_per_trial or resources.cpus_per_trial
            ending = Ending(self.config, lambda: recorder.flat, spent=lambda: devices * recorder.seconds)
            known = {**waiting, **finished}
            made = (
                study,
                total,
                lag,
                known.get,
                recorder.record_outcome,
                ending,
                ladder(),
                partial(stop_paused, files),
            )
            schedule: Schedule
            if is_shared(url):
                schedule = stack.enter_context(
                    SharedSchedule(
                        *made,
                        claims=study.storage,
                        ended=lambda spec: ended_leg(files, spec, setting.steps),
                        on_elsewhere=recorder.record_start,
                        beat=BEAT,
                    )
                )
            else:
                schedule = Schedule(*made)
            if not schedule.done:
                with watch_progress(files, self._listener):
                    settled = threading.Timer(SETTLED_AFTER, _begin_beside, (tracked_from, lender))
                    stack.callback(settled.cancel)
                    settled.start()
                    pool.run(schedule, setting, files, recorder.record_start)
            if not schedule.done and ending.reason is not None:
                held = len(files.list_paused())
                rest = f", {held} wait at a rung" if held else ""
                begun_not = total - len(files.numbers()) - held
                self._listener.warning(f"{ending.reason}: {begun_not} of {total} trials were not begun{rest}")
            return schedule.seconds if isinstance(schedule, SharedSchedule) else 0.0

    def _set_aside_damaged_database(self) -> None:
        """Give Optuna a new database where the old one cannot be read; studies are taken up again from their files."""
        if (aside := set_aside_damaged(study_url(self.config))) is not None:
            self._listener.warning(
                f"Optuna's database was damaged and is now {aside.name}; each study is taken up again from its files "
                "when it is resumed"
            )

    def _deliver(self, tracker: Future[Tracker | Away]) -> None:
        """Wait for MLflow to have everything; where it has not, say how it gets it later."""
        if (warning := tracker.result().close().warning) is not None:
            later = "" if self.name is None else f"; `paretoprune mirror {self.name}` sends what is missing"
            self._listener.warning(f"{warning}{later}")


def _stand_aside(opening: Future[Tracker | Away], files: StudyFiles, dense: DenseRow) -> Elsewhere:
    """Leave MLflow to the driver that leads."""
    tracker = opening.result()
    tracker.close(timeout=5.0)
    return Elsewhere(tracker.store)


def _begin_beside(tracked_from: threading.Event, lender: Lender | None) -> None:
    """Begin what is needed when the trials have ended, or by then: it goes on beside them."""
    tracked_from.set()
    if lender is not None:
        lender.start()


def _leave(pools: ExitStack, launch: Launch) -> None:
    """End the workers, and then Ray."""
    pools.close()
    launch.close()


@contextmanager
def _ended(tracker: Future[Tracker | Away], tracked_from: threading.Event) -> Generator[None]:
    """End the parent run as killed or failed if the sweep ends so, and wait no longer for a first trial."""
    try:
        yield
    except BaseException as error:
        tracked_from.set()
        tracker.result().stop_sweep("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise


def train_dense(config: StudyConfig, listener: Listener | None = None) -> DenseRow:
    """Train the dense network of a study, unless it is cached.

    Args:
        config: The configuration.
        listener: Receives progress.

    Returns:
        What it reaches on validation, and its cost.
    """
    heard = GuardedListener(listener or NullListener())
    try:
        heard.stage("loading data and network")
        planned = plan(config)
        for warning in planned.warnings:
            heard.warning(warning)
        heard.stage("dense network")
        setting, dense = dense_setting(planned, heard.dense_epoch)
        if (said := chance_warning(setting.model, setting.validation, setting.task)) is not None:
            heard.warning(said)
        return dense
    finally:
        heard.close()
