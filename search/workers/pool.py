"""What runs trials: this process, Ray's workers, or an executor of somebody else's.

An executor is called as ``Name(resources, gpus_per_trial, warn)`` and gives a :class:`Pool`; where that is a context
manager, it is entered before the dense network trains and left after the last trial. Its :meth:`Pool.run` has one duty
beside running: a trial's files are on disk before the schedule hears of it, which is what
:func:`search.workers.finish.finish_trial` does wherever it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, runtime_checkable

from methods.contract.named import load_named
from search.records.trial_spec import TrialSpec
from search.store.studies import StudyFiles
from search.study.config import EXECUTOR_GROUP, EXECUTORS, Resources
from search.study.schedule import Schedule
from search.trials.trial import Setting
from spaces import InputError


@runtime_checkable
class Pool(Protocol):
    """Runs the trials of a schedule."""

    @property
    def slots(self) -> int:
        """How many trials run at a time."""

    def run(
        self, schedule: Schedule, setting: Setting, files: StudyFiles, on_started: Callable[[TrialSpec], None]
    ) -> None:
        """Run trials until none is left.

        ``schedule.next()`` gives a trial, or ``None`` while others must finish first and when ``schedule.exhausted``;
        ``schedule.finish(outcome)`` takes what came of it. Both are called from one thread.

        Args:
            schedule: Hands out trials and takes their outcomes.
            setting: What all trials share; it can be pickled.
            files: Where each finished trial is written before anything is told.
            on_started: Called when a trial begins.
        """


def load_executor(name: str) -> Callable[..., Any]:
    """Find what makes a pool.

    Args:
        name: One of ours, one of an installed package, or ``package.module:Name``.

    Returns:
        The executor.
    """
    places = {ours: f"{__package__}.{place}" for ours, place in EXECUTORS.items()}
    return load_named("executor", name, places, EXECUTOR_GROUP)  # type: ignore[no-any-return]


@contextmanager
def open_pool(resources: Resources, gpus_per_trial: float, warn: Callable[[str], None]) -> Generator[Pool]:
    """Start what runs trials, for as long as the context lasts.

    Args:
        resources: Where trials run, the name of the executor included.
        gpus_per_trial: GPUs that each trial takes, may be a fraction.
        warn: Receives what the user should know.

    Yields:
        The pool; an ``InputError`` says what else an executor of somebody else's makes.
    """
    made = load_executor(resources.executor)(resources, gpus_per_trial, warn)
    if isinstance(made, AbstractContextManager):
        with made as pool:
            yield _checked(pool, resources.executor)
    else:
        yield _checked(made, resources.executor)


def _checked(pool: object, name: str) -> Pool:
    if not isinstance(pool, Pool):
        raise InputError(f"executor {name!r} makes a {type(pool).__name__}, which lacks slots or run() of a pool")
    return pool
