"""Runs trials on Ray Tune: one machine's cores and GPUs, or a cluster that grows and shrinks.

Tune schedules resources and workers, whose processes it uses again; what is tried is decided by the schedule, of which
the searcher here is a thin mask. A worker writes its trial into the study's folder before Tune hears of it; one that
does not see that folder sends the files (``search.workers.parcels``). We never restore a Tuner: after an interruption
the study and its files say what is left to do.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cloudpickle
import ray.exceptions
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from search.records.errors import RunError
from search.records.outcome import Outcome, State
from search.records.trial_spec import TrialSpec
from search.store.analyses import StoredAnalyses
from search.store.files import LITTLE, read_object, write_json
from search.store.studies import StudyFiles
from search.study.config import Resources
from search.study.schedule import Schedule
from search.trials.trial import Setting
from search.workers.cluster import cluster_address, is_running, named_error, start_ray, stop_ray, wait_for_room
from search.workers.finish import ended_leg, finish_trial, time_limit, write_failure
from search.workers.parcels import Parcel, Storage, pack, scratch_files, unpack
from spaces import InputError


@contextmanager
def ray_pool(
    resources: Resources, gpus_per_trial: float, say: Callable[[str], None] = lambda text: None
) -> Generator[RayPool]:
    """Start Ray, or connect to the cluster that was named, for as long as the context lasts.

    Args:
        resources: Where trials run.
        gpus_per_trial: GPUs each trial takes, may be a fraction.
        say: Is told of every worker that is lost.

    Yields:
        The pool.
    """
    mine = not is_running()
    if mine:
        start_ray(resources)
    try:
        yield RayPool(resources, gpus_per_trial, say)
    finally:
        if mine:
            stop_ray()


@dataclass(frozen=True)
class _Errand:
    """What a worker must know of the study.

    Attributes:
        files: The study, as the driver sees it.
        token: Stands in a file of the study's folder: a worker that reads it there sees the same disk.
        timeout: Seconds that a trial may take.
        storage: Where workers that do not see the folder leave their files; ``None`` sends them through Ray.
    """

    files: StudyFiles
    token: str
    timeout: float | None
    storage: Storage | None

    @property
    def probe(self) -> Path:
        """The file that holds the token."""
        return self.files.root / f"shared-{self.token[:8]}.json"


@dataclass(frozen=True)
class _Report:
    """What a worker says of a trial that it has run.

    Attributes:
        parcel: Its files, if they go through Ray.
        stored: Whether they are in the storage.
        paused: The trial so far, if it waits at a rung and the driver cannot read that by itself.
        failure: Number, text and path of the error if the trial could not be written.
    """

    parcel: Parcel | None = None
    stored: bool = False
    paused: Outcome | None = None
    failure: tuple[int | None, str | None, str | None] | None = None


class RayPool:
    """A :class:`search.workers.pool.Pool` of Ray's workers; made by :func:`ray_pool`.

    Args:
        resources: Where trials run.
        gpus_per_trial: GPUs each trial takes, may be a fraction.
        say: Is told of every worker that is lost.
    """

    def __init__(
        self, resources: Resources, gpus_per_trial: float, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self._resources, self._say = resources, say
        self._demand = {"cpu": resources.cpus_per_trial, "gpu": gpus_per_trial}
        self._of_cluster = cluster_address(resources) is not None
        patience = () if self._of_cluster else (0.0,)
        room = wait_for_room(resources.cpus_per_trial, gpus_per_trial, say, *patience)
        most = resources.max_concurrent
        # What is asked for beyond the room makes a cluster grow, where it can.
        self.slots = room if most is None else most if self._of_cluster else min(room, most)

    def run(
        self, schedule: Schedule, setting: Setting, files: StudyFiles, on_started: Callable[[TrialSpec], None]
    ) -> None:
        """Run trials until none is left.

        Args:
            schedule: Hands out trials and takes their outcomes.
            setting: What all trials share; placed in Ray's object store once.
            files: Where finished trials are.
            on_started: Called when a trial is handed to Tune.
        """
        token, address = uuid.uuid4().hex, self._resources.storage
        storage = None if address is None else Storage(address, token)
        if storage is not None:
            storage.check()
        errand = _Errand(files, token, self._resources.trial_timeout, storage)
        write_json(errand.probe, {"token": token})
        try:
            self._tune(schedule, setting, errand, on_started)
        finally:
            errand.probe.unlink(missing_ok=True)
            if storage is not None:
                storage.clear()

    def _tune(
        self, schedule: Schedule, setting: Setting, errand: _Errand, on_started: Callable[[TrialSpec], None]
    ) -> None:
        """Let Tune ask the schedule for trials and run them, until it has no more."""
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        _use_workers_started_ahead()
        # Tune must write somewhere; nothing in it is needed afterwards. Further drivers of the study have their own.
        scratch = errand.files.root / f"tune-{errand.token[:8]}"
        errors = _Errors()
        searcher = _ScheduleSearcher(
            schedule, errand, setting.steps, on_started, self._resources.retries, self._say, errors
        )
        most = self._resources.max_concurrent if self._of_cluster else self.slots
        try:
            tune.run(
                tune.with_parameters(_trial_on_worker, setting=setting, errand=errand),
                name=errand.files.name,
                resources_per_trial=self._demand,
                search_alg=searcher,
                scheduler=errors,
                num_samples=-1,  # the searcher says when there is no more
                max_concurrent_trials=most,
                reuse_actors=True,
                trial_name_creator=_name_leg,
                trial_dirname_creator=_name_leg,
                storage_path=str(scratch),
                verbose=0,
                raise_on_failed_trial=False,
            )
        except Exception as error:
            if scratch.exists() and shutil.disk_usage(scratch).free < LITTLE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(scratch)) from error
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if searcher.failure is not None:
            raise searcher.failure


def _use_workers_started_ahead() -> None:
    """Let Tune take the workers that Ray has started ahead.

    It asks for such as have an environment variable of PyTorch Lightning's, which nothing here uses and those lack:
    each worker would be a new process, which imports for seconds what the other has imported.
    """
    getattr(class_cache, "DEFAULT_ENV_VARS", {}).clear()


def _name_leg(trial: Any) -> str:
    """Name a trial of Tune, which is one leg of ours: its number, and the step that it pauses at."""
    until = trial.config["until"]
    return f"trial_{trial.config['number']:04d}" + ("" if until is None else f"_to_{until}")


def _trial_on_worker(config: Mapping[str, Any], setting: Setting, errand: _Errand) -> None:
    """Run one leg of a trial in a worker's process; ``setting`` is a copy, which no other trial sees."""
    spec = TrialSpec(**config)
    tune.report({"number": spec.number, "done": True, "report": _run_leg(setting, errand, spec)})


def _run_leg(setting: Setting, errand: _Errand, spec: TrialSpec) -> _Report:
    """Run one leg, write it, and send it home if the study's folder is not here."""
    files, at_home = _files_here(errand)
    if not at_home:
        setting = _without_disk(setting, files)
    storage = None if at_home else errand.storage
    try:
        with time_limit(files, spec, errand.timeout):
            outcome = finish_trial(setting, spec, files, storage)
    except OSError as error:  # the trial's files cannot be written: what stops one worker stops all
        return _Report(failure=(error.errno, error.strerror, error.filename))
    if setting.device == "cuda":
        import torch

        torch.cuda.empty_cache()  # the process is used again and must not hoard what other trials need
    if at_home:
        return _Report()
    if outcome.state == "paused":
        return _Report(paused=outcome)
    try:
        if storage is None:
            return _Report(pack(files, spec.number))
        storage.send(files, spec.number)
        return _Report(stored=True)
    finally:
        shutil.rmtree(files.folder(spec.number), ignore_errors=True)


class _Errors(FIFOScheduler):
    """Keeps why trials of Tune ended in an error; the searcher, which is told next, is not told why."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found: dict[str, Exception] = {}

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Note the error of a trial: Tune has written it on this machine, and sends it to its storage later."""
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes()) if trial.pickled_error_file else None
        if isinstance(error, Exception):
            self._found[trial.trial_id] = error

    def pop(self, trial_id: str) -> Exception | None:
        """Return the error of a trial, once."""
        return self._found.pop(trial_id, None)


class _ScheduleSearcher(Searcher):
    """Shows the schedule to Tune as a search algorithm."""

    def __init__(
        self,
        schedule: Schedule,
        errand: _Errand,
        steps: int,
        on_started: Callable[[TrialSpec], None],
        retries: int,
        say: Callable[[str], None],
        errors: _Errors,
    ) -> None:
        super().__init__(metric="number", mode="max")
        self.failure: OSError | RunError | None = None
        self._schedule, self._errand, self._steps = schedule, errand, steps
        self._on_started, self._retries, self._say, self._errors = on_started, retries, say, errors
        self._again: deque[TrialSpec] = deque()
        self._lost: Counter[int] = Counter()
        self._live: dict[str, tuple[TrialSpec, float]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Hand out the next leg of a trial, ``None`` while there is none, or say that there are no more."""
        finished: Any = Searcher.FINISHED  # a word that Tune knows, outside the type it declares
        if self.failure is not None:
            return finished  # type: ignore[no-any-return]
        try:
            spec = self._again.popleft() if self._again else self._schedule.next()
        except (OSError, RunError) as failure:  # Tune must end its trials first
            self.failure = failure
            return finished  # type: ignore[no-any-return]
        if spec is None:
            # While trials run one of them may be lost, and must then be run again.
            return finished if self._schedule.exhausted and not self._live else None
        self._live[trial_id] = (spec, time.time())
        self._on_started(spec)
        return asdict(spec)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Take what came of a leg."""
        live = self._live.pop(trial_id, None)
        if live is None:
            return
        try:
            self._settle(*live, None if result is None else result.get("report"), self._errors.pop(trial_id))
        except (OSError, RunError) as failure:  # Tune must end its trials first
            self.failure = failure

    def _settle(self, spec: TrialSpec, started: float, report: _Report | None, error: Exception | None) -> None:
        """Fetch a leg's files where that is needed, and tell the schedule."""
        files, number = self._errand.files, spec.number
        if report is not None and report.failure is not None:
            raise OSError(*report.failure)
        if report is not None and report.paused is not None:
            files.write_paused(report.paused)
        elif report is not None and report.parcel is not None:
            unpack(files, number, report.parcel)
            files.remove_paused(number)
        elif report is not None and report.stored and self._errand.storage is not None:
            self._errand.storage.fetch(files, number)
            files.remove_paused(number)
        if (ended := ended_leg(files, spec, self._steps)) is not None:
            self._schedule.finish(ended)
        elif report is not None:
            raise RunError(f"trial {number} has ended, but {files.folder(number)} is not there")
        else:
            self._take_loss(spec, started, error)

    def _take_loss(self, spec: TrialSpec, started: float, error: Exception | None) -> None:
        """Run a trial again whose worker was lost; give it up after some times."""
        if error is not None and could_not_begin(error):
            raise RunError(
                f"trial {spec.number} could not be run by a worker: {named_error(error)}; are the modules of your "
                "network, data and methods on every node? --working-dir sends them"
            ) from error
        self._lost[spec.number] += 1
        count, (why, state) = self._lost[spec.number], _reason(error)
        if count <= self._retries:
            self._say(
                f"the worker of trial {spec.number} was lost ({why}); the trial runs again from its last epoch "
                f"({count} of {self._retries})"
            )
            self._again.append(spec)
            return
        text = f"the worker's process ended before the trial did, {count} times ({why})"
        self._schedule.finish(write_failure(self._errand.files, spec, started, text, state))

    def save(self, checkpoint_path: str) -> None:
        """Tune wants to save; the study and its files are the record."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Tune wants to restore; see :meth:`save`."""

    def __getstate__(self) -> dict[str, Any]:
        """Pickle nothing: Tune stores the searcher beside its trials, and a database cannot be stored so."""
        return {}


def _files_here(errand: _Errand) -> tuple[StudyFiles, bool]:
    """Choose where this machine writes a trial; the second value says whether that is the study's own folder."""
    try:
        seen = read_object(errand.probe).get("token") == errand.token and os.access(errand.files.root, os.W_OK)
    except (OSError, InputError):
        seen = False
    return (errand.files, True) if seen else (scratch_files(errand.files.name, errand.token), False)


def _without_disk(setting: Setting, files: StudyFiles) -> Setting:
    """Have analyses kept on this machine: each is made once here."""
    if not isinstance(setting.analyses, StoredAnalyses):
        return setting
    return replace(setting, analyses=replace(setting.analyses, folder=files.directory / "analyses"))


def could_not_begin(error: Exception) -> bool:
    """Tell a worker that could not import what a trial is run by from one that was lost: the next could not, either.

    Args:
        error: What Tune keeps of the trial.

    Returns:
        Whether it was there, and could not begin.
    """
    if isinstance(error, ray.exceptions.RayActorError):  # without the modules of a trial Ray ends the process
        return error.actor_init_failed or "failed to import on the worker" in str(error)
    return isinstance(error, ray.exceptions.RayTaskError)


def _reason(error: Exception | None) -> tuple[str, State]:
    """Say why a worker was lost, as far as Ray knows."""
    text = str(error).lower()
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "running low on memory" in text:
        return "its machine ran out of memory", "out_of_memory"
    if "node" in text and ("died" in text or "dead" in text) and "unexpectedly exits" not in text:
        return "its node is gone", "lost"
    return "out of memory, a crash, or a lost node", "lost"
