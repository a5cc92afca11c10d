"""Runs trials on Ray Tune: one machine's cores and GPUs, or a cluster. The only import of ray.

Tune schedules resources and workers; what is tried is decided by the schedule, of which the searcher here is a
thin mask, and what came out is read from disk, where the worker put it before Tune heard of it. We never
restore a Tuner: after an interruption the study and its files say what is left to do.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Before ray is imported: no output of its own, no loggers, interrupts as usual, nothing sent anywhere.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import tune
from ray.tune.search import Searcher

from search.records.errors import RunError
from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.store.studies import StudyFiles
from search.study.config import Resources
from search.study.schedule import Schedule
from search.trials.trial import Finished, Setting, failed_outcome
from search.workers.inline import finish_trial


@contextmanager
def ray_pool(resources: Resources, gpus_per_trial: float) -> Generator[RayPool]:
    """Start Ray, or connect to the cluster that was named, for as long as the context lasts.

    Args:
        resources: Where trials run.
        gpus_per_trial: GPUs each trial takes, may be a fraction.

    Yields:
        The pool.
    """
    mine = not ray.is_initialized()
    if mine:
        _start(resources)
    try:
        yield RayPool(resources, gpus_per_trial)
    finally:
        if mine:
            _stop()


class RayPool:
    """A :class:`search.workers.pool.Pool` of Ray's workers; made by :func:`ray_pool`.

    Args:
        resources: Where trials run.
        gpus_per_trial: GPUs each trial takes, may be a fraction.
    """

    def __init__(self, resources: Resources, gpus_per_trial: float) -> None:
        self._demand = {"cpu": resources.cpus_per_trial, "gpu": gpus_per_trial}
        self.slots = _slots(resources, gpus_per_trial)

    def run(
        self, schedule: Schedule, setting: Setting, files: StudyFiles, on_started: Callable[[TrialSpec], None]
    ) -> None:
        """Run trials until none is left.

        Args:
            schedule: Hands out trials and takes their outcomes.
            setting: What all trials share; placed in Ray's object store once.
            files: Where workers write finished trials.
            on_started: Called when a trial is handed to a worker.
        """
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        scratch = files.root / "tune"  # Tune must write somewhere; nothing in it is needed afterwards
        trainable = tune.with_parameters(_trial_on_worker, setting=setting, files=files)
        tuner = tune.Tuner(
            tune.with_resources(trainable, self._demand),
            tune_config=tune.TuneConfig(
                search_alg=_ScheduleSearcher(schedule, files, on_started),
                num_samples=-1,  # the searcher says when there is no more
                max_concurrent_trials=self.slots,
                reuse_actors=True,
                trial_name_creator=lambda trial: f"trial_{trial.config['number']:04d}",
                trial_dirname_creator=lambda trial: f"trial_{trial.config['number']:04d}",
            ),
            run_config=tune.RunConfig(name=files.name, storage_path=str(scratch), verbose=0),
        )
        try:
            tuner.fit()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _start(resources: Resources) -> None:
    """Connect to the cluster that was named; only where none was, start one here."""
    address = resources.address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, resources.cpus_per_trial),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"worker_process_setup_hook": _warm_up},
            )
    except (ConnectionError, ValueError) as error:
        raise RunError(f"Ray at {address!r} cannot be reached: {error}") from error


def _stop() -> None:
    """Stop Ray; a second Ctrl-C in the second that this takes would leave its processes behind."""
    main = threading.current_thread() is threading.main_thread()  # only there may a handler be set
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        ray.shutdown()
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def _warm_up() -> None:
    """Import what every trial needs as soon as a worker's process is there, before it has work."""
    import search.trials.trial  # noqa: F401  (torch and torch-pruning come with it)


def _slots(resources: Resources, gpus_per_trial: float) -> int:
    """How many trials can run at a time."""
    offered: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fit = int(offered.get("CPU", 0) // resources.cpus_per_trial)
    if gpus_per_trial:
        fit = min(fit, int(offered.get("GPU", 0) / gpus_per_trial + 1e-9))
    if fit < 1:
        raise RunError(
            f"no trial fits: each asks for {resources.cpus_per_trial} CPUs and {gpus_per_trial:g} GPUs, Ray offers "
            f"{offered.get('CPU', 0):g} CPUs and {offered.get('GPU', 0):g} GPUs"
        )
    return min(fit, resources.max_concurrent or fit)


def _trial_on_worker(config: Mapping[str, Any], setting: Setting, files: StudyFiles) -> None:
    """Run one trial in a worker's process; only its number goes back, the rest is on disk."""
    spec = TrialSpec(**config)
    finish_trial(setting, spec, files)
    if setting.device == "cuda":
        import torch

        torch.cuda.empty_cache()  # the process is used again and must not hoard what other trials need
    tune.report({"number": spec.number, "done": True})


class _ScheduleSearcher(Searcher):
    """Shows the schedule to Tune as a search algorithm."""

    def __init__(self, schedule: Schedule, files: StudyFiles, on_started: Callable[[TrialSpec], None]) -> None:
        super().__init__(metric="number", mode="max")
        self._schedule = schedule
        self._files = files
        self._on_started = on_started
        self._live: dict[str, tuple[TrialSpec, float]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        spec = self._schedule.next()
        if spec is None:
            finished: Any = Searcher.FINISHED  # a word that Tune knows, outside the type it declares
            return finished if self._schedule.exhausted else None
        self._live[trial_id] = (spec, time.time())
        self._on_started(spec)
        return asdict(spec)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        live = self._live.pop(trial_id, None)
        if live is not None:
            self._schedule.finish(self._outcome(*live))

    def _outcome(self, spec: TrialSpec, started: float) -> Outcome:
        """Read what the worker wrote; if it wrote nothing, its process died, and that is the outcome."""
        if spec.number not in self._files.numbers():
            message = "the worker's process ended before the trial did (out of memory, a crash, or a lost node)"
            dead = failed_outcome(spec, message, started, time.time() - started, [])
            self._files.write(Finished(dead, None, {}))
        return self._files.outcome(spec.number)

    def save(self, checkpoint_path: str) -> None:
        """Tune wants to save; the study and its files are the record."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Tune wants to restore; see :meth:`save`."""

    def __getstate__(self) -> dict[str, Any]:
        """Pickle nothing: Tune stores the searcher beside its trials, and a database cannot be stored so."""
        return {}
