"""Runs trials on Ray: one machine's cores and GPUs, or a cluster that grows and shrinks.

Each slot is a process of Ray's (an actor) that holds its CPUs and its share of a GPU, imports torch once, and runs one
trial after another. What is tried is decided by the schedule. A worker writes its trial into the study's folder before
the driver hears of it; one that does not see that folder sends the files (``search.workers.parcels``). After an
interruption the study and its files say what is left to do: nothing of Ray is restored.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import ray
import ray.exceptions

from search.records.errors import RunError
from search.records.outcome import Outcome, State
from search.records.trial_spec import TrialSpec
from search.store.analyses import StoredAnalyses
from search.store.files import read_object, write_json
from search.store.studies import StudyFiles
from search.study.config import Resources
from search.study.schedule import Schedule
from search.trials.trial import Setting
from search.workers.cluster import is_running, start_ray, stop_ray
from search.workers.crew import LOOKED_EVERY, Crew, named_error
from search.workers.finish import ended_leg, finish_trial, time_limit, timeout_text, write_failure
from search.workers.parcels import Parcel, Storage, pack, scratch_files, unpack
from spaces import InputError

GRACE = 30.0
"""Seconds beyond its limit after which a trial's worker is killed that has not ended itself."""

Part = TypeVar("Part")
Done = TypeVar("Done")


@contextmanager
def ray_pool(
    resources: Resources, gpus_per_trial: float, say: Callable[[str], None] = lambda text: None
) -> Generator[RayPool]:
    """Start Ray, or connect to the cluster that was named, for as long as the context lasts.

    Args:
        resources: Where trials run.
        gpus_per_trial: GPUs each trial takes, may be a fraction.
        say: Hears of every worker that is lost.

    Yields:
        The pool.
    """
    mine = not is_running()
    if mine:
        start_ray(resources)
    try:
        pool = RayPool(resources, gpus_per_trial, say)
        try:
            yield pool
        finally:
            pool.close()
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
        return self.files.root / "shared.json"


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


@dataclass(frozen=True)
class _Job:
    """A trial that is with a worker, and since when."""

    worker: Any
    spec: TrialSpec
    started: float


class _Worker:
    """One slot: the process in which trials run."""

    def __init__(self) -> None:
        import search.trials.trial  # noqa: F401  (torch comes with it, while the driver trains the dense network)

    def ready(self) -> None:
        """Answer: the process is there and has its imports."""

    def run(self, setting: Setting, errand: _Errand, spec: TrialSpec) -> _Report:
        """Run one trial; ``setting`` is a fresh copy, so that no trial can spoil what others share."""
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

    def call(self, function: Callable[[Part], Done], part: Part) -> Done:
        """Do a piece of other work."""
        return function(part)


class RayPool:
    """A :class:`search.workers.pool.Pool` of Ray's workers; made by :func:`ray_pool`.

    Args:
        resources: Where trials run.
        gpus_per_trial: GPUs each trial takes, may be a fraction.
        say: Hears of every worker that is lost.
    """

    def __init__(
        self, resources: Resources, gpus_per_trial: float, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self._resources, self._say = resources, say
        self._crew = Crew(_Worker, resources, gpus_per_trial, say)
        self.slots = self._crew.slots

    def run(
        self, schedule: Schedule, setting: Setting, files: StudyFiles, on_started: Callable[[TrialSpec], None]
    ) -> None:
        """Run trials until none is left.

        Args:
            schedule: Hands out trials and takes their outcomes.
            setting: What all trials share; placed in Ray's object store once.
            files: Where finished trials are.
            on_started: Called when a trial is handed to a worker.
        """
        token, address = uuid.uuid4().hex, self._resources.storage
        storage = None if address is None else Storage(address, token)
        if storage is not None:
            storage.check()
        errand = _Errand(files, token, self._resources.trial_timeout, storage)
        write_json(errand.probe, {"token": token})
        try:
            _Run(self._crew, schedule, setting, errand, self._resources.retries, on_started, self._say).until_done()
        finally:
            errand.probe.unlink(missing_ok=True)
            if storage is not None:
                storage.clear()

    def spread(self, function: Callable[[Part], Done], parts: Sequence[Part]) -> list[Done]:
        """Do other work than trials on the workers of this machine, when no trial runs.

        Args:
            function: Does one part; it can be pickled.
            parts: The parts, about one for each slot.

        Returns:
            What came of each, in order. What a part raises is raised here.

        Raises:
            RunError: If a worker dies.
        """
        self._crew.take_in()
        idle = self._crew.idle
        if self._crew.of_cluster or not idle or len(parts) < 2:  # elsewhere, what the parts name may not be there
            return [function(part) for part in parts]
        results = [idle[n % len(idle)].call.remote(function, part) for n, part in enumerate(parts)]
        try:
            return list(ray.get(results))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise RunError(f"a worker was lost: {named_error(error)}") from error

    def close(self) -> None:
        """End all workers."""
        self._crew.close()


class _Run:
    """The trials of one schedule on the workers of a pool."""

    def __init__(
        self,
        crew: Crew,
        schedule: Schedule,
        setting: Setting,
        errand: _Errand,
        retries: int,
        on_started: Callable[[TrialSpec], None],
        say: Callable[[str], None],
    ) -> None:
        self._crew, self._schedule, self._errand = crew, schedule, errand
        self._steps = setting.steps
        self._shared = (ray.put(setting), ray.put(errand))
        self._retries, self._on_started, self._say = retries, on_started, say
        self._jobs: dict[Any, _Job] = {}
        self._again: deque[TrialSpec] = deque()
        self._lost: Counter[int] = Counter()

    def until_done(self) -> None:
        """Run trials until none is left."""
        while True:
            self._crew.take_in()
            while self._crew.idle and (spec := self._next()) is not None:
                self._begin(self._crew.idle.popleft(), spec)
            if not self._jobs and not self._again and self._schedule.exhausted:
                return
            self._await_news()

    def _next(self) -> TrialSpec | None:
        return self._again.popleft() if self._again else self._schedule.next()

    def _begin(self, worker: Any, spec: TrialSpec) -> None:
        self._jobs[worker.run.remote(*self._shared, spec)] = _Job(worker, spec, time.time())
        self._on_started(spec)

    def _await_news(self) -> None:
        """Wait until a trial ends, a worker has started, or it is time to look around."""
        awaited = [*self._jobs, *self._crew.starting]
        if not awaited:
            self._crew.wait_for_nodes()
            return
        self._crew.nodes_are_back()
        ended, _ = ray.wait(awaited, num_returns=1, timeout=LOOKED_EVERY)
        for reference in ended:
            if reference in self._jobs:
                self._settle(reference, self._jobs.pop(reference))
        self._end_overdue()

    def _settle(self, reference: Any, job: _Job) -> None:
        """Take what came of a trial; its worker gets the next one first."""
        number, files = job.spec.number, self._errand.files
        try:
            report: _Report = ray.get(reference)
        except (ray.exceptions.RayTaskError, ray.exceptions.RaySystemError) as error:
            raise RunError(
                f"trial {number} could not be run by a worker: {named_error(error)}; are the modules of your network, "
                "data and methods on every node? --working-dir sends them"
            ) from error
        except ray.exceptions.RayError as error:
            self._take_loss(job, error)
            return
        if report.failure is not None:
            raise OSError(*report.failure)
        if (spec := self._next()) is not None:
            self._begin(job.worker, spec)
        else:
            self._crew.idle.append(job.worker)
        if report.paused is not None:
            files.write_paused(report.paused)
        elif report.parcel is not None:
            unpack(files, number, report.parcel)
            files.remove_paused(number)
        elif report.stored and self._errand.storage is not None:
            self._errand.storage.fetch(files, number)
            files.remove_paused(number)
        ended = ended_leg(files, job.spec, self._steps)
        if ended is None:
            raise RunError(f"trial {number} has ended, but {files.folder(number)} is not there")
        self._schedule.finish(ended)

    def _take_loss(self, job: _Job, error: Exception) -> None:
        """Run a trial again whose worker was lost, unless it has an outcome; give it up after some times."""
        self._crew.dismiss(job.worker)
        self._crew.hire()
        files, number, timeout = self._errand.files, job.spec.number, self._errand.timeout
        if (ended := ended_leg(files, job.spec, self._steps)) is not None:
            self._schedule.finish(ended)
            return
        if timeout is not None and time.time() - job.started >= timeout:
            self._give_up(job, timeout_text(timeout), "timed_out")
            return
        self._lost[number] += 1
        count, (why, state) = self._lost[number], _reason(error)
        if count > self._retries:
            self._give_up(job, f"the worker's process ended before the trial did, {count} times ({why})", state)
            return
        self._say(
            f"the worker of trial {number} was lost ({why}); the trial runs again from its last epoch "
            f"({count} of {self._retries})"
        )
        self._again.append(job.spec)

    def _end_overdue(self) -> None:
        """Kill the workers of trials that are beyond their limit and have not ended themselves."""
        timeout = self._errand.timeout
        if timeout is None:
            return
        late = time.time() - timeout - GRACE
        for reference, job in [item for item in self._jobs.items() if item[1].started < late]:
            del self._jobs[reference]
            self._crew.dismiss(job.worker)
            self._crew.hire()
            self._give_up(job, timeout_text(timeout), "timed_out")

    def _give_up(self, job: _Job, text: str, state: State) -> None:
        self._schedule.finish(write_failure(self._errand.files, job.spec, job.started, text, state))


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


def _reason(error: Exception) -> tuple[str, State]:
    """Say why a worker was lost, as far as Ray knows."""
    text = str(error).lower()
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "running low on memory" in text:
        return "its machine ran out of memory", "out_of_memory"
    if "node" in text and ("died" in text or "dead" in text) and "unexpectedly exits" not in text:
        return "its node is gone", "lost"
    return "out of memory, a crash, or a lost node", "lost"
