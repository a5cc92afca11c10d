from __future__ import annotations

import pytest

from search.study.points import count_points
from spaces import Categorical, Condition, Integer, LogReal, Real, Space


@pytest.mark.parametrize(
    ("space", "points"),
    [
        (Space({"a": Categorical(("x", "y", "z")), "b": Integer(1, 4)}), 12),
        (Space({"a": Categorical(("x", "y")), "b": Integer(1, 4)}, {"b": Condition("a", ("y",))}), 5),
        (Space({"a": Real(0.5, 0.5), "b": Categorical((True, False))}), 2),
        (Space({"a": Categorical(("x",)), "b": LogReal(0.1, 1.0)}), None),
        (Space({"a": Categorical(("x", "y")), "b": Real(0.0, 1.0)}, {"b": Condition("a", ("y",))}), None),
        (Space({"a": Integer(1, 10**9)}), None),
        (Space({}), 1),
    ],
)
def test_points_are_counted_as_far_as_that_matters(space: Space, points: int | None) -> None:
    assert count_points(space, 24) == points
