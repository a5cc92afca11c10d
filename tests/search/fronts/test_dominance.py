from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.fronts.dominance import hypervolume


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=6), st.integers(0, 9))
def test_hypervolume_is_the_share_of_random_points_that_are_dominated(
    points: list[tuple[float, ...]], seed: int
) -> None:
    drawn = np.random.default_rng(seed).random((20_000, 3))
    beaten = (np.array(points)[:, None] <= drawn).all(axis=2).any(axis=0).mean()
    assert hypervolume(points, [1.0] * 3, [False] * 3) == pytest.approx(beaten, abs=0.02)
