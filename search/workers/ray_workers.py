"""Runs trials on Ray Tune: one machine's cores and GPUs, or a cluster. The only import of ray.

Tune schedules resources and workers; what is tried is decided by the schedule, of which the searcher here is a
thin mask, and what came out is read from disk, where the worker put it before Tune heard of it. We never
restore a Tuner: after an interruption the study and its files say what is left to do.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import Counter, deque
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
from search.records.trial_spec import TrialSpec
from search.store.studies import StudyFiles
from search.study.config import Resources
from search.study.schedule import Schedule
from search.trials.trial import Setting
from search.workers.finish import ended_leg, finish_trial, time_limit, write_failure
from spaces import InputError

LITTLE = 16 * 2**20
"""Bytes below which a disk counts as full where Tune's error does not say so."""

PATIENCE = 60.0
"""Seconds within which a cluster must answer."""

SOCKET_PATH = 107 - len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.1")
"""Longest temporary directory under which Ray's sockets get names that the system allows."""


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
    mine = not ray.is_initialized()
    if mine:
        _start(resources)
    try:
        yield RayPool(resources, gpus_per_trial, say)
    finally:
        if mine:
            _stop()


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
        self._retries, self._timeout, self._say = resources.retries, resources.trial_timeout, say
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

        Raises:
            OSError: If a worker, or Tune, cannot write its files.
        """
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        scratch = files.root / "tune"  # Tune must write somewhere; nothing in it is needed afterwards
        trainable = tune.with_parameters(_trial_on_worker, setting=setting, files=files, timeout=self._timeout)
        searcher = _ScheduleSearcher(schedule, files, setting.steps, on_started, self._retries, self._say)
        tuner = tune.Tuner(
            tune.with_resources(trainable, self._demand),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,  # the searcher says when there is no more
                max_concurrent_trials=self.slots,
                reuse_actors=True,
                trial_name_creator=_name_leg,
                trial_dirname_creator=_name_leg,
            ),
            run_config=tune.RunConfig(name=files.name, storage_path=str(scratch), verbose=0),
        )
        try:
            tuner.fit()
        except Exception as error:
            if shutil.disk_usage(scratch).free < LITTLE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(scratch)) from error
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if searcher.failure is not None:
            raise searcher.failure


def _start(resources: Resources) -> None:
    """Connect to the cluster that was named; only where none was, start one here."""
    address = resources.address or os.environ.get("RAY_ADDRESS")
    with _own_handlers():
        if address:
            _connect(address)
            return
        with _loopback_alone():
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, resources.cpus_per_trial),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"worker_process_setup_hook": _warm_up},
                _temp_dir=_short_directory(),
            )


@contextmanager
def _loopback_alone() -> Generator[None]:
    """Let a cluster that is started meanwhile listen on loopback alone: who reaches its ports can run code here.

    Where Ray supports clusters it takes the machine's outer address, even when it is given 127.0.0.1, and listens on
    all interfaces; where it does not, as on macOS and Windows, it stays on loopback. This is that switch.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _connect(address: str) -> None:
    """Connect to a running cluster, within a bounded time.

    Raises:
        RunError: If nothing answers there, or it does not let us in.
    """
    if address.startswith("ray://"):
        raise RunError(
            f"Ray at {address!r}: trials do not go through the Ray client (ray://); start the sweep on a node of the "
            "cluster with --address auto, or submit it with `ray job submit`"
        )
    if address not in ("auto", "local") and not _answers(address):
        raise RunError(f"nothing answers at Ray's address {address!r}; is `ray start --head` running there?")
    os.environ.setdefault("RAY_gcs_server_request_timeout_seconds", str(int(PATIENCE)))
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint = "; copy ~/.ray/auth_token from the head node" if "auth" in str(error).lower() else ""
        raise RunError(f"Ray at {address!r} cannot be reached: {first}{hint}") from error


def _answers(address: str) -> bool:
    """Whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"Ray's address {address!r} is not allowed: give auto, or HOST:PORT such as 10.0.0.1:6379")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10):
            return True
    except (OSError, OverflowError):
        return False


def _short_directory() -> str | None:
    """Choose where Ray keeps its sockets where the usual place has too long a name for them."""
    usual = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(usual) <= SOCKET_PATH:
        return None
    return tempfile.mkdtemp(prefix="pp-", dir="/tmp")


@contextmanager
def _own_handlers() -> Generator[None]:
    """Keep the process's signal handlers: Ray sets its own, which end the driver with a stack of C++."""
    main = threading.current_thread() is threading.main_thread()  # only there may a handler be set
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if main and handler is not None:
                signal.signal(number, handler)


def _stop() -> None:
    """Stop Ray; a second Ctrl-C in the second that this takes would leave its processes behind."""
    main = threading.current_thread() is threading.main_thread()
    with _own_handlers():
        if main:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
        ray.shutdown()


def _warm_up() -> None:
    """Import what every trial needs as soon as a worker's process is there, before it has work."""
    import search.trials.trial  # noqa: F401  (torch comes with it)


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


def _trial_on_worker(config: Mapping[str, Any], setting: Setting, files: StudyFiles, timeout: float | None) -> None:
    """Run one trial in a worker's process; only its number goes back, the rest is on disk."""
    spec = TrialSpec(**config)
    try:
        with time_limit(files, spec, timeout):
            state = finish_trial(setting, spec, files).state
    except OSError as error:  # the trial's files cannot be written: what stops one worker stops all
        tune.report({"number": spec.number, "done": True, "error": [error.errno, error.strerror, error.filename]})
        return
    if setting.device == "cuda":
        import torch

        torch.cuda.empty_cache()  # the process is used again and must not hoard what other trials need
    tune.report({"number": spec.number, "done": True, "state": state})


def _name_leg(trial: Any) -> str:
    """Name a trial of Tune, which is one leg of ours: its number, and the step that it pauses at."""
    until = trial.config["until"]
    return f"trial_{trial.config['number']:04d}" + ("" if until is None else f"_to_{until}")


class _ScheduleSearcher(Searcher):
    """Shows the schedule to Tune as a search algorithm."""

    def __init__(
        self,
        schedule: Schedule,
        files: StudyFiles,
        steps: int,
        on_started: Callable[[TrialSpec], None],
        retries: int,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(metric="number", mode="max")
        self.failure: OSError | None = None
        self._steps, self._retries, self._say = steps, retries, say
        self._again: deque[TrialSpec] = deque()
        self._lost: Counter[int] = Counter()
        self._schedule = schedule
        self._files = files
        self._on_started = on_started
        self._live: dict[str, tuple[TrialSpec, float]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        finished: Any = Searcher.FINISHED  # a word that Tune knows, outside the type it declares
        if self.failure is not None:
            return finished  # type: ignore[no-any-return]
        spec = self._again.popleft() if self._again else self._schedule.next()
        if spec is None:
            # While trials run one of them may be lost, and must then be run again.
            return finished if self._schedule.exhausted and not self._live else None
        self._live[trial_id] = (spec, time.time())
        self._on_started(spec)
        return asdict(spec)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        live = self._live.pop(trial_id, None)
        if live is None:
            return
        spec, started = live
        if result is not None and result.get("error"):
            number, text, path = result["error"]
            self.failure = OSError(number, text, path)
        elif (ended := ended_leg(self._files, spec, self._steps)) is not None:
            self._schedule.finish(ended)
        else:
            self._take_loss(spec, started)

    def _take_loss(self, spec: TrialSpec, started: float) -> None:
        """Run a trial again whose worker wrote nothing, for its process died; give it up after some times."""
        self._lost[spec.number] += 1
        count = self._lost[spec.number]
        why = "out of memory, a crash, or a lost node"
        if count <= self._retries:
            self._say(
                f"the worker of trial {spec.number} was lost ({why}); the trial runs again from its last epoch "
                f"({count} of {self._retries})"
            )
            self._again.append(spec)
            return
        text = f"the worker's process ended before the trial did, {count} times ({why})"
        self._schedule.finish(write_failure(self._files, spec, started, text, "lost"))

    def save(self, checkpoint_path: str) -> None:
        """Tune wants to save; the study and its files are the record."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Tune wants to restore; see :meth:`save`."""

    def __getstate__(self) -> dict[str, Any]:
        """Pickle nothing: Tune stores the searcher beside its trials, and a database cannot be stored so."""
        return {}
