"""Random parameters, spaces and networks for the tests of the room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st

from spaces import (
    Categorical,
    Condition,
    Integer,
    LayerGroup,
    LogReal,
    Parameter,
    Point,
    Range,
    Real,
    Space,
    Value,
)

patient = settings(deadline=None, max_examples=30)
"""Decorates a property: no time limit per example, which a busy machine would break now and then."""

seeds = st.integers(0, 2**32 - 1)
shares = st.floats(0, 1)
words = st.sampled_from(["step", "cosine", "l1", "l2", "taylor", "none"])
numbers = st.floats(-1e6, 1e6) | st.integers(-100, 100)


@st.composite
def reals(draw: st.DrawFn) -> Range:
    low, default, high = sorted(draw(st.tuples(numbers, numbers, numbers)))
    return Real(low, high, draw(st.sampled_from([None, default])))


@st.composite
def log_reals(draw: st.DrawFn) -> Range:
    positive = st.floats(1e-9, 1e9)
    low, default, high = sorted(draw(st.tuples(positive, positive, positive)))
    return LogReal(low, high, draw(st.sampled_from([None, default])))


@st.composite
def integers(draw: st.DrawFn) -> Range:
    log = draw(st.booleans())
    number = st.integers(1 if log else -50, 2048)
    low, default, high = sorted(draw(st.tuples(number, number, number)))
    return Integer(low, high, log, draw(st.sampled_from([None, default])))


@st.composite
def categoricals(draw: st.DrawFn) -> Categorical:
    # 0, 1, False and True are equal in pairs, which a categorical refuses: numbers start at 2.
    choice = words | st.booleans() | st.integers(2, 9) | st.floats(2.5, 9.5)
    choices = draw(st.lists(choice, min_size=1, max_size=4, unique=True))
    return Categorical(tuple(choices), draw(st.sampled_from([None, *choices])))


parameters: st.SearchStrategy[Parameter] = reals() | log_reals() | integers() | categoricals()

parameters_with_many_choices: st.SearchStrategy[Parameter] = categoricals() | parameters


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Up to eight parameters, many of them under conditions, conditions under conditions among them."""
    named: dict[str, Parameter] = {}
    conditions: dict[str, Condition] = {}
    for name in draw(st.lists(st.sampled_from("abcdefgh"), unique=True)):
        parents = {each: held for each, held in named.items() if isinstance(held, Categorical)}
        conditional = draw(st.integers(0, 3)) > 0
        if parents and conditional:
            parent = draw(st.sampled_from(sorted(parents)))
            choice: st.SearchStrategy[Value] = st.sampled_from(parents[parent].choices)
            conditions[name] = Condition(parent, tuple(draw(st.lists(choice, min_size=1, unique=True))))
        named[name] = draw(parameters_with_many_choices)
    return Space(named, conditions)


def is_active(space: Space, name: str, point: Point) -> bool:
    """Whether a parameter applies at a point, by going up the line of its parents."""
    condition = space.condition(name)
    if condition is None:
        return True
    return is_active(space, condition.parameter, point) and point[condition.parameter] in condition.values


@dataclass(frozen=True)
class ProductCost:
    """FLOPs as sums of products of widths, as convolutions have them, plus a part that nothing can prune."""

    pairs: Mapping[tuple[str, str], int]
    single: Mapping[str, int]
    fixed: int

    def __call__(self, kept: Mapping[str, int]) -> float:
        return (
            self.fixed
            + sum(weight * kept[name] for name, weight in self.single.items())
            + sum(weight * kept[one] * kept[two] for (one, two), weight in self.pairs.items())
        )


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[LayerGroup], ProductCost]:
    """Groups of random widths, and FLOPs with products between random pairs of them."""
    widths = draw(st.lists(st.integers(1, 80), min_size=1, max_size=6))
    names = [f"layer{index}.conv" for index in range(len(widths))]
    groups = [
        LayerGroup(name, width, stage=f"stage{index // 2}", depth=index / max(len(names) - 1, 1))
        for index, (name, width) in enumerate(zip(names, widths, strict=True))
    ]
    weight = st.integers(0, 30)
    pairs = draw(st.dictionaries(st.tuples(st.sampled_from(names), st.sampled_from(names)), weight, max_size=8))
    single = {name: draw(weight) for name in names}
    return groups, ProductCost(pairs, single, fixed=draw(st.integers(0, 50)))
