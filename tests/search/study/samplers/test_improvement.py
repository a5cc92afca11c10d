from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.fronts.dominance import hypervolume
from search.study.samplers.improvement import expected_improvement
from search.study.samplers.surrogate import FLOOR

WORST = 0.06


def estimate_by_sampling(
    mean: float, sd: float, saving: np.ndarray, corners: np.ndarray, errors: np.ndarray, most: np.ndarray
) -> float:
    """The gain in hypervolume, averaged over draws of the error."""

    def volume(savings: np.ndarray, wrong: np.ndarray) -> float:
        points = np.column_stack([np.minimum(savings, most), -wrong])
        return hypervolume(points, [0.0] * len(most) + [-WORST], [True] * (len(most) + 1))

    before = volume(corners, errors)
    drawn = np.exp(np.random.default_rng(0).normal(mean, sd, 800)) - FLOOR
    gains = [volume(np.vstack([corners, saving]), np.append(errors, error)) - before for error in drawn]
    return float(np.mean(gains))


@settings(deadline=None, max_examples=12)
@given(
    costs=st.integers(1, 2),
    members=st.integers(0, 5),
    seed=st.integers(0, 9999),
    mean=st.floats(-4.5, -2.5),
    sd=st.floats(0.05, 0.6),
)
def test_the_closed_form_is_the_mean_of_sampled_gains(
    costs: int, members: int, seed: int, mean: float, sd: float
) -> None:
    draw = np.random.default_rng(seed)
    most = np.full(costs, 4.0)
    corners, errors = draw.uniform(0, 5, (members, costs)), draw.uniform(0.0, 0.08, members)
    saving = draw.uniform(0, 5, costs)
    closed = expected_improvement(np.array([mean]), np.array([sd]), saving[None], corners, errors, WORST, most)[0]
    sampled = estimate_by_sampling(mean, sd, saving, corners, errors, most)
    assert closed == pytest.approx(sampled, rel=0.2, abs=0.005)


def test_what_is_dominated_for_sure_gains_nothing() -> None:
    corners, errors = np.array([[3.0]]), np.array([0.01])

    def gain(saving: float) -> float:
        mean, sd, most = np.log([0.02 + FLOOR]), np.array([1e-6]), np.array([4.0])
        return float(expected_improvement(mean, sd, np.array([[saving]]), corners, errors, WORST, most)[0])

    assert gain(2.0) == pytest.approx(0.0, abs=1e-9)
    assert gain(3.5) == pytest.approx(0.5 * (WORST - 0.02), abs=1e-6)
