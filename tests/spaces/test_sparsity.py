from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from spaces import (
    ByEnergy,
    Condition,
    FlopsTarget,
    InputError,
    LayerGroup,
    PerLayer,
    PerStage,
    Sparsity,
    Uniform,
    sparsity_space,
)
from spaces.layers import HIGHEST_RATIO
from spaces.sparsity import Allocation
from tests.spaces.cases import ProductCost, networks, patient, seeds

Network = tuple[list[LayerGroup], ProductCost]
ratios = st.floats(0, 1, exclude_max=True)
steps = st.sampled_from([1, 2, 4, 8])
CONVS = [
    LayerGroup("conv1", 16, "stem", 0.0),
    LayerGroup("layer1.0.conv1", 30, "layer1", 0.5),
    LayerGroup("layer1.1.conv1", 10, "layer1", 1.0),
]


def refuse_cost(kept: Mapping[str, int]) -> float:
    raise AssertionError("ratios do not ask what anything costs")


def allowed(channels: int, step: int) -> list[int]:
    """Every width a group may have: multiples of the step, and all."""
    return sorted({*range(step, channels + 1, step), channels})


@patient
@given(networks(), ratios, steps)
def test_kept_widths_are_allowed(network: Network, ratio: float, step: int) -> None:
    groups, _ = network
    kept = Uniform(ratio=ratio).keep(groups, refuse_cost, step)
    assert list(kept) == [group.name for group in groups]
    assert all(kept[group.name] in allowed(group.channels, step) for group in groups)


@patient
@given(networks(), ratios, ratios, steps)
def test_a_larger_ratio_keeps_no_more(network: Network, one: float, two: float, step: int) -> None:
    groups, _ = network
    low, high = sorted((one, two))
    more, less = (Uniform(ratio=ratio).keep(groups, refuse_cost, step) for ratio in (low, high))
    assert all(less[name] <= more[name] for name in more)


@patient
@given(networks(), steps)
def test_ratio_zero_keeps_everything(network: Network, step: int) -> None:
    groups, _ = network
    kept = Uniform(ratio=0).keep(groups, refuse_cost, step)
    assert kept == {group.name: group.channels for group in groups}


@pytest.mark.parametrize("step", [1, 8])
def test_a_ratio_in_percent_is_exact(step: int) -> None:
    """ceil(ratio * channels) in whole numbers, free of the rounding errors of floats (0.07 * 100 > 7)."""
    groups = [LayerGroup(str(channels), channels, "s", 0) for channels in range(1, 129)]
    for percent in range(100):
        kept = Uniform(ratio=percent / 100).keep(groups, refuse_cost, step)
        for group in groups:
            exact = max(group.channels - -(-percent * group.channels // 100), 1)
            nearest = min(abs(width - exact) for width in allowed(group.channels, step))
            assert abs(kept[group.name] - exact) == nearest


@pytest.mark.parametrize(
    ("ratio", "round_to", "kept"),
    [
        (0.1, 1, {"conv1": 14, "layer1.0.conv1": 27, "layer1.1.conv1": 9}),
        (0.5, 1, {"conv1": 8, "layer1.0.conv1": 15, "layer1.1.conv1": 5}),
        (0.99, 1, {"conv1": 1, "layer1.0.conv1": 1, "layer1.1.conv1": 1}),
        (0.5, 8, {"conv1": 8, "layer1.0.conv1": 16, "layer1.1.conv1": 8}),
        (0.99, 8, {"conv1": 8, "layer1.0.conv1": 8, "layer1.1.conv1": 8}),
        (0.25, 16, {"conv1": 16, "layer1.0.conv1": 16, "layer1.1.conv1": 10}),
    ],
)
def test_uniform_by_hand(ratio: float, round_to: int, kept: dict[str, int]) -> None:
    assert Uniform(ratio=ratio).keep(CONVS, refuse_cost, round_to) == kept


def test_per_stage_by_hand() -> None:
    given = PerStage(stages={"stem": 0.25, "layer1": 0.5})
    assert given.keep(CONVS, refuse_cost) == {"conv1": 12, "layer1.0.conv1": 15, "layer1.1.conv1": 5}


def test_per_layer_by_hand() -> None:
    given = PerLayer(layers={"layer1.1.conv1": 0.9, "conv1": 0, "layer1.0.conv1": 0.5})
    assert given.keep(CONVS, refuse_cost) == {"conv1": 16, "layer1.0.conv1": 15, "layer1.1.conv1": 1}


def test_levels_and_offsets_by_hand() -> None:
    by_layer = PerLayer(level=0.5, layer_offsets={"conv1": 1.0, "layer1.0.conv1": -1.0})
    assert by_layer.keep(CONVS, refuse_cost) == {"conv1": 16, "layer1.0.conv1": 7, "layer1.1.conv1": 5}
    by_stage = PerStage(level=0.25, stage_offsets={"layer1": 1.0})
    assert by_stage.keep(CONVS, refuse_cost) == {"conv1": 4, "layer1.0.conv1": 15, "layer1.1.conv1": 5}
    least = PerLayer(level=0.01, layer_offsets={"conv1": -9.0})
    assert least.keep(CONVS, refuse_cost) == find_narrowest(CONVS, 1)


@patient
@given(networks(), st.floats(0.05, 1), st.floats(0.05, 1), seeds)
def test_a_higher_level_keeps_no_less(network: Network, one: float, two: float, seed: int) -> None:
    groups, _ = network
    draw = Random(seed)
    offsets = {group.name: draw.uniform(-1, 1) for group in groups}
    less, more = (
        PerLayer(level=level, layer_offsets=offsets).keep(groups, refuse_cost) for level in sorted((one, two))
    )
    assert all(less[name] <= more[name] for name in more)


def test_by_energy_by_hand() -> None:
    groups = [replace(group, energies=(0.5, 0.3, 0.1, 0.1)) for group in CONVS]
    assert ByEnergy(energy=0.5).keep(groups, refuse_cost) == {"conv1": 4, "layer1.0.conv1": 7, "layer1.1.conv1": 2}
    assert ByEnergy(energy=0.8).keep(groups, refuse_cost) == {"conv1": 8, "layer1.0.conv1": 15, "layer1.1.conv1": 5}
    assert ByEnergy(energy=1.0).keep(groups, refuse_cost) == {group.name: group.channels for group in CONVS}
    assert ByEnergy(energy=0.81).keep(groups, refuse_cost, 8)["conv1"] == 16  # 12 lies half-way: the wider one
    with pytest.raises(InputError, match="needs the weights, which this method does not look at"):
        ByEnergy(energy=0.5).keep(CONVS, refuse_cost)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PerStage(stages={"stem": 0.5, "layer2": 0.5}), "unknown stage 'layer2'; did you mean 'layer1'?"),
        (PerStage(stages={"stem": 0.5}), "no ratio for stage 'layer1'; give one for every stage"),
        (PerLayer(layers={"conv2": 0.5}), "unknown layer 'conv2'; did you mean 'conv1'?"),
        (PerLayer(layers={"conv1": 0.5}), "no ratio for layer 'layer1.0.conv1'"),
        (PerLayer(level=0.5, layer_offsets={"conv2": 0.5}), "unknown layer 'conv2'; did you mean 'conv1'?"),
        (PerStage(stage_offsets={"stem": 0.5}), "offsets per stage need a level"),
        (PerLayer(level=0.5, layers={"conv1": 0.5}), "takes ratios or a level with offsets, not both"),
    ],
)
def test_ratios_that_do_not_fit_the_network(given: Allocation, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        given.keep(CONVS, refuse_cost)


def find_narrowest(groups: list[LayerGroup], step: int) -> dict[str, int]:
    """The widths at the highest ratio, the slow way."""
    kept = {}
    for group in groups:
        widths = allowed(group.channels, step)
        kept[group.name] = max(
            (width for width in widths if width <= group.channels * (1 - HIGHEST_RATIO)), default=widths[0]
        )
    return kept


@settings(deadline=None, max_examples=100)
@given(networks(), st.floats(0.01, 1), st.floats(-1, 1), steps)
def test_a_flops_target_is_met_to_within_one_step(network: Network, flops: float, tilt: float, step: int) -> None:
    groups, cost = network
    dense = {group.name: group.channels for group in groups}
    target = flops * cost(dense)
    least = cost(find_narrowest(groups, step))
    if least > target:
        with pytest.raises(InputError, match="cannot be reached") as caught:
            FlopsTarget(flops=flops, tilt=tilt).keep(groups, cost, step)
        share = float(str(caught.value).rsplit(" ", 1)[1])
        assert least / cost(dense) <= share + 1e-12 <= least / cost(dense) + 0.002
        FlopsTarget(flops=share, tilt=tilt).keep(groups, cost, step)  # what is printed can be asked for
        return
    kept = FlopsTarget(flops=flops, tilt=tilt).keep(groups, cost, step)
    assert all(kept[group.name] in allowed(group.channels, step) for group in groups)
    assert cost(kept) <= target
    prices = [
        cost({**kept, group.name: min(width for width in allowed(group.channels, step) if width > kept[group.name])})
        - cost(kept)
        for group in groups
        if kept[group.name] < group.channels
    ]
    assert kept == dense or target - cost(kept) < max(prices)


@patient
@given(networks(), st.floats(0.3, 1), st.floats(-1, 1))
def test_every_group_is_within_one_unit_of_one_tilted_line(network: Network, flops: float, tilt: float) -> None:
    groups, cost = network
    try:
        kept = FlopsTarget(flops=flops, tilt=tilt).keep(groups, cost)
    except InputError:
        return
    # The bases at which a group may have its width are an interval; all groups must share one base.
    low, high = -math.inf, math.inf
    for group in groups:
        shift = tilt * (group.depth - 0.5)
        least = 1 - (kept[group.name] + 1) / group.channels  # ratio that leaves one unit more
        most = 1 - (kept[group.name] - 1) / group.channels  # ratio that leaves one unit less
        if least > 0:
            low = max(low, min(least, HIGHEST_RATIO) - shift)
        if most < HIGHEST_RATIO and kept[group.name] > 1:
            high = min(high, most - shift)
    assert low <= high + 1e-9


@patient
@given(networks(), st.floats(0.05, 1), st.floats(0.05, 1))
def test_a_tighter_target_makes_no_group_wider(network: Network, one: float, two: float) -> None:
    groups, cost = network
    low, high = sorted((one, two))
    try:
        small = FlopsTarget(flops=low).keep(groups, cost)
    except InputError:
        return
    # Only to within one unit: the two may be filled up in another order.
    large = FlopsTarget(flops=high).keep(groups, cost)
    assert all(small[name] <= large[name] + 1 for name in large)


def test_a_tilt_prunes_deep_groups_more() -> None:
    groups = [LayerGroup(f"g{index}", 64, "s", index / 4) for index in range(5)]

    def cost(kept: Mapping[str, int]) -> float:
        return sum(kept.values())

    flat, deep, shallow = (
        list(FlopsTarget(flops=0.5, tilt=tilt).keep(groups, cost).values()) for tilt in (0, 0.4, -0.4)
    )
    assert flat == [32] * 5
    # Ratios 0.3, 0.4, 0.5, 0.6, 0.7: widths 44.8, 38.4, 32, 25.6, 19.2, of which the roundest go up.
    assert deep == [45, 38, 32, 26, 19]
    assert shallow == deep[::-1]
    assert sum(deep) == 160


def test_what_was_rounded_down_most_goes_up_first() -> None:
    groups = [LayerGroup("a", 10, "s", 0.5), LayerGroup("b", 18, "s", 0.5), LayerGroup("c", 12, "s", 0.5)]
    cost = ProductCost({}, {"a": 5, "b": 4, "c": 3}, fixed=0)
    # Just below a share of 0.6, the widths are 5.99, 10.79 and 7.19; rounded down they cost 86. A sixth unit of
    # "a" would exceed 90.5, an eleventh of "b" does not, and then there is nothing left for "c".
    assert FlopsTarget(flops=90.5 / 158).keep(groups, cost) == {"a": 5, "b": 11, "c": 7}


def test_the_smallest_share_is_named() -> None:
    groups = [LayerGroup("g", 10, "s", 0.5)]
    cost = ProductCost({}, {"g": 9}, fixed=10)  # 100 dense, 19 with one channel
    with pytest.raises(
        InputError,
        match=re.escape("flops = 0.1 cannot be reached; with this network and tilt the smallest share is 0.190"),
    ):
        FlopsTarget(flops=0.1).keep(groups, cost)
    assert FlopsTarget(flops=0.19).keep(groups, cost) == {"g": 1}
    assert FlopsTarget(flops=0.279).keep(groups, cost) == {"g": 1}
    assert FlopsTarget(flops=0.28).keep(groups, cost) == {"g": 2}
    assert FlopsTarget(flops=1).keep(groups, cost) == {"g": 10}


def test_the_smallest_share_that_is_named_can_be_asked_for() -> None:
    groups = [LayerGroup("g", 10, "s", 0.5)]
    cost = ProductCost({}, {"g": 13}, fixed=50)  # 63 of 180 is 0.35, but 0.35 * 180 = 62.99999999999999
    with pytest.raises(InputError, match="the smallest share is 0.351"):
        FlopsTarget(flops=0.35).keep(groups, cost)
    assert FlopsTarget(flops=0.351).keep(groups, cost) == {"g": 1}


def test_a_solve_asks_for_the_cost_rarely() -> None:
    """A cost takes some 20 microseconds; 60 groups must be solved in a few milliseconds."""
    groups = [LayerGroup(f"g{index}", 2048, "s", index / 59) for index in range(60)]
    asked = 0

    def cost(kept: Mapping[str, int]) -> float:
        nonlocal asked
        asked += 1
        widths = list(kept.values())
        return sum(a * b for a, b in zip(widths, widths[1:], strict=False))

    FlopsTarget(flops=0.4, tilt=0.3).keep(groups, cost)
    assert asked < 150


ADAPTER: TypeAdapter[Any] = TypeAdapter(Sparsity)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"mode": "uniform", "ratio": 0.5}, Uniform),
        ({"mode": "stage", "stages": {"a": 0.5}}, PerStage),
        ({"mode": "layer", "layers": {"a": 0.5}}, PerLayer),
        ({"mode": "stage", "level": 0.5, "stage_offsets": {"a": 0.5}}, PerStage),
        ({"mode": "layer", "level": 0.5, "layer_offsets": {"a": -0.5}}, PerLayer),
        ({"mode": "energy", "energy": 0.9}, ByEnergy),
        ({"mode": "flops", "flops": 0.5, "tilt": -0.5}, FlopsTarget),
    ],
)
def test_allocations_are_built_by_mode_and_survive_json(data: dict[str, Any], kind: type[Allocation]) -> None:
    built = ADAPTER.validate_python(data)
    assert type(built) is kind
    assert ADAPTER.validate_python(built.model_dump(mode="json")) == built
    assert built.model_dump(exclude_defaults=True) == {key: value for key, value in data.items() if key != "mode"}
    assert ADAPTER.validate_json(ADAPTER.dump_json(built)) == built


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"mode": "flop", "flops": 0.5}, "'flop'"),
        ({"mode": "uniform", "ratio": 1.0}, "less than 1"),
        ({"mode": "uniform", "ratio": -0.1}, "greater than or equal to 0"),
        ({"mode": "uniform", "ratio": 0.5, "tilt": 0}, "Extra inputs are not permitted"),
        ({"mode": "stage", "stages": {"a": 1.5}}, "less than 1"),
        ({"mode": "layer", "layers": {"a": math.nan}}, "finite number"),
        ({"mode": "flops", "flops": 0}, "greater than 0"),
        ({"mode": "flops", "flops": 1.01}, "less than or equal to 1"),
        ({"mode": "flops", "flops": 0.5, "tilt": 2}, "less than or equal to 1"),
    ],
)
def test_allocations_that_cannot_be(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_python(data)


@pytest.mark.parametrize(
    ("channels", "depth", "message"),
    [(0, 0.5, "needs at least one channel, not 0"), (4, 1.5, "must be within 0 and 1, not 1.5")],
)
def test_groups_that_cannot_be(channels: int, depth: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerGroup("g", channels, "s", depth)


class Nested(BaseModel):
    """As a method holds its sparsity."""

    sparsity: Sparsity


def nest_names(point: Mapping[str, Any]) -> dict[str, Any]:
    """The names of a sparsity space as nested mappings, written out for these two depths alone."""
    tree: dict[str, Any] = {}
    for name, value in point.items():
        field, bracket, key = name.removeprefix("sparsity.").partition("[")
        if bracket:
            tree.setdefault(field, {})[key.removesuffix("]")] = value
        else:
            tree[field] = value
    return {"sparsity": tree}


@patient
@given(seeds)
def test_every_point_of_the_space_builds_an_allocation_that_fits(seed: int) -> None:
    point = sparsity_space(CONVS).sample(seed)
    built = Nested.model_validate(nest_names(point)).sparsity
    assert built.mode == point["sparsity.mode"]
    cost = ProductCost({("conv1", "layer1.0.conv1"): 9}, {"layer1.1.conv1": 9}, fixed=0)
    kept = built.keep(CONVS, cost)
    assert list(kept) == [group.name for group in CONVS]


def test_the_space_of_a_network() -> None:
    space = sparsity_space(CONVS, high_ratio=0.4)
    assert space.names == (
        "sparsity.mode",
        "sparsity.flops",
        "sparsity.tilt",
        "sparsity.ratio",
        "sparsity.level",
        "sparsity.stage_offsets[stem]",
        "sparsity.stage_offsets[layer1]",
        "sparsity.layer_offsets[conv1]",
        "sparsity.layer_offsets[layer1.0.conv1]",
        "sparsity.layer_offsets[layer1.1.conv1]",
    )
    assert space.condition("sparsity.layer_offsets[conv1]") == Condition("sparsity.mode", ("layer",))
    assert space.defaults() == {"sparsity.mode": "flops", "sparsity.flops": 0.5, "sparsity.tilt": 0.0}
    assert space.narrow({"sparsity.mode": "uniform"}).names == ("sparsity.mode", "sparsity.ratio")
    assert space["sparsity.ratio"].default == 0.4


def test_a_network_without_groups_has_nothing_to_prune() -> None:
    with pytest.raises(InputError, match="nothing to prune"):
        sparsity_space([])
