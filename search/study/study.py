"""The Optuna study: which trials exist, what they try, what came of them.

With ``search.study.samplers`` the only import of optuna.

The sampler is made anew for every question and seeded by (seed of the study, number of the trial), so that a
suggestion depends on the trials that have been told and on nothing else. See ``search.study.schedule`` for the order
in which trials are asked and told.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from search.objectives import load_objectives
from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.study.config import Sampler
from search.study.samplers.choice import resolve_sampler
from search.study.samplers.stock import stock_sampler
from search.study.space import METHOD
from spaces import InputError, Space
from spaces.dialects import suggest


class Study:
    """Asks Optuna for points and tells it what came of them.

    Args:
        study: The Optuna study, with its storage.
        space: The whole space, method included.
        objectives: Names of the objectives.
        seed: Seed of the study.
        sampler: Who proposes points.
        trials: How many trials the study was begun with.
    """

    def __init__(
        self, study: optuna.Study, space: Space, objectives: Sequence[str], seed: int, sampler: Sampler, trials: int
    ) -> None:
        self._study = study
        self._space = space
        self._objectives = tuple(objective.name for objective in load_objectives(objectives))
        self._seed = seed
        self._sampler = resolve_sampler(sampler, space)
        self._trials = trials

    @classmethod
    def create(
        cls,
        storage: str,
        name: str,
        space: Space,
        objectives: Sequence[str],
        seed: int,
        sampler: Sampler,
        trials: int,
        first: Iterable[dict[str, bool | int | float | str]] = (),
    ) -> Self:
        """Make a new study.

        Args:
            storage: Optuna storage URL.
            name: Name of the study.
            space: The whole space, method included.
            objectives: Names of the objectives.
            seed: Seed of the study.
            sampler: Who proposes points.
            trials: How many trials the study shall have.
            first: Points to try first.

        Returns:
            The study.

        Raises:
            InputError: If the storage has a study of that name.
        """
        _quiet()
        directions = [
            StudyDirection.MAXIMIZE if objective.maximise else StudyDirection.MINIMIZE
            for objective in load_objectives(objectives)
        ]
        try:
            study = optuna.create_study(storage=_storage(storage), study_name=name, directions=directions)
        except optuna.exceptions.DuplicatedStudyError as error:
            raise InputError(
                f"Optuna's storage {storage} already has a study {name!r}; choose another --name"
            ) from error
        with _experimental():
            study.set_metric_names([objective.name for objective in load_objectives(objectives)])
        for point in first:
            study.enqueue_trial(point)
        return cls(study, space, objectives, seed, sampler, trials)

    @classmethod
    def load(
        cls, storage: str, name: str, space: Space, objectives: Sequence[str], seed: int, sampler: Sampler, trials: int
    ) -> Self:
        """Open a study that exists.

        Args:
            storage: Optuna storage URL.
            name: Name of the study.
            space: The whole space, method included.
            objectives: Names of the objectives.
            seed: Seed of the study.
            sampler: Who proposes points.
            trials: How many trials the study was begun with.

        Returns:
            The study.

        Raises:
            InputError: If the storage has no such study.
        """
        _quiet()
        try:
            study = optuna.load_study(storage=_storage(storage), study_name=name)
        except KeyError as error:
            raise InputError(f"Optuna's storage {storage} has no study {name!r}") from error
        return cls(study, space, objectives, seed, sampler, trials)

    @property
    def sampler(self) -> str:
        """Which sampler proposes points, once ``"auto"`` is resolved."""
        return self._sampler

    def asked(self) -> list[TrialSpec]:
        """List the trials that were asked and not told, ascending.

        Returns:
            Their specifications; parameters that an interruption left open are drawn now.
        """
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [self._spec(optuna.trial.Trial(self._study, trial._trial_id)) for trial in waiting]

    def told(self) -> int:
        """Count the trials that have been told, completed or failed.

        Returns:
            The count; they are the first ones.
        """
        ended = (TrialState.COMPLETE, TrialState.FAIL)
        return len(self._study.get_trials(deepcopy=False, states=ended))

    def ask(self) -> TrialSpec:
        """Ask for the next trial.

        Returns:
            Its specification.
        """
        known = self._study.get_trials(deepcopy=False)
        number = sum(trial.state != TrialState.WAITING for trial in known)
        with _experimental():
            self._study.sampler = stock_sampler(self._sampler, trial_seed(self._seed, number), self._trials)
        return self._spec(self._study.ask())

    def tell(self, outcome: Outcome) -> None:
        """Tell what came of a trial.

        Args:
            outcome: The finished trial.
        """
        trial = self._study.get_trials(deepcopy=False)[outcome.number]
        if trial.state.is_finished():
            return  # told before an interruption
        storage, identity = self._study._storage, trial._trial_id
        for name, value in {**outcome.metrics, **outcome.extra}.items():
            storage.set_trial_user_attr(identity, name, value)
        lacking = outcome.lacks(self._objectives)
        if outcome.state == "complete" and not lacking:
            self._study.tell(outcome.number, [outcome.metrics[name] for name in self._objectives])
        else:
            error = (outcome.error or "; ".join(outcome.untimed.values())).strip()
            storage.set_trial_user_attr(identity, "error", error.splitlines()[-1] if error else "unknown")
            self._study.tell(outcome.number, state=TrialState.FAIL)

    def _spec(self, trial: optuna.Trial) -> TrialSpec:
        """Walk the space with Optuna choosing."""
        point = suggest(self._space, trial)
        method, own = self._space.split(point, METHOD)
        return TrialSpec(trial.number, method, own, trial_seed(self._seed, trial.number))


def known_studies(storage: str) -> list[str]:
    """List the studies in an Optuna storage.

    Args:
        storage: Optuna storage URL.

    Returns:
        Their names; none if there is no such storage yet.
    """
    path = storage.removeprefix("sqlite:///")
    if path != storage and not Path(path).exists():
        return []  # asking Optuna would make the file
    return list(optuna.get_all_study_names(storage))


def trial_seed(seed: int, number: int) -> int:
    """Derive the seed of a trial.

    Args:
        seed: Seed of the study.
        number: Number of the trial.

    Returns:
        A seed in ``0 .. 2**31 - 1``, unrelated for neighbouring seeds and numbers.

    Example:
        >>> trial_seed(0, 1) == trial_seed(0, 1), trial_seed(0, 1) == trial_seed(1, 0)
        (True, False)
    """
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _storage(url: str) -> optuna.storages.RDBStorage | str:
    """Open SQLite with patience for a reader that holds it; anything else as Optuna would."""
    if url.startswith("sqlite:"):
        return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
    return url


@contextmanager
def _experimental() -> Generator[None]:
    """Use what Optuna calls experimental (metric names, the Gaussian-process sampler) without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _quiet() -> None:
    """Optuna reports each trial, and each parameter that a sampler draws alone; our listeners do the former."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
