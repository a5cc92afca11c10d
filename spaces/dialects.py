"""A space in the words of Optuna and of Ray Tune.

Optuna asks for one value after another, and so knows conditions. Tune's dictionaries do not: a function in
one (``tune.sample_from``) could look at the parent, but it is not seeded with the rest, and Tune's searchers
refuse it. Hence :func:`to_tune` gives every parameter a domain of its own, and :func:`from_tune` leaves out
of a drawn configuration what does not apply. With Tune's ``OptunaSearch``, conditions are kept by giving it
``functools.partial(suggest, space)`` as its define-by-run function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spaces.parameters import Categorical, Integer, LogReal, Parameter, Real, Value
from spaces.space import Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial
    from ray.tune.search.sample import Domain


def suggest(space: Space, trial: BaseTrial) -> dict[str, Value]:
    """Ask an Optuna trial for a point: one value after another, only those that apply.

    Args:
        space: The space.
        trial: An Optuna trial (also a fixed or a frozen one).

    Returns:
        The point, checked.

    Example:
        >>> import optuna
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
        >>> to_optuna(Space({"depth": Integer(1, 8)}))
        {'depth': IntDistribution(high=8, log=False, low=1, step=1)}
    """
    return {name: _distribution(parameter) for name, parameter in space.items()}


def to_tune(space: Space) -> dict[str, Domain]:
    """Describe every parameter as a Ray Tune domain, for ``Tuner(param_space=...)``.

    Args:
        space: The space.

    Returns:
        Domains by name, in order; those under a condition too (see :func:`from_tune`).
    """
    return {name: _domain(parameter) for name, parameter in space.items()}


def from_tune(space: Space, config: Mapping[str, Any]) -> dict[str, Value]:
    """Return the point that a drawn Tune configuration stands for.

    Args:
        space: The space that :func:`to_tune` described.
        config: What Tune drew; a value for every parameter. Other keys are left alone.

    Returns:
        The values of the parameters that apply, checked.
    """
    return space.walk(lambda name, parameter: parameter.check(name, config[name]))


def _suggest_parameter(trial: BaseTrial, name: str, parameter: Parameter) -> Value | None:
    """Return what an Optuna trial answers for one parameter."""
    match parameter:
        case Real(low, high):
            return trial.suggest_float(name, low, high)
        case LogReal(low, high):
            return trial.suggest_float(name, low, high, log=True)
        case Integer(low, high, log):
            return trial.suggest_int(name, low, high, log=log)
        case Categorical(choices):
            return trial.suggest_categorical(name, choices)


def _distribution(parameter: Parameter) -> BaseDistribution:
    """Return a parameter in Optuna's words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match parameter:
        case Real(low, high):
            return FloatDistribution(low, high)
        case LogReal(low, high):
            return FloatDistribution(low, high, log=True)
        case Integer(low, high, log):
            return IntDistribution(low, high, log=log)
        case Categorical(choices):
            return CategoricalDistribution(choices)


def _domain(parameter: Parameter) -> Any:  # a Domain, but Tune's constructors carry no types
    """Return a parameter in Ray Tune's words."""
    from ray import tune

    if parameter.only is not None:  # Tune's logarithmic draws may miss a range of one value by rounding
        return tune.choice([parameter.only])
    match parameter:
        case Real(low, high):
            return tune.uniform(low, high)
        case LogReal(low, high):
            return tune.loguniform(low, high)
        case Integer(low, high, log):
            # Both leave out their upper end.
            return tune.lograndint(low, high + 1) if log else tune.randint(low, high + 1)
        case Categorical(choices):
            return tune.choice(list(choices))
