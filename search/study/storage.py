"""The trials of a study in Optuna's storage, where its dashboard and other tools see them.

Which of them are ours, under which number, is written with each trial (:data:`NUMBER`): trials that somebody adds with
Optuna itself are left alone and never counted. A trial is written by one transaction, its point included, so that a
kill leaves it whole or not at all. Of several trials with one number the last counts; the others were superseded,
since Optuna does not reopen what has ended.

A database on a server (PostgreSQL) may be shared by several drivers of one study. What they write then lies between
:meth:`Storage.exclusive`, a trial is run by the driver that has claimed it, and a claim whose driver does not beat any
more is free again. A server that goes away is waited for.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.records.errors import RunError, StoreWarning
from search.records.text import remove_credentials
from search.study.opening import close_connection, experimental, is_shared, open_storage, reason_away
from spaces import InputError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

Given = ParamSpec("Given")
Answer = TypeVar("Answer")

NUMBER = "number"
"""Attribute of our trials: the number in our study, which is the name of the trial's folder."""

IDENTITY = "paretoprune"
"""Attribute of our studies: their identity, as it stands in ``study.json``."""

CLAIM = "driver"
"""Attribute of a trial: the driver that runs it; empty when that driver has let go of it."""

TABLES = ("studies", "trials")
"""Tables by which a database is known to be Optuna's."""

PATIENCE = 300.0
"""Seconds that a database on a server may be away."""

SAID_AFTER = 5.0
"""Seconds after which that is said."""


def _retry_until_answer(
    method: Callable[Concatenate[Storage, Given], Answer],
) -> Callable[Concatenate[Storage, Given], Answer]:
    """Have a method called again, from its beginning, until the server answers."""

    @wraps(method)
    def call(self: Storage, /, *args: Given.args, **kwargs: Given.kwargs) -> Answer:
        return self._wait_for_server(lambda: method(self, *args, **kwargs))

    return call


class Storage:
    """The trials of one study in Optuna's storage; made by :meth:`create` and :meth:`load`.

    Args:
        study: The Optuna study.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._storage = study._storage
        backend = getattr(self._storage, "_backend", self._storage)
        # Of a database on a server alone: that of a file has one driver, and no server that could go away.
        self._engine: Engine | None = None
        if isinstance(backend, optuna.storages.RDBStorage) and is_shared(backend.url):
            self._engine = backend.engine
        self._held = False
        # Studies of earlier versions ran every trial there was, under Optuna's own numbers.
        self._numbered = IDENTITY in study.user_attrs
        self._ids = {number: trial._trial_id for number, trial in self.trials().items()}

    @classmethod
    def create(
        cls, url: str, name: str, directions: Sequence[StudyDirection], objectives: Sequence[str], identity: str
    ) -> Self:
        """Make a new study.

        Args:
            url: Optuna storage URL.
            name: Name of the study.
            directions: Direction of each objective.
            objectives: Names of the objectives.
            identity: Tells this study from others that have had the same name.

        Returns:
            The storage of the study.

        Raises:
            InputError: If there is a study of that name.
        """
        try:
            study = optuna.create_study(storage=open_storage(url, often=True), study_name=name, directions=directions)
        except optuna.exceptions.DuplicatedStudyError as error:
            raise InputError(
                f"Optuna's storage {remove_credentials(url)} already has a study {name!r}; choose another --name, or "
                f"remove it with `paretoprune delete {name}`"
            ) from error
        return cls._complete(study, objectives, identity)

    @classmethod
    def load(cls, url: str, name: str, objectives: Sequence[str], identity: str) -> Self:
        """Open a study.

        Args:
            url: Optuna storage URL.
            name: Name of the study.
            objectives: Names of the objectives.
            identity: As :meth:`create` was given it.

        Returns:
            The storage of the study.

        Raises:
            InputError: If there is no study of that name, or only another one.
        """
        try:
            study = optuna.load_study(storage=open_storage(url, often=True), study_name=name)
        except KeyError as error:
            raise InputError(f"Optuna's storage {remove_credentials(url)} has no study {name!r}") from error
        found = study.user_attrs.get(IDENTITY)
        if found is not None and found != identity:
            raise InputError(
                f"Optuna's storage {remove_credentials(url)} has another study of the name {name!r}; `paretoprune "
                f"rename {name} NEW` gives the one in this folder another name"
            )
        return cls._complete(study, objectives, identity)

    @classmethod
    def _complete(cls, study: optuna.Study, objectives: Sequence[str], identity: str) -> Self:
        """Write what a study has beside its trials, also where a kill came before."""
        if IDENTITY not in study.user_attrs and not study.get_trials(deepcopy=False):
            study.set_user_attr(IDENTITY, identity)
        with experimental():
            if study.metric_names is None:
                study.set_metric_names(list(objectives))
        return cls(study)

    @_retry_until_answer
    def trials(self) -> dict[int, FrozenTrial]:
        """Return our trials that were asked.

        Returns:
            The last trial of each number, by number.
        """
        asked = (t for t in self._study.get_trials(deepcopy=False) if t.state != TrialState.WAITING)
        found = {number: trial for trial in asked if (number := self._number(trial)) is not None}
        return dict(sorted(found.items()))

    @_retry_until_answer
    def list_foreign(self) -> list[int]:
        """List the trials that others added and ran.

        Returns:
            Their numbers in Optuna's counting.
        """
        asked = (t for t in self._study.get_trials(deepcopy=False) if t.state != TrialState.WAITING)
        return [trial.number for trial in asked if self._number(trial) is None]

    @_retry_until_answer
    def find_waiting(self) -> FrozenTrial | None:
        """Return the point that was queued first and not asked yet.

        Returns:
            The trial; ``None`` if the queue is empty.
        """
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return waiting[0] if waiting else None

    @_retry_until_answer
    def enqueue(self, point: Mapping[str, Any]) -> None:
        """Have a point asked before the sampler proposes further ones.

        Args:
            point: A whole point of the study's space.
        """
        self._study.enqueue_trial(dict(point))

    @_retry_until_answer
    def count_waiting(self) -> int:
        """Count the points that are queued and not asked yet.

        Returns:
            How many.
        """
        return len(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def add(self, number: int, trial: FrozenTrial, queued: FrozenTrial | None = None) -> None:
        """Write a trial that was asked, or that ended before this storage was there.

        Args:
            number: Its number in our study.
            trial: State, parameters, values and attributes.
            queued: The waiting trial that it was made of, if any.
        """
        attempts = 0

        def write() -> None:
            nonlocal attempts
            attempts += 1
            if attempts > 1 and self._has_trial(number, trial):
                return  # the server had written it before it went away
            if queued is None:
                template = optuna.trial.create_trial(
                    state=trial.state,
                    values=trial.values,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs={**trial.user_attrs, NUMBER: number},
                    system_attrs=trial.system_attrs,
                )
                self._ids[number] = self._storage.create_new_trial(self._study._study_id, template_trial=template)
                return
            # The state comes last: until then the point waits in the queue, and would be taken up again.
            identity = queued._trial_id
            self._storage.set_trial_user_attr(identity, NUMBER, number)
            for name, distribution in trial.distributions.items():
                if name not in queued.params:
                    value = distribution.to_internal_repr(trial.params[name])
                    self._storage.set_trial_param(identity, name, value, distribution)
            self._storage.set_trial_state_values(identity, TrialState.RUNNING)
            self._ids[number] = identity

        self._wait_for_server(write)

    def find(self, number: int) -> FrozenTrial | None:
        """Look whether another driver has asked a trial already.

        Args:
            number: Its number in our study.

        Returns:
            The trial; ``None`` if it is for this driver to ask.
        """
        if self._engine is None:
            return None
        kept = self.trials().get(number)
        if kept is not None:
            self._ids[number] = kept._trial_id
        return kept

    @contextmanager
    def exclusive(self) -> Generator[None]:
        """Keep other drivers from asking, telling and claiming while the block runs; it may be nested.

        Yields:
            Nothing; runs the block. The storage of a file has one driver, and nothing to keep away.
        """
        if self._engine is None or self._held:
            yield
            return
        connection = self._lock(self._engine)
        self._held = True
        try:
            yield
        finally:
            self._held = False
            close_connection(connection)

    @_retry_until_answer
    def claim(self, number: int, driver: str, is_gone: Callable[[str], bool]) -> bool:
        """Take a trial for a driver to run, unless another one runs it.

        Args:
            number: Its number in our study.
            driver: Names the driver.
            is_gone: Tells whether a driver is known to have ended; one that has not beaten for a minute
                counts as ended in any case.

        Returns:
            Whether the trial is this driver's now.
        """
        with self.exclusive():
            identity = self._ids[number]
            kept = self._storage.get_trial(identity)
            if kept.state.is_finished():
                return False
            holder = kept.user_attrs.get(CLAIM)
            free = not holder or holder == driver or is_gone(holder)
            if not free and identity not in self._get_heartbeat()._get_stale_trial_ids(self._study._study_id):
                return False
            # The beat comes first: a claim without one would never grow stale.
            self._get_heartbeat().record_heartbeat(identity)
            self._storage.set_trial_user_attr(identity, CLAIM, driver)
            return True

    def beat(self, numbers: Collection[int]) -> None:
        """Give a sign of life for trials that this driver runs.

        Args:
            numbers: Their numbers in our study.
        """
        for number in numbers:
            self._get_heartbeat().record_heartbeat(self._ids[number])

    def release(self, number: int, driver: str) -> None:
        """Let another driver run a trial that this one has claimed and does not run to its end.

        Args:
            number: Its number in our study.
            driver: Names this driver.
        """
        with self.exclusive():
            kept = self._storage.get_trial(self._ids[number])
            if not kept.state.is_finished() and kept.user_attrs.get(CLAIM) == driver:
                self._storage.set_trial_user_attr(kept._trial_id, CLAIM, "")

    @_retry_until_answer
    def tell(
        self, number: int, state: TrialState, values: Sequence[float] | None, attributes: Mapping[str, Any]
    ) -> None:
        """Write what came of a trial; nothing if that is written already.

        Args:
            number: Its number in our study.
            state: How it ended.
            values: Its objectives; ``None`` if it has none.
            attributes: What else is to be seen of it.
        """
        identity = self._ids[number]
        if self._storage.get_trial(identity).state.is_finished():
            return  # told before an interruption
        self.note(number, attributes)
        self._storage.set_trial_state_values(identity, state, values)

    @_retry_until_answer
    def constrain(self, number: int, excesses: Mapping[str, float]) -> None:
        """Write by how much a trial breaks the limits of the study; nothing if it has ended.

        Args:
            number: Its number in our study.
            excesses: By name of the limit, above 0 where it is broken.
        """
        kept = self._storage.get_trial(self._ids[number])
        if not kept.state.is_finished():
            set_constraints(self._storage, kept, excesses)

    @_retry_until_answer
    def note(self, number: int, attributes: Mapping[str, Any]) -> None:
        """Write what is to be seen of a trial that has not ended; nothing if it has.

        Args:
            number: Its number in our study.
            attributes: Attributes by name.
        """
        identity = self._ids[number]
        kept = self._storage.get_trial(identity)
        if kept.state.is_finished():
            return
        for name, value in attributes.items():
            if kept.user_attrs.get(name) != value:
                self._storage.set_trial_user_attr(identity, name, value)

    def _has_trial(self, number: int, trial: FrozenTrial) -> bool:
        """Look whether a trial is written, as it is to be."""
        kept = self.trials().get(number)
        if kept is None or kept.params != trial.params or kept.state != trial.state:
            return False
        self._ids[number] = kept._trial_id
        return True

    def _get_heartbeat(self) -> optuna.storages._heartbeat.BaseHeartbeat:
        assert isinstance(self._storage, optuna.storages._heartbeat.BaseHeartbeat)
        return self._storage

    @_retry_until_answer
    def _lock(self, engine: Engine) -> Connection:
        """Wait for the study's lock on the server; it goes with the connection."""
        from sqlalchemy import text

        digest = hashlib.sha256(self._study.study_name.encode()).digest()
        connection = engine.connect()
        try:
            connection.execute(
                text("SELECT pg_advisory_xact_lock(:key)"), {"key": int.from_bytes(digest[:8], "big", signed=True)}
            )
        except BaseException:
            close_connection(connection)
            raise
        return connection

    def _wait_for_server(self, act: Callable[[], Answer]) -> Answer:
        """Do something with the database, again and again while its server is away."""
        began, said = time.monotonic(), False
        while True:
            try:
                return act()
            except Exception as error:
                away = time.monotonic() - began
                if self._engine is None or (reason := reason_away(error)) is None:
                    raise
                where = remove_credentials(self._engine.url.render_as_string(hide_password=True))
                if away > PATIENCE:
                    raise RunError(
                        f"the study's storage {where} has not answered for {away:.0f} s ({reason}); start it, and go on"
                    ) from error
                if away > SAID_AFTER and not said:
                    said = True
                    warnings.warn(
                        f"the study's storage {where} does not answer ({reason}); waiting up to {PATIENCE:.0f} s",
                        StoreWarning,
                        stacklevel=2,
                    )
                time.sleep(min(1.0, 0.1 + away))

    def _number(self, trial: FrozenTrial) -> int | None:
        number = trial.user_attrs.get(NUMBER, None if self._numbered else trial.number)
        return number if isinstance(number, int) else None


def make_finished_trial(
    params: Mapping[str, Any],
    distributions: Mapping[str, optuna.distributions.BaseDistribution],
    values: Sequence[float] | None,
    attributes: Mapping[str, Any],
    system: Mapping[str, Any],
    state: str = "",
) -> FrozenTrial:
    """Describe a trial that has ended.

    Args:
        params: Its parameters by name.
        distributions: The distribution of each.
        values: Its objectives; ``None`` if it failed.
        attributes: What else is to be seen of it.
        system: Attributes of the sampler.
        state: State of its outcome.

    Returns:
        The trial.
    """
    return optuna.trial.create_trial(
        state=get_end_state(values, state),
        values=values,
        params=dict(params),
        distributions=dict(distributions),
        user_attrs=dict(attributes),
        system_attrs=dict(system),
    )


def set_constraints(storage: optuna.storages.BaseStorage, trial: FrozenTrial, excesses: Mapping[str, float]) -> None:
    """Set a trial's constraints, as ``optuna.trial.Trial.set_constraint`` does; samplers and dashboards look at them.

    Args:
        storage: Where the trial is.
        trial: The trial.
        excesses: Value of each constraint, above 0 where it is broken.
    """
    for name, value in excesses.items():
        if trial.constraints.get(name) != value:
            storage.set_trial_system_attr(trial._trial_id, f"constraints:{name}", value)


def get_end_state(values: Sequence[float] | None, state: str) -> TrialState:
    """Say in Optuna's words how a trial ended.

    Args:
        values: Its objectives; ``None`` if it has none.
        state: State of its outcome.

    Returns:
        ``COMPLETE``; ``PRUNED`` for a trial that was stopped at a rung; else ``FAIL``.

    Example:
        >>> ends = [([0.9, 500.0], "complete"), (None, "stopped"), (None, "diverged")]
        >>> tuple(get_end_state(*end).name for end in ends)
        ('COMPLETE', 'PRUNED', 'FAIL')
    """
    if values is not None:
        return TrialState.COMPLETE
    return TrialState.PRUNED if state == "stopped" else TrialState.FAIL
