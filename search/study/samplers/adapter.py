"""Samplers behind Optuna: ours as samplers of Optuna's, and Optuna's within the limits of a study.

What a sampler of the port proposes is what Optuna's trial suggests, parameter by parameter, so that the study that
lies in Optuna's storage is like any other. :func:`optuna_sampler` gives the exact-cost sampler to a study of anybody's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from search.study.samplers.base import Aim, CostOf, PointCost, Sampler, Tried
from search.study.samplers.repair import repair_point
from search.study.space import METHOD, select_own_space
from spaces import Parameter, Space, Value
from spaces.dialects import to_optuna

Search = dict[str, BaseDistribution]

ATTEMPTS = 100
"""Points that are looked at for one that can be moved into the limits."""


ENDED: Mapping[TrialState, Literal["failed", "stopped"]] = {TrialState.FAIL: "failed", TrialState.PRUNED: "stopped"}
"""What we call the ends of trials without a network."""


class _WholePoints(BaseSampler):
    """What samplers of whole points have in common: all parameters are suggested together."""

    def __init__(self, space: Space, cost: CostOf) -> None:
        self._space = space
        self._cost = cost
        self._distributions = to_optuna(space)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Search:
        """Name the parameters that are suggested together: all, for points are proposed and limited as a whole.

        Args:
            study: The study.
            trial: The trial that is asked.

        Returns:
            Their distributions.
        """
        return self._distributions


class PortSampler(_WholePoints):
    """Lets a sampler of the port propose the points of an Optuna study.

    Args:
        sampler: Who proposes; it observes every finished trial once.
        space: The whole space, method included.
        aim: What is searched for.
        cost: The exact cost of any point.
        earlier: Trials of earlier studies, with numbers below 0.
    """

    def __init__(self, sampler: Sampler, space: Space, aim: Aim, cost: CostOf, earlier: Sequence[Tried] = ()) -> None:
        super().__init__(space, cost)
        self._sampler = sampler
        self._aim = aim
        self._observed: set[int] = set()
        self._earlier = list(earlier)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Search) -> dict[str, Any]:
        """Propose a point.

        Args:
            study: The study.
            trial: The trial that is asked.
            search_space: Not used.

        Returns:
            Values of the parameters that apply.
        """
        names = [axis.name for axis in self._aim.axes]
        history = [*self._earlier, *history_of(study, trial.number, self._space, names)]
        for tried in history:
            if tried.state != "running" and tried.number not in self._observed:
                self._observed.add(tried.number)
                self._sampler.observe(tried)
        points = self._sampler.propose(history, self._space, self._cost, 1)
        return dict(self._space.check(points[0])) if points else {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one parameter at random, where nothing was proposed: every point has been asked.

        Args:
            study: The study.
            trial: The trial that is asked.
            param_name: Name of the parameter.
            param_distribution: Its distribution.

        Returns:
            A value.
        """
        random = optuna.samplers.RandomSampler(seed=trial.number)
        return random.sample_independent(study, trial, param_name, param_distribution)


class LimitedSampler(_WholePoints):
    """Moves what one of Optuna's samplers suggests into the limits of a study.

    Args:
        inner: Who suggests.
        space: The whole space, method included.
        aim: What is searched for, with the limits.
        cost: The exact cost of any point.
        dense: Cost of the dense network.
    """

    def __init__(self, inner: BaseSampler, space: Space, aim: Aim, cost: CostOf, dense: PointCost) -> None:
        super().__init__(space, cost)
        self._inner = inner
        self._limits = aim.limits
        self._dense = dense

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Search) -> dict[str, Any]:
        """Suggest a point within the limits.

        Args:
            study: The study.
            trial: The trial that is asked.
            search_space: Not used.

        Returns:
            Values of the parameters that apply.

        Raises:
            RuntimeError: If hardly any point of the space can be moved into the limits.
        """
        inner = self._inner.infer_relative_search_space(study, trial)
        together = self._inner.sample_relative(study, trial, inner)

        def choose(name: str, parameter: Parameter) -> Value:
            if parameter.only is not None:
                return parameter.only  # Optuna never asks its samplers for what has one value
            value = together.get(name)
            if value is None:
                value = self._inner.sample_independent(study, trial, name, self._distributions[name])
            return parameter.check(name, value)

        draw = Random(trial.number)
        point = self._space.walk(choose)
        for _ in range(ATTEMPTS):
            method, own = self._space.split(point, METHOD)
            moved = repair_point(
                method, select_own_space(self._space, method), own, self._cost, self._limits, self._dense
            )
            if moved is not None:
                return {METHOD: method} | {f"{method}.{name}": value for name, value in moved.items()}
            point = self._space.sample(draw)  # nothing near it is inside: another one
        raise RuntimeError(f"none of {ATTEMPTS} points of the space can be moved into the limits")

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Suggest one parameter alone.

        Args:
            study: The study.
            trial: The trial that is asked.
            param_name: Name of the parameter.
            param_distribution: Its distribution.

        Returns:
            A value.
        """
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Pass on that a trial begins.

        Args:
            study: The study.
            trial: The trial.
        """
        self._inner.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Pass on that a trial ended.

        Args:
            study: The study.
            trial: The trial.
            state: How it ended.
            values: Its objectives.
        """
        self._inner.after_trial(study, trial, state, values)


def history_of(study: optuna.Study, until: int, space: Space, objectives: Sequence[str]) -> list[Tried]:
    """Read the trials of a study as samplers of the port see them.

    Args:
        study: The study.
        until: Number of the first trial that is left out, the one that is asked.
        space: The whole space, method included.
        objectives: Names of the objectives, in the study's order.

    Returns:
        Trials that were asked, by number; those whose parameters are not those of the space are left out.
    """
    history = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.WAITING or trial.number >= until or METHOD not in trial.params:
            continue
        method, own = space.split({name: value for name, value in trial.params.items()}, METHOD)
        if trial.state == TrialState.COMPLETE:
            known = {name: float(value) for name, value in trial.user_attrs.items() if isinstance(value, int | float)}
            known |= dict(zip(objectives, trial.values, strict=True))
            history.append(Tried(trial.number, method, own, "complete", known))
        else:
            history.append(Tried(trial.number, method, own, ENDED.get(trial.state, "running")))
    return history


def optuna_sampler(
    make: Callable[[Aim, int], Sampler], space: Space, aim: Aim, cost: CostOf, seed: int = 0
) -> PortSampler:
    """Make a sampler of the port usable in any Optuna study.

    Args:
        make: The sampler's class, or what makes one from an aim and a seed.
        space: The whole space: ``method``, and each method's parameters under ``METHOD.``.
        aim: What is searched for.
        cost: The exact cost of any point.
        seed: Decides what is proposed.

    Returns:
        A sampler for ``optuna.create_study(sampler=...)``; the objective suggests its parameters with
        :func:`spaces.dialects.suggest`.
    """
    return PortSampler(make(aim, seed), space, aim, cost)
