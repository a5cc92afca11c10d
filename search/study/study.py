"""The study: which trials there are, what they try, what came of them.

Points are drawn in a copy of the study in memory, and written to Optuna's storage whole
(``search.study.storage``). The sampler is made for every question, seeded by (seed of the study, number of the trial),
and sees our own trials alone: a suggestion depends on the trials that have been told and on nothing else. See
``search.study.schedule`` for the order in which trials are asked and told.

Two records say which trials there are: the folders of finished trials, and Optuna's storage. :meth:`Study.reconcile`
makes them agree. A folder decides what came of a trial; the storage decides what was asked and is not finished; what
neither knows follows from the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.objectives import Objective, load_objectives
from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.study.config import Sampler
from search.study.opening import experimental
from search.study.samplers.base import Limits
from search.study.samplers.choice import resolve_sampler
from search.study.samplers.making import Maker
from search.study.samplers.stock import make_stock_sampler
from search.study.schedule import Schedule
from search.study.schedulers.ladder import Ladder
from search.study.space import METHOD
from search.study.storage import Storage, get_end_state, make_finished_trial, set_constraints
from spaces import InputError, Space, Value
from spaces.dialects import suggest, to_optuna

FOREVER = 10**9
"""More trials than any study has."""

LISTED = 8
"""Most trials that a line names."""


class Study:
    """Asks for points and takes in what came of them; made by :meth:`open`.

    Args:
        storage: The trials in Optuna's storage.
        space: The whole space, method included.
        objectives: The objectives, or names of ours.
        seed: Seed of the study.
        sampler: Who proposes points.
        trials: How many trials the study was begun with.
        first: Points to try first.
    """

    def __init__(
        self,
        storage: Storage,
        space: Space,
        objectives: Sequence[str | Objective],
        seed: int,
        sampler: Sampler,
        trials: int,
        first: Iterable[Mapping[str, Value]] = (),
    ) -> None:
        self._storage = storage
        self._space = space
        self._distributions = to_optuna(space)
        self._objectives = tuple(_names(objectives))
        self._directions = _directions(objectives)
        self._seed = seed
        self._sampler = resolve_sampler(sampler, space)
        self._trials = trials
        self._maker: Maker | None = None
        self._limits = Limits()
        self._first = [dict(point) for point in first]
        # Names and ids in it equal the numbers of the trials, so that no sampler can tell a copy from another.
        self._copy = optuna.create_study(
            storage=optuna.storages.InMemoryStorage(), directions=self._directions, study_name="copy"
        )
        self._told: set[int] = set()
        for number, trial in storage.trials().items():
            if number != len(self._copy.get_trials(deepcopy=False)):
                break  # for `reconcile`, which begins with an empty copy
            self._remember(trial)

    @classmethod
    def open(
        cls,
        storage: str,
        name: str,
        space: Space,
        objectives: Sequence[str | Objective],
        seed: int,
        sampler: Sampler,
        trials: int,
        first: Iterable[Mapping[str, Value]] = (),
        identity: str = "",
        *,
        new: bool,
    ) -> Self:
        """Make a study, or open one that is there.

        Args:
            storage: Optuna storage URL.
            name: Name of the study.
            space: The whole space, method included.
            objectives: The objectives, or names of ours.
            seed: Seed of the study.
            sampler: Who proposes points.
            trials: How many trials the study shall have, or was begun with.
            first: Points to try first; the same whenever the study is opened.
            identity: Tells this study from others that have had the same name.
            new: Whether it is made. A new name that the storage has already, and any other that it does not have, is an
                ``InputError``.

        Returns:
            The study.
        """
        names = _names(objectives)
        if new:
            kept = Storage.create(storage, name, _directions(objectives), names, identity)
        else:
            kept = Storage.load(storage, name, names, identity)
        return cls(kept, space, objectives, seed, sampler, trials, first)

    def use(self, maker: Maker, limits: Limits | None = None) -> None:
        """Have another sampler propose points than one of Optuna's.

        Args:
            maker: Makes the sampler of each question, given its seed.
            limits: Limits of the study, of which Optuna's tools and samplers are told as constraints.
        """
        self._maker = maker
        self._limits = limits or Limits()

    @property
    def sampler(self) -> str:
        """Which sampler proposes points, once ``"auto"`` is resolved."""
        return self._sampler

    def reconcile(
        self,
        outcomes: Mapping[int, Outcome],
        lag: int,
        paused: Mapping[int, Outcome] | None = None,
        ladder: Ladder | None = None,
    ) -> list[str]:
        """Make Optuna's storage agree with the finished trials, in both directions.

        Args:
            outcomes: The finished trials by number, as their folders hold them.
            lag: How many trials may be asked and not told. What neither record knows is asked again, with the trials
                told that were told when it was asked first.
            paused: The trials that wait at a rung, by number.
            ladder: Where trials wait, as it was before the first of them; nowhere by default.

        Returns:
            What was mended, a line for each kind; nothing if the two agreed.
        """
        kept = self._storage.trials()
        mended: dict[str, list[int]] = {}
        self._copy = optuna.create_study(
            storage=optuna.storages.InMemoryStorage(), directions=self._directions, study_name="copy"
        )
        self._told = set()
        count = max([-1, *kept, *outcomes]) + 1

        def repair(number: int) -> TrialSpec:
            what = self._reconcile_trial(number, kept.get(number), outcomes.get(number))
            if what is not None:
                mended.setdefault(what, []).append(number)
            return self._spec(self._copy.get_trials(deepcopy=False)[number])

        # The sweep is played again on what is known of it, so that each question knows what it knew.
        known = {**(paused or {}), **outcomes}
        again = _Again(count, repair, lambda outcome: self._tell_copy(outcomes[outcome.number]))
        with suppress(_Enough):
            Schedule(again, FOREVER, lag, known.get, lambda outcome: None, ladder=ladder)
        for number in range(again.asked_so_far, count):
            repair(number)
        # The rest is told by the schedule, which asks in between what is to be asked.
        lines = [f"{_list_numbers(numbers)}: {what}" for what, numbers in mended.items()]
        if foreign := self._storage.list_foreign():
            lines.append(
                f"{_list_numbers(foreign)} of Optuna's storage: not run by this study, left there and not counted"
            )
        return lines

    def open_trials(self) -> list[TrialSpec]:
        """List the trials that were asked and not told, ascending.

        Returns:
            Their specifications.
        """
        trials = self._copy.get_trials(deepcopy=False)
        return [self._spec(trial) for trial in trials if trial.number not in self._told]

    def count_told(self) -> int:
        """Count the trials that have been told, completed or failed.

        Returns:
            The count; they are the first ones, but for those that wait at a rung.
        """
        return len(self._told)

    def ask(self) -> TrialSpec:
        """Ask for the next trial; what another driver of the study has asked under its number is taken as it is.

        Returns:
            Its specification.
        """
        number = len(self._copy.get_trials(deepcopy=False))
        with self._storage.exclusive():
            kept = self._storage.find(number)
            if kept is None:
                queued = None if number < len(self._first) else self._storage.find_waiting()
                trial = self._draw(number, queued)
                self._storage.add(number, trial, queued)
                return self._spec(trial)
        self._remember(_reopen(kept))
        return self._spec(self._copy.get_trials(deepcopy=False)[number])

    def tell(self, outcome: Outcome) -> None:
        """Tell what came of a trial.

        Args:
            outcome: The finished trial.
        """
        if outcome.number in self._told:
            return  # told before an interruption
        values = self._values(outcome)
        with self._storage.exclusive():
            self._storage.constrain(outcome.number, self._limits.excesses(outcome.metrics))
            self._storage.tell(outcome.number, get_end_state(values, outcome.state), values, _attributes(outcome))
        self._tell_copy(outcome)

    def pause(self, outcome: Outcome) -> None:
        """Note in Optuna's storage where a trial waits; there it runs until it is told.

        Args:
            outcome: The trial, its last record that of the rung.
        """
        with self._storage.exclusive():
            self._storage.note(outcome.number, {f"rung_{name}": value for name, value in outcome.history[-1].items()})

    @property
    def storage(self) -> Storage:
        """The trials in Optuna's storage."""
        return self._storage

    def _reconcile_trial(self, number: int, kept: FrozenTrial | None, outcome: Outcome | None) -> str | None:
        """Add a trial to the copy, and to the storage where that lacks it or differs; say what was mended."""
        if outcome is not None:
            point = {METHOD: outcome.method, **{f"{outcome.method}.{n}": value for n, value in outcome.point.items()}}
            if kept is not None and self._is_consistent(kept, point, outcome):
                self._remember(_reopen(kept))
                return None
            trial = _reopen(self._trial(point, {} if kept is None else kept.system_attrs))
            self._remember(trial)
            self._storage.add(
                number,
                make_finished_trial(
                    trial.params,
                    trial.distributions,
                    self._values(outcome),
                    _attributes(outcome),
                    trial.system_attrs,
                    outcome.state,
                ),
            )
            if kept is None:
                return "finished, but not in Optuna's storage; taken up there again"
            return "not the same in Optuna's storage as on disk; what is on disk counts"
        if kept is None or not self._is_complete(kept):
            # Neither has it, or a kill came between two of its parameters: the same question has the same answer.
            trial = self._draw(number, None)
            self._storage.add(number, trial)
            return "asked, but not kept whole; asked again"
        self._remember(_reopen(kept))
        if not kept.state.is_finished():
            return None
        self._storage.add(number, _reopen(kept))
        return "finished, but the folder is gone; run again"

    def _is_consistent(self, kept: FrozenTrial, point: Mapping[str, Value], outcome: Outcome) -> bool:
        """Whether Optuna's storage has this trial with this result, or may still be told it."""
        if kept.params != point:
            return False
        if not kept.state.is_finished():
            return True
        return (kept.values if kept.state == TrialState.COMPLETE else None) == self._values(outcome)

    def _is_complete(self, trial: FrozenTrial) -> bool:
        """Whether a trial has a value for every parameter that applies."""
        try:
            self._space.walk(lambda name, parameter: parameter.check(name, trial.params[name]))
        except (KeyError, InputError):
            return False
        return True

    def _trial(self, point: Mapping[str, Value], system: Mapping[str, Any]) -> FrozenTrial:
        distributions = {name: self._distributions[name] for name in point if name in self._distributions}
        if len(distributions) < len(point):
            raise InputError(
                f"a finished trial has parameters that this study does not search: "
                f"{', '.join(sorted(set(point) - set(distributions)))}; was its folder copied from another study?"
            )
        return optuna.trial.create_trial(
            state=TrialState.RUNNING, params=dict(point), distributions=distributions, system_attrs=dict(system)
        )

    def _make(self, seed: int) -> optuna.samplers.BaseSampler:
        """Make the sampler of a question."""
        return make_stock_sampler(self._sampler, seed, self._trials) if self._maker is None else self._maker(seed)

    def _draw(self, number: int, queued: FrozenTrial | None) -> FrozenTrial:
        """Have the sampler fill a new trial of the copy."""
        fixed = self._first[number] if number < len(self._first) else None
        if queued is not None:
            fixed = queued.system_attrs.get("fixed_params", {})
        with experimental():
            self._copy.sampler = self._make(trial_seed(self._seed, number))
            if fixed:
                self._copy.enqueue_trial(fixed)
            suggest(self._space, self._copy.ask())
        return self._copy.get_trials(deepcopy=False)[number]

    def _remember(self, trial: FrozenTrial) -> None:
        """Add a trial to the copy as it is."""
        self._copy.add_trial(trial)
        if trial.state.is_finished():
            self._told.add(len(self._copy.get_trials(deepcopy=False)) - 1)

    def _tell_copy(self, outcome: Outcome) -> None:
        """Tell the copy what came of a trial."""
        values = self._values(outcome)
        state = get_end_state(values, outcome.state)
        trial = self._copy.get_trials(deepcopy=False)[outcome.number]
        set_constraints(self._copy._storage, trial, self._limits.excesses(outcome.metrics))
        self._copy.tell(outcome.number, values=values, state=state)
        self._told.add(outcome.number)

    def _values(self, outcome: Outcome) -> list[float] | None:
        """Return what the study optimises; None for a trial that has no place in it."""
        if outcome.state != "complete" or outcome.list_missing(self._objectives):
            return None
        return [float(outcome.metrics[name]) for name in self._objectives]

    def _spec(self, trial: FrozenTrial) -> TrialSpec:
        point = self._space.walk(lambda name, parameter: parameter.check(name, trial.params[name]))
        method, own = self._space.split(point, METHOD)
        return TrialSpec(trial.number, method, own, trial_seed(self._seed, trial.number))


class _Enough(Exception):
    """All that is known has been asked again."""


class _Again:
    """A study whose trials are all known already: each is mended when it is asked.

    Args:
        count: How many there are.
        mend: Brings the trial of a number into the copy.
        tell: Tells the copy what came of a trial.
    """

    def __init__(self, count: int, mend: Callable[[int], TrialSpec], tell: Callable[[Outcome], None]) -> None:
        self.asked_so_far = 0
        self._count, self._mend, self._tell = count, mend, tell
        self._results: list[Outcome] = []

    def open_trials(self) -> list[TrialSpec]:
        return []

    def count_told(self) -> int:
        return 0

    def ask(self) -> TrialSpec:
        if self.asked_so_far == self._count:
            raise _Enough  # what was taken in since the last question is for the schedule to tell
        for outcome in self._results:
            self._tell(outcome)
        self._results = []
        self.asked_so_far += 1
        return self._mend(self.asked_so_far - 1)

    def tell(self, outcome: Outcome) -> None:
        self._results.append(outcome)

    def pause(self, outcome: Outcome) -> None: ...


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


def _directions(objectives: Sequence[str | Objective]) -> list[StudyDirection]:
    return [
        StudyDirection.MAXIMIZE if objective.maximise else StudyDirection.MINIMIZE
        for objective in load_objectives(objectives)
    ]


def _names(objectives: Sequence[str | Objective]) -> list[str]:
    return [objective.name for objective in load_objectives(objectives)]


def _attributes(outcome: Outcome) -> dict[str, Any]:
    """Say what Optuna's dashboard shows of a trial beside its objectives."""
    error = (outcome.error or "; ".join(outcome.untimed.values())).strip()
    return {**outcome.metrics, **outcome.extra} | ({"error": error.splitlines()[-1]} if error else {})


def _reopen(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial as it was before it ended."""
    return optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        system_attrs=trial.system_attrs,
    )


def _list_numbers(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:LISTED]))
    more = f" and {len(numbers) - LISTED} more" if len(numbers) > LISTED else ""
    return f"trial{'s' * (len(numbers) > 1)} {shown}{more}"
