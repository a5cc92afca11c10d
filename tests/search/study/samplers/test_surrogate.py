from __future__ import annotations

import numpy as np
import pytest

from search.study.samplers.surrogate import FLOOR, Features, Surrogate, kernel

RNG = np.random.default_rng(0)


def features(count: int, methods: int = 2, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    deviation = rng.normal(0, 0.5, (count, 3))
    return Features(
        rng.integers(0, methods, count),
        rng.uniform(0, 4, count),
        deviation - deviation.mean(1, keepdims=True),
        rng.uniform(-0.5, 0.5, (count, 2)),
    )


def error_of(at: Features) -> np.ndarray:
    return 0.01 * np.exp(0.5 * at.saving + 0.3 * at.method + at.knobs[:, 0])


def test_the_kernel_is_a_covariance() -> None:
    at = features(40)
    values = np.linalg.eigvalsh(kernel(at, at, np.log([0.8, 0.25, 0.3, 0.4, 2.0, 2.0, 1.5, 0.15])))
    assert values.min() > -1e-9


def test_predictions_follow_a_simple_truth_better_than_its_mean() -> None:
    known, asked = features(60), features(200, seed=1)
    model = Surrogate.fit(known, error_of(known), examples=2000)
    mean, sd = model.predict(asked)
    truth = np.log(error_of(asked) + FLOOR)
    assert np.abs(mean - truth).mean() < 0.25 * np.abs(truth - truth.mean()).mean()
    assert (np.abs(mean - truth) < 3 * sd + 0.05).mean() > 0.9


def test_uncertainty_grows_away_from_trials_and_shrinks_where_one_runs() -> None:
    known = features(20)
    near = Features(known.method[:1], known.saving[:1], known.deviation[:1], known.knobs[:1])
    far = Features(known.method[:1], known.saving[:1] + 6, known.deviation[:1] + 3, known.knobs[:1] + 3)
    model = Surrogate.fit(known, error_of(known), examples=400)
    assert model.predict(far)[1][0] > 1.5 * model.predict(near)[1][0]
    believed = model.assume_predicted(far)
    assert believed.predict(far)[1][0] < 0.7 * model.predict(far)[1][0]
    assert believed.predict(far)[0][0] == pytest.approx(model.predict(far)[0][0], abs=0.05)


def test_one_trial_on_few_examples_does_not_rule_a_method_out() -> None:
    """A method that was tried once, and came out twice as bad as one tried often, is worth another look."""
    saving = np.array([1.0, 1.4, 1.8, 2.2, 2.6, 3.0, 3.4, 2.2])
    at = Features(np.array([0] * 7 + [1]), saving, np.zeros((8, 3)), np.zeros((8, 2)))
    error = 0.008 * np.exp(0.3 * saving)
    error[-1] *= 2
    few, many = (Surrogate.fit(at, error, examples) for examples in (359, 100_000))
    asked = Features(np.array([0, 1]), np.array([2.2, 2.2]), np.zeros((2, 3)), np.zeros((2, 2)))
    distances = []
    for model in (few, many):
        mean, sd = model.predict(asked)
        distances.append(float((mean[1] - mean[0]) / sd[1]))
    assert distances[0] < 2 < distances[1], distances


def test_lopsided_networks_are_expected_to_err_more_until_trials_say_otherwise() -> None:
    saving = np.linspace(0.5, 4.0, 12)
    lopsided = np.tile([1.2, -1.2, 0.0], (12, 1)) * np.where(np.arange(12) % 2, 1.0, -1.0)[:, None]
    method, knobs, error = np.zeros(12, dtype=np.int64), np.zeros((12, 2)), 0.01 * np.exp(0.4 * saving)
    even = Features(method, saving, np.zeros((12, 3)), knobs)
    uneven = Features(method, saving, lopsided, knobs)
    before = Surrogate.fit(even, error, examples=2000)
    assert (before.predict(uneven)[0] - before.predict(even)[0]).min() > 0.3
    both = Features.join([even, uneven])
    after = Surrogate.fit(both, np.tile(error, 2), examples=2000)
    assert np.abs(after.predict(uneven)[0] - after.predict(even)[0]).max() < 0.15


def test_trials_of_a_problem_without_groups() -> None:
    saving = np.linspace(0.5, 4.0, 12)
    at = Features(np.zeros(12, dtype=np.int64), saving, np.zeros((12, 0)), np.zeros((12, 1)))
    mean, _ = Surrogate.fit(at, 0.01 * np.exp(0.4 * saving), examples=None).predict(at)
    assert mean == pytest.approx(np.log(0.01 * np.exp(0.4 * saving) + FLOOR), abs=0.05)
