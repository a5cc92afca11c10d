"""A space in Optuna's words: one value after another is asked for, only those that apply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spaces.parameters import Categorical, Parameter, Value
from spaces.space import Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial


def suggest(space: Space, trial: BaseTrial) -> dict[str, Value]:
    """Ask an Optuna trial for a point: one value after another, only those that apply.

    Args:
        space: The space.
        trial: An Optuna trial (also a fixed or a frozen one).

    Returns:
        The point, checked.

    Example:
        >>> import optuna
        >>> from spaces import LogReal
        >>> suggest(Space({"lr": LogReal(1e-4, 1e-1)}), optuna.trial.FixedTrial({"lr": 0.01}))
        {'lr': 0.01}
    """

    def choose(name: str, parameter: Parameter) -> Value:
        return parameter.check(name, _suggest_parameter(trial, name, parameter))

    return space.walk(choose)


def to_optuna(space: Space) -> dict[str, BaseDistribution]:
    """Describe every parameter as an Optuna distribution, the same that :func:`suggest` asks with.

    Args:
        space: The space.

    Returns:
        Distributions by name, in order; those under a condition too.

    Example:
        >>> from spaces import Integer
        >>> to_optuna(Space({"depth": Integer(1, 8)}))
        {'depth': IntDistribution(high=8, log=False, low=1, step=1)}
    """
    return {name: _distribution(parameter) for name, parameter in space.items()}


def _suggest_parameter(trial: BaseTrial, name: str, parameter: Parameter) -> Value | None:
    """Return what an Optuna trial answers for one parameter."""
    if isinstance(parameter, Categorical):
        return trial.suggest_categorical(name, parameter.choices)
    if parameter.whole:
        return trial.suggest_int(name, int(parameter.low), int(parameter.high), log=parameter.log)
    return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)


def _distribution(parameter: Parameter) -> BaseDistribution:
    """Return a parameter in Optuna's words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, Categorical):
        return CategoricalDistribution(parameter.choices)
    if parameter.whole:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
