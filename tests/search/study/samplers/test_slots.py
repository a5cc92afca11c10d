from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods import METHODS, load_method
from search.study.samplers.slots import Slots
from search.study.space import select_own_space, study_space
from spaces import Categorical, Condition, Integer, LayerGroup, LogReal, Real, Space

GROUPS = [LayerGroup("conv1", 16, "8x8", 0.0), LayerGroup("conv2", 32, "4x4", 1.0)]
NESTED = Space(
    {
        "kind": Categorical(("a", "b", "c")),
        "rate": LogReal(0.001, 1.0),
        "steps": Integer(1, 9),
        "fixed": Real(2.0, 2.0),
        "slope": Real(-1.0, 1.0),
    },
    {"rate": Condition("kind", ("a", "b")), "slope": Condition("kind", ("c",))},
)


@pytest.mark.parametrize("method", sorted(METHODS))
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 999))
def test_points_of_every_method_survive_their_slots(method: str, seed: int) -> None:
    space = load_method(method).space(GROUPS)
    slots = Slots(space)
    point = space.sample(seed)
    read = slots.decode(slots.encode(point))
    assert list(read) == list(point)
    for name, value in point.items():
        if isinstance(value, float):
            assert read[name] == pytest.approx(value, rel=1e-9, abs=1e-9)
        else:
            assert read[name] == value


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_equal_points_have_equal_canonical_vectors(unit: list[float]) -> None:
    slots = Slots(NESTED)
    vector = np.array([unit])
    canonical = slots.canonicalise(vector)
    assert slots.decode(canonical[0]) == pytest.approx(slots.decode(vector[0]))
    assert np.allclose(slots.canonicalise(canonical), canonical)
    applies = [name in slots.decode(vector[0]) for name in slots.names]
    assert slots.active(vector)[0].tolist() == applies


def test_the_space_of_a_method_within_a_study_keeps_its_conditions() -> None:
    whole = study_space(("sdprun", "greedy"), GROUPS, "flops", {"greedy": {"sparsity.flops": {"low": 0.3}}})
    own = select_own_space(whole, "greedy")
    assert own["sparsity.flops"].to_json()["low"] == 0.3
    for seed in range(6):
        method, point = whole.split(whole.sample(seed), "method")
        assert select_own_space(whole, method).check(point) == point
