"""A trial in a process of its own, which it may crash, hang or fill without harm to the driver."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cloudpickle

from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.store.studies import StudyFiles
from search.trials.trial import Setting
from search.workers.finish import ended_leg, finish_trial, time_limit, timeout_text, write_failure

GRACE = 30.0
"""Seconds beyond the limit after which a process that has not ended itself is killed."""

FATAL = 2
"""A trial that has ended so many processes by its own doing is failed."""

_FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT}

_PROGRAM = (
    "import pickle, sys; file = open(sys.argv[1], 'rb'); sys.path[:] = pickle.load(file); "
    "from search.workers.isolated import run_pickled; run_pickled(file, int(sys.argv[2]))"
)


def run_isolated(
    setting: Setting,
    spec: TrialSpec,
    files: StudyFiles,
    deaths: int = 0,
    retries: int = 2,
    timeout: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Run one trial in a process of its own, again if that process is lost.

    Args:
        setting: What all trials share.
        spec: Which trial.
        files: Where it is written.
        deaths: How many processes it has ended before.
        retries: How often it is run again after its process was killed from outside.
        timeout: Seconds it may take.
        say: Is told of every process that is lost.

    Returns:
        The outcome, which is on disk by now: ``"failed"`` if the trial ended :data:`FATAL` processes by itself,
        ``"lost"`` if its process was killed more often than ``retries``, ``"timed_out"``, or the trial's own.
    """
    lost = 0
    while True:
        started = time.time()
        code = _in_process(setting, spec, files, timeout)
        if (ended := ended_leg(files, spec, setting.steps)) is not None:
            return ended
        if code is None:
            return write_failure(files, spec, started, timeout_text(timeout or 0.0), "timed_out")
        how = _said(code)
        if code in _FROM_OUTSIDE:
            lost += 1
            if lost > retries:
                text = f"the trial's process was lost {lost} times ({how}; out of memory, or killed by somebody)"
                return write_failure(files, spec, started, text, "lost")
        else:
            deaths += 1
            if deaths >= FATAL:
                text = f"the trial has ended its process {deaths} times ({how})"
                return write_failure(files, spec, started, text, "failed")
        say(f"the process of trial {spec.number} ended before the trial did ({how}); the trial runs again")


def _in_process(setting: Setting, spec: TrialSpec, files: StudyFiles, timeout: float | None) -> int | None:
    """Run the trial in a new process; return its exit code, None if it had to be killed."""
    with tempfile.NamedTemporaryFile(suffix=".trial") as file:
        pickle.dump(sys.path, file)
        cloudpickle.dump((setting, spec, files, timeout), file)
        file.flush()
        command = [sys.executable, "-c", _PROGRAM, file.name, str(os.getpid())]
        # A session of its own: Ctrl-C is for the driver, which ends the process by itself.
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
        try:
            return child.wait(None if timeout is None else timeout + GRACE)
        except subprocess.TimeoutExpired:
            return None
        finally:
            child.kill()
            child.wait()


def run_pickled(file: Path | object, driver: int) -> None:
    """Run the trial that was put into a file: the whole of the new process.

    Args:
        file: The open file, behind the import path.
        driver: Process id of the driver, with which this process ends.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != driver:
        return  # the driver has gone in the meantime
    setting, spec, files, timeout = cloudpickle.load(file)
    with time_limit(files, spec, timeout):
        finish_trial(setting, spec, files)


def _said(code: int) -> str:
    """Say how a process ended."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
