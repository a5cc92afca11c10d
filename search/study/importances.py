"""Which parameters decide an objective, by PED-ANOVA on the trials of each method.

Watanabe, Bansal and Hutter (2023), "PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary
subspaces", arXiv 2304.10255, as Optuna has it. Methods have parameters of their own, so each one is looked at alone,
and of its parameters those that all of its trials have: an importance of a parameter that only some trials have would
compare these with the others.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from search.objectives import Objective
from search.records.outcome import Outcome
from spaces import Space

LEAST_TRIALS = 6
"""Complete trials of a method below which nothing is said."""


def parameter_importances(
    space: Space, outcomes: Sequence[Outcome], objectives: Sequence[Objective], prefix: str = "method"
) -> dict[str, dict[str, dict[str, float]]]:
    """Weigh the parameters of each method for each objective.

    Args:
        space: The space of the study, the choice of the method included.
        outcomes: The complete trials.
        objectives: What is searched for.
        prefix: Name of the parameter that chooses the method.

    Returns:
        Importance, 0..1 with sum 1, by parameter, by objective, by method. Methods with too few trials, or whose
        parameters do not vary, are left out.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for method in dict.fromkeys(outcome.method for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.method == method]
        names = _list_shared(mine)
        if len(mine) >= LEAST_TRIALS and names:
            own = {name: space[f"{method}.{name}"] for name in names if f"{method}.{name}" in space}
            found[method] = {each.name: _weigh(Space(own), mine, each) for each in objectives}
    return {method: weights for method, weights in found.items() if any(weights.values())}


def _list_shared(outcomes: Sequence[Outcome]) -> list[str]:
    """Parameters that every trial has and that differ between trials."""
    points: list[Mapping[str, object]] = [outcome.point for outcome in outcomes]
    shared = [name for name in points[0] if all(name in point for point in points)]
    return [name for name in shared if len({repr(point[name]) for point in points}) > 1]


def _weigh(space: Space, outcomes: Sequence[Outcome], objective: Objective) -> dict[str, float]:
    """Importance by parameter for one objective; empty where all trials reach the same."""
    import optuna

    from spaces.dialects import to_optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    values = [outcome.metrics[objective.name] for outcome in outcomes]
    distributions = to_optuna(space)
    if len(set(values)) < 2 or not distributions:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(direction="maximize" if objective.maximise else "minimize")
        for outcome, value in zip(outcomes, values, strict=True):
            point = {name: outcome.point[name] for name in distributions}
            study.add_trial(optuna.trial.create_trial(value=value, params=point, distributions=distributions))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        weights = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(weight) for name, weight in weights.items()}
