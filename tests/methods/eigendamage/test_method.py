"""EigenDamage: what is removed is what costs least, the target is met, and every trial shares one analysis."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import astuple, replace
from random import Random
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.contract.method import Problem, Pruned
from methods.curvature.covariances import Factors, collect_factors
from methods.curvature.fisher_sampling import Sampling
from methods.eigendamage.eigenspace import Eigenspace, ScoreNorm, _divisors
from methods.eigendamage.kronecker import Directions, damage, directions, eigenbases
from methods.eigendamage.method import MEASURED, SURGERY, EigenDamage
from methods.eigendamage.rotation import core_of
from methods.eigendamage.rotation_cost import Forms, Shape, survey
from methods.eigendamage.unit_damage import _prices
from methods.network.chains import blocks, realise
from methods.network.channels import channel_groups, cut
from methods.network.cost import count
from methods.training.trainer import Recipe
from spaces import InputError
from tests.methods import cases
from tests.methods.cases import Remembered

EXAMPLE = torch.zeros(1, *cases.IMAGE)
TRAIN = cases.blobs(cases.IMAGE, 64)
VALIDATION = cases.blobs(cases.IMAGE, 24, seed=1, noise=0)


def make_wide_net() -> nn.Module:
    """Wide enough for one percentage point: 3x3, strided, pointwise and grouped convolutions, linear layers."""
    return nn.Sequential(
        cases.conv_bn(3, 24),
        cases.conv_bn(24, 32, stride=2),
        cases.conv_bn(32, 48, kernel=1),
        cases.conv_bn(48, 48, groups=2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 48, 40),
        nn.ReLU(),
        nn.Linear(40, cases.CLASSES),
    )


NETS: Mapping[str, Callable[[], nn.Module]] = {**cases.NETS, "wide": make_wide_net}


def problem_for(net: str, steps: int = 0, seed: int = 0, **changes: Any) -> Problem:
    given = Problem(
        model=cases.seeded(NETS[net], trained=True),
        example=EXAMPLE,
        train=TRAIN,
        validation=VALIDATION,
        recipe=Recipe(lr=0.05, batch_size=32, recalibrate=1),
        steps=steps,
        generator=torch.Generator().manual_seed(seed),
        known=cases.find_anatomy(NETS[net]),
    )
    return replace(given, **changes)


def method(sparsity: Any = 0.5, **settings: Any) -> EigenDamage:
    if isinstance(sparsity, float):
        sparsity = {"mode": "flops", "flops": sparsity}
    return EigenDamage.model_validate({"sparsity": sparsity, "selection": "global", **settings})


SHARED = Remembered()
"""One store for all tests of the wide network: what a sweep does."""


def prune_wide(steps: int = 0, **settings: Any) -> Pruned:
    return method(**settings).prune(problem_for("wide", steps, analyses=SHARED))


# --- the idea --------------------------------------------------------------------------------------------------------


def student(seed: int) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A trained network of 64 units, and what it was trained on: the answers of a small random network."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        teacher = nn.Sequential(nn.Linear(20, 6), nn.Tanh(), nn.Linear(6, 10))
        model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    x = torch.randn(1000, 20, generator=generator)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(2)
        y = teacher(x).argmax(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.3)
    for _ in range(30):
        for rows in torch.randperm(1000, generator=generator).split(100):
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(model(x[rows]), y[rows]))
            optimizer.step()
    return model.double().eval(), x.double(), y


def ranks(values: Tensor) -> Tensor:
    return values.argsort().argsort().double()


@pytest.mark.parametrize("seed", [0, 1])
def test_oracle_15_damage_is_predicted(seed: int) -> None:
    model, x, y = student(seed)
    middle = model[2]
    assert isinstance(middle, nn.Linear)
    factors = collect_factors(model, [(x, y)], ["2"], fisher="exact")
    basis, weight = eigenbases(factors)["2"], middle.weight.detach()
    theta = damage(blocks(weight, 1), basis)
    with torch.no_grad():
        before = model[:2](x)

    def loss(changed: Tensor, bias: Tensor | None = None) -> float:
        with torch.no_grad():
            after = before @ changed.T + (middle.bias if bias is None else bias)
            return float(F.cross_entropy(model[3:](after), y))

    dense = loss(weight)
    actual = []
    for row in basis.outputs[0].T:
        actual.append(loss(weight - torch.outer(row, row @ weight)) - dense)
    for column in basis.inputs[0].T:
        actual.append(loss(weight - torch.outer(weight @ column, column)) - dense)
    predicted = torch.cat([theta[0].sum(1), theta[0].sum(0)])
    both = torch.stack([ranks(predicted), ranks(torch.tensor(actual))])
    assert float(torch.corrcoef(both)[0, 1]) > 0.8

    found = directions(theta)
    right, left = basis.inputs[0][:, found.columns[0, :32]], basis.outputs[0][:, found.rows[0, :32]]
    assert loss(left @ left.T @ weight @ right @ right.T) - dense < 0.02
    strong = weight.norm(dim=1) >= weight.norm(dim=1).sort(descending=True).values[15]
    assert loss(weight * strong[:, None], middle.bias.detach() * strong) - dense > 0.5


def test_directions_that_do_nothing_go_first_and_for_free() -> None:
    """A network with channels that are copies, and channels that nobody reads, answers as before without them."""
    given = problem_for("vgg", recipe=Recipe(recalibrate=0))
    convs = [given.model.get_parameter(f"{index}.0.weight") for index in (0, 2, 4)]
    with torch.no_grad():
        for parameter in (*given.model.get_submodule("0").parameters(), *given.model.get_submodule("0").buffers()):
            if parameter.ndim:
                parameter[4:] = parameter[:4]  # four of eight directions that enter the second layer are empty
        convs[2][:, 8:] = 0  # four of twelve that leave it go nowhere
        given.model.get_parameter("7.weight")[:, 12:] = 0  # and four of sixteen that leave the third
    # Four channels of the third layer are never active besides: 16 of the 48 directions of these two layers.
    pruned = method({"mode": "uniform", "ratio": 0.334}, prune_first=False, realise="three_layer").prune(given)
    found = {name: rank for name, rank in pruned.extra.items() if name.startswith("rank")}
    assert found == {"rank_in[2.0]": 4, "rank_out[2.0]": 8, "rank_in[4.0]": 12, "rank_out[4.0]": 8}
    assert pruned.extra["predicted_damage"] < 1e-12
    x = VALIDATION.inputs
    torch.testing.assert_close(pruned.model(x), given.model(x), rtol=1e-4, atol=1e-5)


# --- meeting a target --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [0.5, 0.15])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"selection": "per_layer"},
        {"score_norm": "per_mac", "realise": "three_layer"},
        {"score_norm": "per_param", "variant": "eigendamage_ek"},
        {"score_norm": "layer_sum"},
        {"prune_last": True},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "default",
)
def test_flops_targets_are_met_within_a_point(settings: dict[str, Any], target: float) -> None:
    pruned = prune_wide(sparsity=target, **settings)
    dense = problem_for("wide").model
    share = count(pruned.model, EXAMPLE).flops / count(dense, EXAMPLE).flops
    assert pruned.extra["flops_share"] == share, "counted before it was built"
    assert target - 0.01 < share <= target
    assert count(pruned.model, EXAMPLE).params < count(dense, EXAMPLE).params


def test_no_layer_costs_more_than_before() -> None:
    dense = problem_for("wide").model
    for target in (0.95, 0.7, 0.3):
        pruned = prune_wide(sparsity=target, realise="three_layer").model
        for name, shape in survey(dense, EXAMPLE).shapes.items():
            layer = pruned.get_submodule(name)
            assert sum(p.numel() for p in layer.parameters()) <= shape.dense.params


def test_round_to_aligns_ranks() -> None:
    with pytest.raises(InputError, match="cannot be reached"):
        prune_wide(sparsity=0.15, round_to=16, rounds=3)
    extra = prune_wide(sparsity=0.4, round_to=8, realise="three_layer").extra
    found = {name: rank for name, rank in extra.items() if name.startswith("rank")}
    assert found and all(rank % 8 == 0 or rank == 3 for rank in found.values())
    assert extra["flops_share"] <= 0.4


def test_limits_hold_on_every_side() -> None:
    extra = prune_wide(sparsity={"mode": "uniform", "ratio": 0.9}, ratio_limit=0.5, realise="three_layer").extra
    shapes = survey(problem_for("wide").model, EXAMPLE).shapes
    # Half of the directions of the three 3x3 layers (1 of 3 inputs at the first) go. In three layers neither the 1x1
    # nor the linear layer gets smaller by that: they stay.
    gone = (1 + 12) + (12 + 16) + (24 + 24)
    everything = (3 + 24) + (24 + 32) + (32 + 48) + (48 + 48) + (192 + 40)
    assert extra["ratio_reached"] == pytest.approx(gone / everything)
    for name in shapes:
        if f"rank_in[{name}]" in extra:
            assert extra[f"rank_in[{name}]"] >= shapes[name].inputs / 2
            assert extra[f"rank_out[{name}]"] >= shapes[name].outputs / 2


def test_tilt_takes_more_from_deep_layers() -> None:
    def share(tilt: float) -> float:
        extra = prune_wide(sparsity={"mode": "flops", "flops": 0.5, "tilt": tilt}).extra
        return extra.get("rank_out[3.0]", 48.0) / 48 - extra.get("rank_out[1.0]", 32.0) / 32

    assert share(0.6) < share(-0.6)


# --- ratios --------------------------------------------------------------------------------------------------------


def test_ratios_by_layer_act_on_both_sides() -> None:
    ratios = {"0.0": 0.0, "1.0": 0.5, "2.0": 0.75, "3.0": 0.25, "6": 0.8}
    groups = channel_groups(problem_for("wide").model, EXAMPLE)
    assert [group.name for group in groups] == list(ratios)
    extra = prune_wide(sparsity={"mode": "layer", "layers": ratios}, realise="three_layer").extra
    assert (extra["rank_in[1.0]"], extra["rank_out[1.0]"]) == (24, 16)
    assert (extra["rank_in[2.0]"], extra["rank_out[2.0]"]) == (16, 12)
    assert (extra["rank_in[3.0]"], extra["rank_out[3.0]"]) == (12, 36)
    assert extra["left_dense[6]"] == 1, "144 of 192 directions in are no saving in three layers"
    assert extra["left_dense[0.0]"] == 1, "nothing to remove from either side"


def test_uniform_ratios_and_stages() -> None:
    one = prune_wide(sparsity={"mode": "uniform", "ratio": 0.5}, selection="per_layer", realise="three_layer").extra
    assert (one["rank_in[1.0]"], one["rank_out[1.0]"]) == (12, 16)
    stages = {"8x8": 0.25, "4x4": 0.5, "1x1": 0.0}
    other = prune_wide(sparsity={"mode": "stage", "stages": stages}, realise="three_layer").extra
    assert (other["rank_in[1.0]"], other["rank_out[1.0]"]) == (18, 16)


def test_the_authors_ratio_counts_all_directions() -> None:
    extra = prune_wide(sparsity={"mode": "uniform", "ratio": 0.7}, ratio_limit=0.99, realise="three_layer").extra
    shapes = survey(problem_for("wide").model, EXAMPLE).shapes
    rewritten = [name for name in shapes if f"rank_in[{name}]" in extra]
    kept = sum(extra[f"rank_{side}[{name}]"] for name in rewritten for side in ("in", "out"))
    whole = sum(shapes[name].inputs + shapes[name].outputs for name in rewritten)
    assert rewritten and 0.2 < kept / whole < 0.45


# --- analyses --------------------------------------------------------------------------------------------------------


def test_one_analysis_serves_all_trials() -> None:
    store = Remembered()
    for seed, (target, variant) in enumerate([(0.5, "eigendamage"), (0.3, "eigendamage"), (0.4, "eigendamage_ek")]):
        method(target, variant=variant).prune(problem_for("vgg", seed=seed, analyses=store))
    assert sorted(store.computed) == ["eigenbases", "eigenbases", "kronecker_factors"]
    assert all(tensor.device.type == "cpu" for found in store.found.values() for tensor in found.values())
    before = list(store.computed)
    method(0.5, fisher_samples=10**6).prune(problem_for("vgg", analyses=store))
    assert store.computed == before, "more samples than there are change nothing"
    method(0.5, fisher_seed=1).prune(problem_for("vgg", analyses=store))
    assert len(store.computed) == len(before) + 2


def test_weight_space_shares_its_analyses_too() -> None:
    store = Remembered()
    for variant in ("kron_obd", "kron_obs", "c_obs"):
        for damping in (1e-3, 1e-1):
            method(0.5, variant=variant, damping=damping).prune(problem_for("vgg", analyses=store))
    assert sorted(store.computed) == ["input_eigenbases", "output_moments"]


@pytest.mark.parametrize("variant", ["eigendamage", "kron_obd"])
def test_analyses_do_not_depend_on_what_is_ignored(variant: str) -> None:
    store, chosen = Remembered(), method(0.7, variant=variant)
    chosen.preview(problem_for("vgg", analyses=store, ignored=frozenset({"2.0"})))
    before = list(store.computed)
    chosen.preview(problem_for("vgg", analyses=store))
    assert store.computed == before


def damage_of(chosen: EigenDamage, problem: Problem) -> float:
    damage = chosen.preview(problem).damage
    assert damage is not None
    return damage


def test_preview_is_what_prune_reports() -> None:
    for variant in ("eigendamage", "kron_obs"):
        given = problem_for("projection", analyses=Remembered())
        before = given.generator.get_state()
        chosen = method(0.4, variant=variant)
        seen = chosen.preview(given)
        assert torch.equal(given.generator.get_state(), before)
        pruned = chosen.prune(given)
        assert pruned.extra["predicted_damage"] == seen.damage
        assert damage_of(chosen, given) > 0
        assert (seen.flops, seen.params) == astuple(count(pruned.model, EXAMPLE))


def test_stronger_pruning_is_predicted_to_do_more_damage() -> None:
    given = problem_for("wide", analyses=SHARED)
    for variant in MEASURED:
        harms = [damage_of(method(target, variant=variant), given) for target in (1.0, 0.7, 0.5, 0.3)]
        assert harms == sorted(harms) and harms[0] == 0


@pytest.mark.parametrize("samples", [1, 20, 32, 40, 1000])
def test_sampling_takes_what_there_is(samples: int) -> None:
    sampling = Sampling.from_split(TRAIN, "mc", 2, samples, 32, seed=0)
    sizes = [len(labels) for _, labels in sampling.batches(TRAIN)]
    assert sum(sizes) == sampling.samples == min(samples, 64) and max(sizes) <= 32
    assert Sampling.from_split(TRAIN, "exact", 5, samples, 32, 0) == Sampling.from_split(
        TRAIN, "exact", 1, samples, 32, 0
    )
    one, other = (next(iter(sampling.batches(TRAIN)))[0] for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("eigendamage", ["covariances, by example", "eigenbases, by layer"]),
        (
            "eigendamage_ek",
            ["covariances, by example", "eigenbases, by layer", "variances in the eigenbasis, by example"],
        ),
        ("c_obd", ["Fisher diagonal, by example"]),
        ("c_obs", ["covariances, by example", "eigenbases, by layer"]),
        ("kron_obd", ["covariances, by example"]),
    ],
)
def test_analyses_tell_how_far_they_are(variant: Any, expected: list[str]) -> None:
    told: list[tuple[str, int, int]] = []

    def note_progress(what: str, done: int, total: int) -> None:
        told.append((what, done, total))

    method(0.6, variant=variant, fisher_samples=64).preview(problem_for("wide", progress=note_progress))
    assert list(dict.fromkeys(what for what, *_ in told)) == expected
    assert told[:2] == [(expected[0], 0, 64), (expected[0], told[1][1], 64)] and told[1][1] > 0


# --- training --------------------------------------------------------------------------------------------------------


def is_orthonormal(weight: Tensor) -> bool:
    square = weight.flatten(1) @ weight.flatten(1).T
    return bool((square - torch.eye(len(square))).abs().max() < 1e-4)


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("rounds", [1, 3])
def test_rotations_are_trained_or_not(rounds: int, trainable: bool) -> None:
    pruned = method(0.4, realise="three_layer", rotation_trainable=trainable, rounds=rounds).prune(
        problem_for("wide", steps=12)
    )
    chain = pruned.model.get_submodule("1.0")
    assert isinstance(chain, nn.Sequential) and len(chain) == 3
    first, last = chain[0].weight, chain[2].weight
    assert isinstance(first, Tensor) and isinstance(last, Tensor)
    assert (is_orthonormal(first) and is_orthonormal(last.transpose(0, 1))) == (not trainable)
    assert all(parameter.requires_grad for parameter in pruned.model.parameters())


def test_rounds_share_the_budget_and_arrive() -> None:
    reports: list[dict[str, float]] = []
    pruned = method(0.3, rounds=3, between_share=0.5).prune(problem_for("wide", steps=12, report=reports.append))
    assert [record["step"] for record in pruned.history][-1] == pruned.steps == 12
    assert {3, 6} <= {record["step"] for record in pruned.history}, "a quarter of the budget between rounds"
    assert reports == list(pruned.history)
    epochs = [record["epoch"] for record in pruned.history]
    assert epochs == list(range(1, len(epochs) + 1))
    assert 0.29 < pruned.extra["flops_share"] <= 0.3
    assert pruned.extra["flops_share"] * count(problem_for("wide").model, EXAMPLE).flops == pytest.approx(
        count(pruned.model, EXAMPLE).flops
    )


def test_rounds_without_steps_lead_to_the_same_size() -> None:
    ratio = {"mode": "uniform", "ratio": 0.6}
    settings: dict[str, Any] = {"selection": "per_layer", "realise": "three_layer"}
    once, thrice = (prune_wide(sparsity=ratio, **settings, rounds=rounds).extra for rounds in (1, 3))
    assert {name: rank for name, rank in once.items() if name.startswith("rank")} == {
        name: rank for name, rank in thrice.items() if name.startswith("rank")
    }
    for target in (0.6, 0.3):
        assert target - 0.01 < prune_wide(sparsity=target, **settings, rounds=4).extra["flops_share"] <= target


def test_layers_keep_three_parts_between_rounds() -> None:
    """A side that would be multiplied out with the core in the end is not rotated in vain before it."""
    conv = cases.seeded(lambda: nn.Conv2d(6, 8, 3, padding=1)).double()
    shapes = survey(nn.Sequential(conv, nn.Flatten()), torch.zeros(1, 6, 5, 5).double()).shapes
    basis = eigenbases({"0": Factors(torch.eye(6).double()[None], torch.eye(8).double()[None], 1)})["0"]
    theta = damage(blocks(core_of(conv).weight, 1), basis)
    analysis = {"0.columns": basis.inputs, "0.rows": basis.outputs, "0.damage": theta}
    space = Eigenspace(nn.Sequential(conv), shapes, analysis, Forms("cheapest"), rest=0)
    last = space.describe_choice([5, 2])["0"]
    assert last.form.segments == (2, 1) and (last.columns, last.rows) == (6, 2), "inputs are multiplied out: all stay"
    between = space.describe_choice([5, 2], final=False)["0"]
    assert (between.columns, between.rows) == (5, 2)
    assert between.damage == pytest.approx(float(theta.sum() - _keep_best(theta, 5, 2)), rel=1e-12)
    core = core_of(space.rewrite_in_three_parts({"0": between}).get_submodule("0"))
    assert tuple(core.weight.shape[:2]) == (2, 5)


def _keep_best(theta: Tensor, columns: int, rows: int) -> Tensor:
    """Add up what is left in the costliest columns and rows."""
    table = theta[0]
    chosen = table[table.sum(1).topk(rows).indices]
    return chosen[:, table.sum(0).topk(columns).indices].sum()


def test_separable_cores_are_depthwise() -> None:
    pruned = prune_wide(sparsity=0.2, separable=True, cp_rank_frac=0.5, als_iters=3)
    assert 0.19 < pruned.extra["flops_share"] <= 0.2
    assert pruned.extra["flops_share"] == count(pruned.model, EXAMPLE).flops / count(make_wide_net(), EXAMPLE).flops
    chain = pruned.model.get_submodule("1.0")
    assert isinstance(chain, nn.Sequential) and isinstance(chain[1], nn.Conv2d)
    assert chain[1].groups == chain[1].in_channels == chain[1].out_channels > 1
    assert 0 < pruned.extra["separation_error[1.0]"] < 1
    seen = method(0.2, separable=True, cp_rank_frac=0.5, als_iters=3).preview(problem_for("wide", analyses=SHARED))
    assert pruned.extra["predicted_damage"] == seen.damage
    pointwise = pruned.model.get_submodule("2.0")
    assert not any(isinstance(part, nn.Conv2d) and part.groups > 1 for part in pointwise.modules())


@pytest.mark.parametrize("groups", [1, 2])
def test_damage_of_a_separable_core_is_that_of_the_whole_change(groups: int) -> None:
    """Dropped directions and what the decomposition misses, against the quadratic form of the difference of weights."""
    conv = cases.seeded(lambda: nn.Conv2d(6, 8, 3, padding=1, groups=groups)).double()
    model = nn.Sequential(conv)
    halves = [torch.randn(groups, n, n, generator=torch.Generator().manual_seed(n)).double() for n in (6, 8)]
    moments = [(half @ half.mT)[:, : n // groups, : n // groups] for half, n in zip(halves, (6, 8), strict=True)]
    basis = eigenbases({"0": Factors(moments[0], moments[1], 1)})["0"]
    weight = blocks(core_of(conv).weight, groups)
    theta = damage(weight, basis)
    shapes = survey(nn.Sequential(conv, nn.Flatten()), torch.zeros(1, 6, 5, 5).double()).shapes
    analysis = {"0.columns": basis.inputs, "0.rows": basis.outputs, "0.damage": theta}
    space = Eigenspace(model, shapes, analysis, Forms("cheapest", 0.7), rest=0)
    kept = space.describe_choice([6 // groups - 1, 8 // groups - 1])
    built = space.rewrite(kept, 20, torch.Generator().manual_seed(0))
    chain = built.model.get_submodule("0")
    assert isinstance(chain, nn.Sequential)
    whole = realise(chain, (3,))
    assert isinstance(whole, nn.Conv2d)
    change = blocks(whole.weight, groups) - weight
    harm = float(torch.einsum("godi,gop,gpdj,gij->", change, moments[1], change, moments[0])) / 2
    assert built.separation_damage > 0 < kept["0"].damage
    assert kept["0"].damage + built.separation_damage == pytest.approx(harm, rel=1e-9)


# --- which layers ----------------------------------------------------------------------------------------------------


def test_layers_left_dense_are_listed() -> None:
    pruned = method(0.6).prune(problem_for("depthwise"))
    assert pruned.extra["left_dense[1.body.1.0]"] == 1, "a depthwise convolution has nothing to rotate"
    assert pruned.extra["left_dense[5]"] == 1, "the classifier"
    listed = [name for name in pruned.extra if name.startswith("left_dense[")]
    assert pruned.extra["layers_left_dense"] == len(listed)
    named = {name.removeprefix("left_dense[").removesuffix("]") for name in listed}
    rewritten = {name[len("rank_in[") : -1] for name in pruned.extra if name.startswith("rank_in[")}
    weighted = {
        name
        for name, module in problem_for("depthwise").model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    assert named | rewritten == weighted and not named & rewritten


def test_first_last_and_ignored_layers() -> None:
    extra = prune_wide(sparsity=0.5, prune_last=True).extra
    assert "rank_in[0.0]" in extra or "left_dense[0.0]" in extra
    strong: dict[str, Any] = {"sparsity": {"mode": "uniform", "ratio": 0.9}, "realise": "cheapest"}
    assert "rank_in[0.0]" in prune_wide(**strong).extra and "left_dense[8]" in prune_wide(**strong).extra
    assert "left_dense[0.0]" in prune_wide(**strong, prune_first=False).extra
    assert "rank_in[8]" in prune_wide(**strong, prune_last=True).extra
    ignoring = problem_for("wide", analyses=SHARED, ignored=frozenset({"1.0"}))
    pruned = method(**strong).prune(ignoring)
    assert pruned.extra["left_dense[1.0]"] == 1
    assert torch.equal(pruned.model.get_parameter("1.0.weight"), ignoring.model.get_parameter("1.0.weight"))


def test_nothing_removed_is_the_dense_network() -> None:
    for sparsity in (1.0, {"mode": "uniform", "ratio": 0.0}):
        given = problem_for("wide", recipe=Recipe(recalibrate=0), analyses=SHARED)
        pruned = method(sparsity).prune(given)
        assert pruned.extra["predicted_damage"] == 0
        assert torch.equal(pruned.model(VALIDATION.inputs), given.model(VALIDATION.inputs))


# --- weight space ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        ("c_obd", {}),
        ("c_obs", {}),
        ("c_obs", {"obs_update": "independent"}),
        ("kron_obd", {"score_norm": "per_mac"}),
        ("kron_obs", {"obs_update": "independent", "score_norm": "per_param"}),
        ("kron_obs", {"score_norm": "layer_sum"}),
    ],
)
def test_weight_space_cuts_channels(variant: str, settings: dict[str, Any]) -> None:
    for net in ("projection", "grouped", "depthwise"):
        given = problem_for(net)
        pruned = method(0.5, variant=variant, **settings).prune(given)
        share = count(pruned.model, EXAMPLE).flops / count(given.model, EXAMPLE).flops
        assert pruned.extra["flops_share"] == share <= 0.5
        assert pruned.extra["predicted_damage"] > 0 and pruned.extra["layers_left_dense"] == 0
        assert any(len(units) < 16 for units in pruned.kept.values())


def test_a_units_price_is_what_its_removal_saves() -> None:
    given = problem_for("projection")
    for norm in get_args(ScoreNorm):
        prices = _prices(given.model, given.groups, given.cost, norm)
        for group in given.groups:
            smaller = cut(given.model, given.groups, {group.name: list(range(1, group.channels))})
            before, after = count(given.model, EXAMPLE), count(smaller, EXAMPLE)
            saved = {"per_mac": before.flops - after.flops, "per_param": before.params - after.params}
            saved["marginal"] = saved["per_mac"]
            assert prices[group.name] == saved.get(norm, 1), (norm, group.name)


def test_joint_surgery_is_predicted_to_do_least() -> None:
    given = problem_for("vgg", analyses=Remembered())
    ratio = {"mode": "uniform", "ratio": 0.5}
    harms = {
        update: damage_of(
            method(ratio, variant="kron_obs", obs_update=update, damping=1e-8, selection="per_layer"), given
        )
        for update in ("joint", "independent")
    }
    assert harms["joint"] < harms["independent"]


def test_surgery_mends_a_network_with_a_filter_twice() -> None:
    """The copy makes up for the filter that goes, as far as the Fisher matrix knows."""
    given = problem_for("linear")
    middle = given.model.get_submodule("3")
    assert isinstance(middle, nn.Linear)
    kept = method({"mode": "layer", "layers": {"1": 0.0, "3": 0.5}}, variant="kron_obs", damping=1e-6)
    surgery, deletion = (
        damage_of(kept, given),
        damage_of(kept.model_copy(update={"variant": "kron_obd"}), given),
    )
    assert surgery < deletion


def test_groups_of_other_layers_stay_whole() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 2, 2),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, cases.CLASSES),
    )
    given = problem_for("plain", model=cases.seeded(lambda: copy.deepcopy(model)))
    pruned = method({"mode": "uniform", "ratio": 0.5}, variant="kron_obd", selection="per_layer").prune(given)
    assert {name: len(units) for name, units in pruned.kept.items()} == {"0": 4, "2": 6, "4": 4}
    assert pruned.extra["left_dense[2]"] == 1
    assert method(0.8).prune(given).extra["left_dense[2]"] == 1


# --- bad input -------------------------------------------------------------------------------------------------------


def test_unreachable_targets_say_what_can_be_reached() -> None:
    never = Remembered()
    given = problem_for("wide", analyses=never)
    with pytest.raises(InputError, match=r"flops = 0.1 cannot be reached; .* smallest share is 0\.\d+") as error:
        method(0.1, ratio_limit=0.5).prune(given)
    assert never.computed == [], "known before anything is looked at"
    smallest = float(str(error.value).rpartition(" ")[2])
    reached = method(smallest, ratio_limit=0.5).prune(problem_for("wide", analyses=SHARED))
    assert reached.extra["flops_share"] == pytest.approx(smallest, abs=2e-3)
    with pytest.raises(InputError, match="cannot be reached"):
        method(0.01, variant="kron_obd", ratio_limit=0.3).prune(problem_for("vgg"))


def test_networks_with_nothing_to_rewrite() -> None:
    model = cases.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, cases.CLASSES)))
    never = Remembered()
    with pytest.raises(
        InputError, match=r"nothing to rewrite in Sequential \(1: it is the first layer; 3: it is the last layer"
    ):
        method(0.5, prune_first=False).prune(problem_for("plain", model=model, analyses=never))
    assert never.computed == []


def test_what_cannot_work_is_said_before_anything_is_trained() -> None:
    given = problem_for("wide")
    method(0.3).check(given)
    with pytest.raises(InputError, match=r"flops = 0.001 cannot be reached; .* smallest share is 0\.\d+"):
        method(0.001).check(given)


def test_contradictions_are_refused() -> None:
    for settings in ({"rounds": 2}, {"separable": True}):
        with pytest.raises(InputError, match=r"rounds and separable need a variant that rotates.*'eigendamage'"):
            EigenDamage.from_point({"sparsity.mode": "flops", "sparsity.flops": 0.5, "variant": "c_obd", **settings})
    with pytest.raises(InputError, match=r"ratio_limit = 1.0 is not allowed"):
        EigenDamage.from_point({"sparsity.mode": "flops", "sparsity.flops": 0.5, "ratio_limit": 1.0})


@pytest.mark.parametrize("variant", [*MEASURED, *SURGERY])
def test_every_variant_names_the_layer_where_values_stop_being_finite(variant: Any) -> None:
    given = problem_for("vgg")
    broken = copy.deepcopy(given.model)
    with torch.no_grad():
        broken.get_submodule("2.1").bias.fill_(torch.nan)  # type: ignore[operator]
    with pytest.raises(InputError, match=r"the outputs of layer '2.1' \(BatchNorm2d\) are not finite"):
        method(variant=variant, fisher_samples=32).prune(replace(given, model=broken))


def test_points_of_the_space_run() -> None:
    layers = [group.layer for group in channel_groups(problem_for("vgg").model, EXAMPLE)]
    space, rng, store = EigenDamage.space(layers), Random(1), Remembered()
    variants = set()
    for _ in range(8):
        point = space.sample(rng) | {"als_iters": 10}
        point = {name: value for name, value in point.items() if name != "als_iters" or point.get("separable")}
        if point["sparsity.mode"] == "flops":
            point |= {"sparsity.flops": 0.5, "sparsity.tilt": 0.1}
        chosen = EigenDamage.from_point(space.check(point))
        pruned = chosen.prune(problem_for("vgg", analyses=store))
        variants.add(chosen.variant)
        assert bool(pruned.model(VALIDATION.inputs).isfinite().all())
    assert len(variants) > 2


def test_a_directions_price_is_what_its_removal_saves() -> None:
    """By hand, for three layers: an input direction saves its part of the first 1x1 layer and of the core."""
    shape = Shape(inputs=6, outputs=20, groups=1, kernel=9, pixels_in=100, pixels_out=25, bias=False, depth=0.0)
    damages = torch.ones(21, 7)
    found = Directions(torch.arange(6)[None], torch.arange(20)[None], torch.ones(6), torch.ones(20), damages)
    column, row = _divisors(shape, found, "per_mac")
    assert column == 6 * 100 + 20 * 9 * 25  # 6 weights at every input pixel, 20 x 9 at every output pixel
    assert row == 6 * 9 * 25 + 20 * 25
    assert _divisors(shape, found, "per_param") == (6 + 20 * 9, 6 * 9 + 20)
    assert _divisors(shape, found, "none") == (1.0, 1.0)
    assert _divisors(shape, replace(found, kept_damage=torch.arange(21 * 7).view(21, 7)), "layer_sum") == (146, 146)
