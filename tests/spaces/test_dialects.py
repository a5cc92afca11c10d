from __future__ import annotations

from functools import partial

import optuna
import pytest
from hypothesis import given
from ray.tune.search.optuna import OptunaSearch

from spaces import (
    Categorical,
    Condition,
    InputError,
    Integer,
    LogReal,
    Real,
    Space,
)
from spaces.dialects import suggest, to_optuna
from tests.spaces.cases import is_active, patient, seeds, spaces

EVERY_KIND = Space(
    {
        "norm": Categorical(("l1", 2, 2.5, True)),
        "momentum": Real(0, 1),
        "lr": LogReal(1e-4, 1.0),
        "depth": Integer(2, 5),
        "width": Integer(2, 64, log=True),
        "sparsity.ratios[layer1.0]": Real(0.25, 0.25),
    },
    conditions={"lr": Condition("norm", ("l1", True)), "width": Condition("norm", (2, 2.5))},
)


def study(seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))


@patient
@given(spaces(), seeds)
def test_optuna_is_asked_for_what_applies_and_answers_with_points(space: Space, seed: int) -> None:
    trial = study(seed).ask()
    point = suggest(space, trial)
    assert space.check(point) == point
    assert trial.params == point
    assert list(point) == [name for name in space if is_active(space, name, point)]
    distributions = to_optuna(space)
    assert list(distributions) == list(space)
    assert trial.distributions == {name: distributions[name] for name in point}


def test_optunas_own_samplers_search_a_conditional_space() -> None:
    search = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1, n_startup_trials=5))

    def objective(trial: optuna.Trial) -> float:
        point = suggest(EVERY_KIND, trial)
        assert EVERY_KIND.check(point) == point
        return abs(float(point["momentum"]) - 0.3) + (0 if point["norm"] == "l1" else 1)

    search.optimize(objective, n_trials=15)
    assert search.best_params["norm"] == "l1"


def test_optuna_distributions_by_hand() -> None:
    assert to_optuna(EVERY_KIND) == {
        "norm": optuna.distributions.CategoricalDistribution(("l1", 2, 2.5, True)),
        "momentum": optuna.distributions.FloatDistribution(0, 1),
        "lr": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True),
        "depth": optuna.distributions.IntDistribution(2, 5),
        "width": optuna.distributions.IntDistribution(2, 64, log=True),
        "sparsity.ratios[layer1.0]": optuna.distributions.FloatDistribution(0.25, 0.25),
    }


def test_a_value_that_a_study_was_given_by_hand_is_checked() -> None:
    trial = optuna.trial.FixedTrial({"depth": 3})
    assert suggest(Space({"depth": Integer(1, 5)}), trial) == {"depth": 3}
    with pytest.warns(UserWarning, match="out of the range"), pytest.raises(InputError, match="depth"):
        suggest(Space({"depth": Integer(1, 5)}), optuna.trial.FixedTrial({"depth": 9}))


def test_tunes_own_optuna_search_keeps_conditions() -> None:
    searcher = OptunaSearch(
        partial(suggest, EVERY_KIND),
        metric="loss",
        mode="min",
        sampler=optuna.samplers.RandomSampler(seed=1),
    )
    for number in range(10):
        point = searcher.suggest(str(number))
        assert isinstance(point, dict)
        assert EVERY_KIND.check(point) == point
