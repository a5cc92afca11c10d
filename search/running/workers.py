"""Runs trials on Ray Tune: one machine's cores and GPUs, or a cluster. The only import of ray.

Tune schedules resources and workers; what is tried is decided by the schedule, of which the searcher here is a
thin mask, and what came out is read from disk, where the worker put it before Tune heard of it. We never
restore a Tuner: after an interruption the study and its files say what is left to do.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
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

from search.config import Resources
from search.errors import RunError
from search.outcome import Outcome
from search.running.inline import finish_trial
from search.running.schedule import Schedule
from search.store import StudyFiles
from search.trial import Finished, Setting, TrialSpec, failed


def start(resources: Resources) -> None:
    """Start Ray, or connect to the cluster that was named.

    Args:
        resources: Where trials run.

    Raises:
        RunError: If the cluster cannot be reached.
    """
    if ray.is_initialized():
        return
    address = resources.address or os.environ.get("RAY_ADDRESS")
    # A named cluster has its own resources; a local one must offer at least what one trial asks for.
    local: dict[str, Any] = {} if address else {"include_dashboard": False, "num_cpus": _local_cpus(resources)}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
            **local,
        )
    except (ConnectionError, ValueError) as error:
        raise RunError(f"Ray at {address!r} cannot be reached: {error}") from error


def slots(resources: Resources, gpus_per_trial: float) -> int:
    """Count how many trials can run at a time.

    Args:
        resources: Where trials run; Ray must have been started.
        gpus_per_trial: GPUs each trial takes.

    Returns:
        At least 1.

    Raises:
        RunError: If not even one trial fits.
    """
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


def stop() -> None:
    """Stop Ray (or leave the cluster)."""
    ray.shutdown()


def run_on_ray(
    schedule: Schedule,
    setting: Setting,
    files: StudyFiles,
    on_started: Callable[[TrialSpec], None],
    resources: Resources,
    gpus_per_trial: float,
    concurrent: int,
) -> None:
    """Run trials on Ray Tune until none is left.

    Args:
        schedule: Hands out trials and takes their outcomes.
        setting: What all trials share; placed in Ray's object store once.
        files: Where workers write finished trials.
        on_started: Called when a trial is handed to a worker.
        resources: CPUs per trial.
        gpus_per_trial: GPUs per trial, may be a fraction.
        concurrent: Trials at a time.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    searcher = _ScheduleSearcher(schedule, files, on_started)
    trainable = tune.with_parameters(_trial_on_worker, setting=setting, files=files)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": resources.cpus_per_trial, "gpu": gpus_per_trial}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,  # the searcher says when there is no more
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial_{trial.config['number']:04d}",
            trial_dirname_creator=lambda trial: f"trial_{trial.config['number']:04d}",
        ),
        run_config=tune.RunConfig(name=files.name, storage_path=str(_scratch(files)), verbose=0),
    )
    tuner.fit()


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
            dead = failed(spec, message, started, time.time() - started, [])
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


def _scratch(files: StudyFiles) -> Path:
    """Tune's own folder, out of the way of the study's files."""
    return files.root / "tune"


def _local_cpus(resources: Resources) -> int:
    return max(os.cpu_count() or 1, resources.cpus_per_trial)
