from __future__ import annotations

import json
import pickle
import re
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces import (
    Categorical,
    Condition,
    InputError,
    Integer,
    LogReal,
    Parameter,
    Real,
    Space,
    Value,
)
from tests.spaces.cases import is_active, patient, seeds, spaces

OPTIMISER = Space(
    {
        "optimiser": Categorical(("sgd", "adamw"), default="sgd"),
        "schedule": Categorical(("step", "cosine"), default="cosine"),
        "momentum": Real(0, 1, default=0.9),
        "steps": Integer(1, 3),
        "lr": LogReal(1e-4, 1.0, default=0.1),
    },
    conditions={
        "schedule": Condition("optimiser", ("sgd",)),
        "momentum": Condition("optimiser", ("sgd",)),
        "steps": Condition("schedule", ("step",)),
    },
)


@patient
@given(spaces(), seeds)
def test_a_sampled_point_has_what_applies_and_is_valid(space: Space, seed: int) -> None:
    point = space.sample(seed)
    assert list(point) == [name for name in space if is_active(space, name, point)]
    shuffled = dict(Random(seed).sample(list(point.items()), k=len(point)))
    assert list(space.check(shuffled).items()) == list(point.items())


@patient
@given(spaces(), seeds)
def test_the_same_seed_gives_the_same_point(space: Space, seed: int) -> None:
    assert space.sample(seed) == space.sample(seed) == space.sample(Random(seed))


def test_different_seeds_give_different_points() -> None:
    assert len({json.dumps(OPTIMISER.sample(seed)) for seed in range(20)}) == 20


@patient
@given(spaces(), seeds)
def test_json_round_trip(space: Space, seed: int) -> None:
    text = json.dumps(space.to_json(), allow_nan=False)
    again = Space.from_json(json.loads(text))
    assert again == space
    assert hash(again) == hash(space)
    assert json.dumps(again.to_json()) == text
    point = space.sample(seed)
    assert again.check(json.loads(json.dumps(point))) == point == again.sample(seed)


def test_json_names_everything_a_reader_needs() -> None:
    assert OPTIMISER.to_json()[3] == {
        "name": "steps",
        "kind": "integer",
        "low": 1,
        "high": 3,
        "log": False,
        "choices": None,
        "default": None,
        "condition": {"parameter": "schedule", "values": ["step"]},
    }


@patient
@given(spaces())
def test_survives_pickle(space: Space) -> None:
    assert pickle.loads(pickle.dumps(space)) == space


def _draw_bounds(space: Space, rng: Random) -> dict[str, dict[str, object]]:
    """Bounds that any space accepts: half of the choices of parameters without a condition, a lower half."""
    bounds: dict[str, dict[str, object]] = {}
    for name, parameter in space.items():
        if space.condition(name) is not None or rng.random() < 0.3:
            continue
        if isinstance(parameter, Categorical):
            bounds[name] = {"choices": rng.sample(parameter.choices, k=(len(parameter.choices) + 1) // 2)}
        else:
            bounds[name] = {"high": parameter.sample(rng)}
    return bounds


@patient
@given(spaces(), seeds)
def test_a_narrowed_space_is_a_subset(space: Space, seed: int) -> None:
    bounds = _draw_bounds(space, Random(seed))
    narrow = space.narrow(bounds)
    point = narrow.sample(seed)
    assert space.check(point) == point
    for name, bound in bounds.items():
        if "choices" in bound:
            assert set(narrow.to_json()[narrow.names.index(name)]["choices"]) == set(_list(bound["choices"]))
            assert point[name] in _list(bound["choices"])
    # A point of the large space that keeps the bounds is a point of the small one.
    large = space.sample(seed)
    if all(_is_within(large[name], bound) for name, bound in bounds.items()):
        assert narrow.check(large) == large


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def _is_within(value: Value, bound: dict[str, object]) -> bool:
    if "choices" in bound:
        return value in _list(bound["choices"])
    high = bound["high"]
    assert isinstance(high, (int, float)) and isinstance(value, (int, float))
    return value <= high


@patient
@given(spaces())
def test_narrowing_by_nothing_changes_nothing(space: Space) -> None:
    assert space.narrow({}) == space


@patient
@given(st.dictionaries(st.sampled_from(["increg", "spp", "l1-norm"]), spaces(), min_size=1), seeds)
def test_choose_and_split_are_inverse(inner: dict[str, Space], seed: int) -> None:
    joint = Space.choose("method", inner)
    point = joint.sample(seed)
    assert joint.check(point) == point
    assert list(point) == [name for name in joint if is_active(joint, name, point)]
    key, rest = joint.split(point, "method")
    assert key == point["method"]
    assert inner[key].check(rest) == rest
    assert {"method": key, **{f"{key}.{name}": value for name, value in rest.items()}} == point


@patient
@given(spaces(), seeds)
def test_prefixed_renames_and_nothing_else(space: Space, seed: int) -> None:
    prefixed = space.add_prefix("increg")
    assert prefixed.names == tuple(f"increg.{name}" for name in space)
    point = space.sample(seed)
    assert prefixed.sample(seed) == {f"increg.{name}": value for name, value in point.items()}


@pytest.mark.parametrize(
    ("chosen", "visited"),
    [
        ({"optimiser": "adamw", "lr": 0.1}, ["optimiser", "lr"]),
        (
            {"optimiser": "sgd", "schedule": "cosine", "momentum": 0.5, "lr": 0.1},
            ["optimiser", "schedule", "momentum", "lr"],
        ),
        (
            {"optimiser": "sgd", "schedule": "step", "momentum": 0.5, "steps": 2, "lr": 0.1},
            ["optimiser", "schedule", "momentum", "steps", "lr"],
        ),
    ],
)
def test_a_walk_visits_what_applies_in_order(chosen: dict[str, Value], visited: list[str]) -> None:
    asked: list[str] = []

    def choose(name: str, parameter: Parameter) -> Value:
        assert parameter is OPTIMISER[name]
        asked.append(name)
        return chosen[name]

    assert OPTIMISER.walk(choose) == chosen
    assert asked == visited


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"optimizer": "sgd"}, "unknown parameter 'optimizer'; did you mean 'optimiser'?"),
        ({}, "parameter 'optimiser' is missing; give one of 'sgd', 'adamw'"),
        ({"optimiser": "adamw"}, "parameter 'lr' is missing; give a number from 0.0001 to 1.0"),
        ({"optimiser": "adamw", "lr": 3}, "parameter 'lr' = 3 is not allowed"),
        (
            {"optimiser": "adamw", "lr": 0.1, "momentum": 0.5},
            "parameter 'momentum' does not apply: it needs optimiser = 'sgd', but optimiser = 'adamw'",
        ),
        (
            {"optimiser": "adamw", "lr": 0.1, "steps": 1},
            "parameter 'steps' does not apply: it needs schedule = 'step', which needs optimiser = 'sgd', "
            "but optimiser = 'adamw'",
        ),
    ],
)
def test_what_a_user_is_told_about_a_point(point: dict[str, Value], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        OPTIMISER.check(point)


def test_narrowing_a_parent_drops_children_and_their_children() -> None:
    narrow = OPTIMISER.narrow({"optimiser": "adamw", "lr": {"high": 0.01}})
    assert narrow == Space({"optimiser": Categorical(("adamw",)), "lr": LogReal(1e-4, 0.01)})


def test_narrowing_a_parent_narrows_the_conditions_of_its_children() -> None:
    space = Space(
        {"norm": Categorical(("l1", "l2", "max")), "power": Real(0, 1)},
        {"power": Condition("norm", ("l1", "l2"))},
    )
    narrow = space.narrow({"norm": {"choices": ["l2", "max"]}, "power": 0.5})
    assert narrow.condition("power") == Condition("norm", ("l2",))
    assert narrow["power"] == Real(0.5, 0.5)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"momentun": {"low": 0.5}}, "unknown parameter 'momentun'; did you mean 'momentum'?"),
        ({"momentum": 2}, "parameter 'momentum' = 2 is not allowed; give a number from 0.0 to 1.0"),
        (
            {"optimiser": "adamw", "steps": 2},
            "parameter 'steps' cannot be narrowed: it applies only when schedule = 'step'",
        ),
    ],
)
def test_what_a_user_is_told_about_bounds(bounds: dict[str, Value], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        OPTIMISER.narrow(bounds)


def test_defaults() -> None:
    assert OPTIMISER.defaults() == {"optimiser": "sgd", "schedule": "cosine", "momentum": 0.9, "lr": 0.1}
    assert OPTIMISER.narrow({"schedule": "step"}).defaults() is None  # steps has no default
    fixed = OPTIMISER.narrow({"schedule": "step", "steps": 2})
    assert fixed.defaults() == {
        "optimiser": "sgd",
        "schedule": "step",
        "momentum": 0.9,
        "steps": 2,
        "lr": 0.1,
    }
    assert Space({}).defaults() == {}


@patient
@given(spaces())
def test_defaults_are_a_point_of_the_authors_values(space: Space) -> None:
    point = space.defaults()
    if point is None:
        assert any(each.default is None and each.only is None for each in space.values())
    else:
        assert space.check(point) == point
        assert all(value == (space[name].only or space[name].default) for name, value in point.items() if value)


def test_joining_keeps_order_and_conditions() -> None:
    joint = Space({"norm": Categorical(("l1", "l2"))}) | OPTIMISER
    assert joint.names == ("norm", *OPTIMISER.names)
    assert joint.condition("steps") == OPTIMISER.condition("steps")
    with pytest.raises(ValueError, match="more than one parameter named lr"):
        OPTIMISER | Space({"lr": Real(0, 1)})


def test_choose_with_a_default() -> None:
    joint = Space.choose("method", {"a": Space({"x": Real(0, 1, 0.5)}), "b": Space({})}, default="a")
    assert joint.defaults() == {"method": "a", "a.x": 0.5}


def test_split_needs_the_choice() -> None:
    joint = Space.choose("method", {"a": Space({"x": Real(0, 1)}), "ab": Space({"x": Real(0, 1)})})
    assert joint.split({"method": "ab", "ab.x": 1.0}, "method") == ("ab", {"x": 1.0})
    wider = joint | Space({"abc": Real(0, 1)})
    assert wider.split({"method": "ab", "ab.x": 1.0, "abc": 0.5}, "method") == ("ab", {"x": 1.0})
    with pytest.raises(InputError, match="parameter 'method' is missing; give one of 'a', 'ab'"):
        joint.split({"a.x": 0.5}, "method")
    with pytest.raises(InputError, match="parameter 'method' = 'abc' is not allowed; did you mean 'ab'?"):
        joint.split({"method": "abc"}, "method")


def test_order_and_conditions_count_for_equality() -> None:
    a, b = Real(0, 1), Categorical(("x", "y"))
    assert Space({"a": a, "b": b}) != Space({"b": b, "a": a})
    assert Space({"b": b, "a": a}) != Space({"b": b, "a": a}, {"a": Condition("b", ("x",))})
    assert Space({}) != {}


@pytest.mark.parametrize(
    ("names", "condition", "message"),
    [
        (["a", "b"], ("c", Condition("b", ("x",))), "condition of 'c', which is no parameter"),
        (["a", "b"], ("a", Condition("b", ("x",))), "'a' depends on 'b': no categorical parameter before it"),
        (["a", "b"], ("b", Condition("a", (0.5,))), "'b' depends on 'a': no categorical parameter before it"),
        (["a", "b"], ("b", Condition("b", ("x",))), "'b' depends on 'b': no categorical parameter before it"),
        (["b", "a"], ("a", Condition("b", ())), "on none of its values"),
        (["b", "a"], ("a", Condition("b", ("z",))), "parameter 'b' = 'z' is not allowed"),
    ],
)
def test_conditions_that_cannot_be(names: list[str], condition: tuple[str, Condition], message: str) -> None:
    held: dict[str, Parameter] = {"a": Real(0, 1), "b": Categorical(("x", "y"))}
    child, needs = condition
    with pytest.raises(ValueError, match=message):
        Space({name: held[name] for name in names}, {child: needs})


def test_json_that_describes_no_space() -> None:
    cases: list[Any] = [[{"name": "a"}], [{}], [3], OPTIMISER.to_json()[::-1]]
    for data in cases:
        with pytest.raises(InputError, match="this is no description of a space"):
            Space.from_json(data)
