"""Matrix pivoting on whole networks."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.contract.method import Problem
from methods.network.architecture import describe, rebuild
from methods.network.cost import count, layer_flops
from methods.pivoting import division
from methods.pivoting.arrangement import Arrangement
from methods.pivoting.block_budget import (
    Limits,
    _pivot_layer,
    candidates,
    is_compatible,
    loss_damage,
    tilt_damages,
)
from methods.pivoting.block_matrices import Pivots, Structure
from methods.pivoting.blocking import DENSE, Choice, Shape, allocate, choices, choose_nearest
from methods.pivoting.blocks import PivotedConv2d, PivotedLinear, count_moved_bytes, keep_blocks
from methods.pivoting.channel_spaces import channel_spaces
from methods.pivoting.concentration import Concentration, Scores, noise, share_retained, survivors
from methods.pivoting.division import FINEST
from methods.pivoting.method import Pivoting
from methods.pivoting.mixing import find_unmixed_layers, is_mixed
from methods.pivoting.pivoted_network import (
    Coupling,
    Plan,
    apply_masks,
    compact,
    count_separate_gathers,
    failures,
    plan_for,
    repair_mixing,
    specs,
)
from methods.pivoting.pivots import sample_pivots, search
from methods.training.damage import keep_by_damage
from methods.training.trainer import Recipe, Trainer
from spaces import ByDamage, FlopsTarget, InputError
from tests.methods import cases
from tests.methods.pivoting.test_permutations import BARRIERS, Deciding, Halved, RandomNet

EXAMPLE = torch.zeros(1, *cases.IMAGE)
TRAIN = cases.blobs(cases.IMAGE, 96)
VALIDATION = cases.blobs(cases.IMAGE, 40, seed=1, noise=0)
WAYS: list[tuple[Structure, Coupling]] = [
    ("block_diag", "perfect_shuffle"),
    ("block_diag", "free"),
    ("block_sparse", "shared_order"),
    ("block_sparse", "free"),
    ("bsr", "shared_order"),
    ("bsr", "free"),
]


def concatenating_net() -> nn.Module:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one, self.two = cases.conv_bn(3, 8), cases.conv_bn(8, 8), cases.conv_bn(16, 16)
            self.head = nn.Linear(32, cases.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            z = torch.cat([y, self.one(y)], 1)
            return self.head(torch.cat([z, self.two(z)], 1).mean([2, 3]))  # type: ignore[no-any-return]

    return Dense()


NETS: dict[str, Callable[[], nn.Module]] = {**cases.NETS, "concatenating": concatenating_net}


def make_plan(
    model: nn.Module, structure: Structure, coupling: Coupling, seed: int = 0, degree: int = 2
) -> tuple[Plan, Pivots]:
    """Block every layer that can be, as sparse as goes together, by random pivots."""
    sample = next(model.parameters())
    spaces = channel_spaces(model, EXAMPLE.to(sample.dtype))
    found = candidates(model, EXAMPLE.to(sample.dtype), spaces, Limits(structure, 2, degree, None))
    chosen: dict[str, Choice] = {}
    for shape in found.shapes:
        fitting = [o for o in found.options[shape.name] if is_compatible(spaces, coupling, {**chosen, shape.name: o})]
        chosen[shape.name] = fitting[-1]
    plan = plan_for(spaces, chosen, structure, coupling)
    scores = {
        n: np.random.default_rng(seed).random(m.scores.shape) for n, m in zip(plan.names, plan.matrices, strict=True)
    }
    pivots = sample_pivots(plan.fill_scores(scores), plan.slots, seed, plan.still)
    plan, pivots, _ = repair_mixing(plan, pivots, scores, seed)
    return plan, pivots


def make_twins(
    build: Callable[[], nn.Module], structure: Structure, coupling: Coupling, seed: int = 0
) -> tuple[nn.Module, ...]:
    """A network with masks, the same as blocks, and the plan behind both."""
    dense = cases.seeded(build, seed, trained=True).double()
    plan, pivots = make_plan(dense, structure, coupling, seed)
    masked = copy.deepcopy(dense)
    apply_masks(masked, plan.masks(pivots))
    return dense, masked, compact(dense, plan, pivots)


def arrangements(model: nn.Module) -> list[Arrangement]:
    return [module for module in model.modules() if isinstance(module, Arrangement)]


def problem_for(net: str = "vgg", steps: int = 20, seed: int = 0, **changes: object) -> Problem:
    problem = Problem(
        model=cases.seeded(NETS[net], trained=True),
        example=EXAMPLE,
        train=TRAIN,
        validation=VALIDATION,
        recipe=Recipe(lr=0.05, batch_size=32, recalibrate=2),
        steps=steps,
        generator=torch.Generator().manual_seed(seed),
        known=cases.find_anatomy(NETS[net]),
    )
    return replace(problem, **changes)  # type: ignore[arg-type]


def method(**fields: object) -> Pivoting:
    """Make the method; blocks alone, at once, unless the fields say otherwise."""
    usual = {"sparsity": {"mode": "uniform", "ratio": 0.4}, "min_side": 2, **Pivoting.preset("paper")}
    return Pivoting.model_validate(usual | fields)


@pytest.mark.parametrize(("structure", "coupling"), WAYS)
@pytest.mark.parametrize("net", NETS)
def test_oracle_01_network_of_blocks_equals_the_masked_one(net: str, structure: Structure, coupling: Coupling) -> None:
    dense, masked, blocks = make_twins(NETS[net], structure, coupling)
    x = VALIDATION.inputs[:6].double()
    torch.testing.assert_close(blocks(x), masked(x), rtol=0, atol=1e-12)
    if arrangements(blocks):
        assert not torch.allclose(dense(x), masked(x))
        torch.testing.assert_close(copy.deepcopy(blocks).float()(x.float()), masked(x).float(), rtol=0, atol=1e-5)


def test_oracle_02_random_graphs_become_blocks() -> None:
    for seed in range(12):
        way = WAYS[seed % len(WAYS)]
        _, masked, blocks = make_twins(lambda s=seed: RandomNet(s, barriers=s % 2 == 0), *way, seed=seed)  # type: ignore[misc]
        x = VALIDATION.inputs[:3].double()
        torch.testing.assert_close(blocks(x), masked(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("barrier", ["flip", "shuffle", "permute"])
def test_oracle_02_barriers_force_gathers(barrier: str) -> None:
    _, masked, blocks = make_twins(lambda: Halved(BARRIERS[barrier]), "block_diag", "perfect_shuffle")
    x = VALIDATION.inputs[:3].double()
    torch.testing.assert_close(blocks(x), masked(x), rtol=0, atol=1e-12)
    assert [a.gathers for a in arrangements(blocks)] == [1]


def test_oracle_02_untraceable_networks_keep_their_gathers_and_say_so() -> None:
    class Deep(Deciding):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(cases.conv_bn(3, 8), cases.conv_bn(8, 8), cases.conv_bn(8, 8))

    _, masked, blocks = make_twins(Deep, "block_diag", "perfect_shuffle")
    x = VALIDATION.inputs[:3].double()
    torch.testing.assert_close(blocks(x), masked(x), rtol=0, atol=1e-12)
    assert [a.gathers for a in arrangements(blocks)] == [2, 2]  # inputs and outputs of both
    pruned = method().prune(problem_for(steps=0, model=cases.seeded(Deep, trained=True)))
    assert pruned.extra["untraceable"] == 1.0 and pruned.extra["gathers"] == 4.0
    assert method().prune(problem_for(steps=0)).extra["untraceable"] == 0.0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_oracle_05_training_blocks_is_training_with_masks(optimizer: str) -> None:
    """Masked gradients and weights against the compact form: 20 steps, the same numbers."""
    recipe = Recipe.model_validate({"optimizer": optimizer, "lr": 0.02, "batch_size": 16, "weight_decay": 1e-3})
    train = cases.blobs(cases.IMAGE, 64, dtype=torch.float64)
    for net, structure, coupling in (("projection", *WAYS[0]), ("zero_pad", *WAYS[4]), ("linear", *WAYS[3])):
        dense = cases.seeded(NETS[net], trained=True).double()
        plan, pivots = make_plan(dense, structure, coupling)
        masks = plan.masks(pivots)
        blocks = compact(dense, plan, pivots)
        apply_masks(dense, masks)
        trainer = Trainer(dense, train, recipe, 20, seed=3)
        for step in range(1, 21):
            trainer.run(until=step)
            apply_masks(dense, masks)
            for name, mask in masks.items():
                weight = dense.get_submodule(name).weight
                assert isinstance(weight, nn.Parameter)
                for state in trainer.optimizer.state[weight].values():
                    if isinstance(state, Tensor) and state.shape == weight.shape:
                        state.mul_(torch.from_numpy(mask).reshape(*mask.shape, *[1] * (weight.ndim - 2)))
        Trainer(blocks, train, recipe, 20, seed=3).run()
        x = VALIDATION.inputs[:8].double()
        torch.testing.assert_close(blocks(x), dense(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("structure", "coupling"), WAYS)
def test_oracle_06_flops_counted_are_dense_times_density(structure: Structure, coupling: Coupling) -> None:
    for net in ("projection", "depthwise", "linear"):
        dense = cases.seeded(NETS[net], trained=True)
        plan, pivots = make_plan(dense, structure, coupling)
        blocks = compact(dense, plan, pivots)
        before, after = layer_flops(dense, EXAMPLE), layer_flops(blocks, EXAMPLE)
        for name, macs in before.items():
            matrix = dict(zip(plan.names, plan.matrices, strict=True)).get(name)
            cells = 1 if matrix is None else matrix.rows.clusters * matrix.columns.clusters
            assert after[name] * cells == macs * (1 if matrix is None else matrix.blocks), name
        saved = sum(int((~mask).sum()) * (9 if _kernel(dense, n) == 3 else 1) for n, mask in plan.masks(pivots).items())
        assert count(dense, EXAMPLE).params - count(blocks, EXAMPLE).params == saved
        assert (count_moved_bytes(blocks, EXAMPLE) > 0) == any(a.reading != "natural" for a in arrangements(blocks))


def _kernel(model: nn.Module, name: str) -> int:
    layer = model.get_submodule(name)
    return layer.kernel_size[0] if isinstance(layer, nn.Conv2d) else 1


@pytest.mark.parametrize(("structure", "coupling"), WAYS)
@pytest.mark.parametrize("net", ["zero_pad", "depthwise", "concatenating"])
def test_oracle_07_shared_orders_leave_no_gather(net: str, structure: Structure, coupling: Coupling) -> None:
    _, _, blocks = make_twins(NETS[net], structure, coupling)
    gathers = [a.gathers for a in arrangements(blocks)]
    if coupling == "free":
        assert all(gather <= 1 for gather in gathers)  # one for every layer that reads
    else:
        assert sum(gathers) == 0
        readings = {a.reading for a in arrangements(blocks)}
        assert readings <= ({"shuffle"} if coupling == "perfect_shuffle" else {"slabs", "natural"})


@pytest.mark.parametrize(("structure", "coupling"), WAYS)
@pytest.mark.parametrize("net", ["zero_pad", "concatenating"])
def test_oracle_07_layers_alone_gather_before_and_after(net: str, structure: Structure, coupling: Coupling) -> None:
    """What folding saves is counted on a network that computes the same without it."""
    dense = cases.seeded(NETS[net], trained=True).double()
    plan, pivots = make_plan(dense, structure, coupling)
    alone, masked = copy.deepcopy(dense), copy.deepcopy(dense)
    apply_masks(masked, plan.masks(pivots))
    for name, spec in specs(plan, pivots, reordered=False).items():
        layer = alone.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        alone.set_submodule(name, keep_blocks(layer, spec))
    x = VALIDATION.inputs.double()
    torch.testing.assert_close(alone(x), masked(x), rtol=0, atol=1e-12)
    before = count_separate_gathers(plan, pivots)
    assert before == sum(a.gathers for a in arrangements(alone))
    assert before > sum(a.gathers for a in arrangements(compact(dense, plan, pivots)))


def test_oracle_08_aligned_partitions_do_not_mix() -> None:
    classes = np.arange(16) % 4
    aligned = classes[:, None] == classes[None]
    crossed = classes[:, None] == (np.arange(16) // 4)[None]
    assert not is_mixed([aligned, aligned]) and is_mixed([aligned, crossed]) and not is_mixed([aligned])
    model = nn.Sequential(*(nn.Conv2d(c, 16, 1) for c in (3, 16, 16)), nn.Flatten(), nn.Linear(16 * 64, 4))
    spaces = channel_spaces(model, EXAMPLE)
    fans = {"1": 4, "2": 4}

    def list_failing(one: np.ndarray, other: np.ndarray) -> list[str]:
        return find_unmixed_layers(spaces.order, {"1": one, "2": other}, spaces.reads, spaces.makes, fans)

    assert list_failing(aligned, aligned) == ["2"]
    assert list_failing(aligned, crossed) == []


@pytest.mark.parametrize(("structure", "coupling"), WAYS)
def test_oracle_08_networks_mix(structure: Structure, coupling: Coupling) -> None:
    """What a search finds is repaired if it does not mix: scores here ask for aligned blocks."""
    model = nn.Sequential(*(nn.Conv2d(c, 16, 1) for c in (3, 16, 16, 16, 16)), nn.Flatten(), nn.Linear(16 * 64, 4))
    plan, _ = make_plan(model, structure, coupling)
    classes = np.arange(16) // (4 if structure == "block_diag" else 8)
    scores = {name: (classes[:, None] == classes[None]) + 1e-6 for name in plan.names}
    spaces = plan.spaces
    plan = plan_for(spaces, dict.fromkeys(plan.names, _choice(plan)), structure, coupling)
    pivots = search(plan.fill_scores(scores), plan.slots, still=plan.still)
    if coupling != "perfect_shuffle":
        assert failures(plan, pivots), "these scores ask for networks that know nothing of each other"
    mended_plan, found, failing = repair_mixing(plan, pivots, scores, 0)
    assert failing == [] and failures(mended_plan, found) == []


def _choice(plan: Plan) -> Choice:
    matrix = plan.matrices[0]
    return Choice(4, 4, 4) if matrix.structure == "block_diag" else Choice(4, 4, 8)


def test_oracle_09_dense_choices_change_nothing() -> None:
    model = cases.seeded(NETS["projection"], trained=True)
    spaces = channel_spaces(model, EXAMPLE)
    plan = plan_for(spaces, dict.fromkeys(spaces.order, DENSE), "block_diag", "perfect_shuffle")
    assert plan.names == ()
    same = compact(model, plan, Pivots(tuple(np.arange(n) for n in spaces.sizes), (), (), ()))
    assert torch.equal(same(VALIDATION.inputs), model(VALIDATION.inputs))
    pruned = method(sparsity={"mode": "uniform", "ratio": 0.0}).prune(problem_for("projection", steps=0))
    assert not arrangements(pruned.model) and pruned.extra["flops_share"] == 1.0


# --- choices and budgets ---


def test_choices_follow_the_rules() -> None:
    assert choices(64, 32, "block_diag", 8, 1) == [DENSE, Choice(2, 2, 2), Choice(4, 4, 4)]
    assert choices(64, 24, "block_diag", 8, 1) == [DENSE, Choice(2, 2, 2)]
    assert choices(64, 25, "block_diag", 1, 1) == [DENSE]
    assert choices(64, 64, "block_sparse", 16, 2) == [DENSE, Choice(4, 4, 8)]
    assert [c.blocks for c in choices(64, 64, "bsr", 8, 2, side=16)] == [1, 12, 8]
    assert choices(64, 64, "bsr", 32, 2, side=16) == [DENSE]
    for choice in choices(48, 96, "block_sparse", 4, 2):
        assert 48 % choice.row_clusters == 96 % choice.column_clusters == 0
        assert choice == DENSE or choice.blocks >= choice.column_clusters


def test_what_is_never_blocked() -> None:
    for net, first, last in (("vgg", "0.0", "7"), ("depthwise", "0.0", "5"), ("grouped", "0.0", "5")):
        model = cases.seeded(NETS[net])
        found = candidates(model, EXAMPLE, channel_spaces(model, EXAMPLE), Limits("block_diag", 1, 1, None))
        names = {shape.name for shape in found.shapes}
        assert not names & {first, last}
        assert all(getattr(model.get_submodule(name), "groups", 1) == 1 for name in names)
        assert found.rest + sum(shape.flops for shape in found.shapes) == count(model, EXAMPLE).flops


def test_budgets_go_where_they_do_least_damage() -> None:
    shapes = [Shape(name, 64, 64, 4096, depth) for name, depth in (("a", 0.0), ("b", 1.0))]
    options = {shape.name: choices(64, 64, "block_diag", 8, 1) for shape in shapes}

    def damage(name: str, choice: Choice) -> float:
        return (1 - choice.density) * (10 if name == "a" else 1)

    def total(found: Mapping[str, Choice]) -> int:
        return 100 + sum(choice.count_left(4096) for choice in found.values())

    anything: Callable[[Mapping[str, Choice]], bool] = lambda chosen: True  # noqa: E731
    found = allocate(shapes, options, damage, 100, 0.6 * 8292, anything)
    assert found is not None and found["a"] == DENSE and found["b"].density == 0.125
    for share in (1.0, 0.7, 0.5, 0.3, 0.2):
        found = allocate(shapes, options, damage, 100, share * 8292, anything)
        assert found is not None and total(found) <= share * 8292
        relaxed = [
            total({**found, name: option})
            for name in options
            for option in options[name]
            if option.density > found[name].density
        ]
        assert all(more > share * 8292 for more in relaxed), "something could be given back"
    assert allocate(shapes, options, damage, 100, 0.1 * 8292, anything) is None
    assert allocate(shapes, options, damage, 100, 4500, lambda chosen: chosen["a"] == DENSE) is None
    near = choose_nearest(shapes, options, {"a": 0.3, "elsewhere": 0.1}, anything)
    assert near["a"].density == 0.25 and near["b"] == DENSE


# --- the method ---


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_flops_targets_are_met_from_below_and_reported(share: float) -> None:
    problem = problem_for("zero_pad", steps=2)
    pruned = method(sparsity={"mode": "flops", "flops": share}).prune(problem)
    reached = count(pruned.model, EXAMPLE).flops / count(problem.model, EXAMPLE).flops
    assert 0.7 * share <= reached <= share
    assert pruned.extra["flops_share"] == pytest.approx(reached)
    densities = {key: value for key, value in pruned.extra.items() if key.startswith("density")}
    assert densities and all(v == 1 / pruned.extra[k.replace("density", "blocks")] for k, v in densities.items())


def test_channels_and_blocks_combine() -> None:
    pruned = method(sparsity={"mode": "flops", "flops": 0.3}, channel_share=0.5).prune(problem_for("zero_pad", steps=2))
    assert 0.3**0.5 * 0.7 <= pruned.extra["flops_share_channels"] <= 0.3**0.5
    assert arrangements(pruned.model) and pruned.extra["flops_share"] <= 0.3
    assert any(len(units) < 8 for units in pruned.kept.values())
    halved = method(sparsity={"mode": "uniform", "ratio": 0.5}, channel_share=1.0).prune(problem_for(steps=0))
    assert [len(units) for units in halved.kept.values()] == [4, 6, 8] and not arrangements(halved.model)


def test_channels_may_go_where_blocks_are_slow() -> None:
    """A negative tilt takes channels from early layers, whatever the tilt of the blocks."""
    sparsity = {"mode": "flops", "flops": 0.3, "tilt": 1.0}
    left = {}
    for tilt in (None, 1.0, -1.0):
        problem = problem_for("vgg", steps=0)
        pruned = method(sparsity=sparsity, channel_share=0.5, channel_tilt=tilt).prune(problem)
        assert pruned.extra["flops_share"] <= 0.3 and pruned.extra["flops_share_channels"] <= 0.3**0.5
        dense = [m.out_channels for m in problem.model.modules() if isinstance(m, nn.Conv2d)]
        left[tilt] = [len(units) / width for units, width in zip(pruned.kept.values(), dense, strict=False)]
    assert left[None] == left[1.0]
    assert left[1.0][0] > left[1.0][-1] and left[-1.0][0] < left[-1.0][-1]


def test_channels_help_where_blocks_do_not_reach() -> None:
    pruned = method(sparsity={"mode": "flops", "flops": 0.2}, min_side=8).prune(problem_for("depthwise", steps=0))
    assert pruned.extra["flops_share"] <= 0.2 and pruned.extra["flops_share_channels"] < 1
    with pytest.raises(InputError, match=r"flops = 0.001 cannot be reached by blocks of at least 2 channels a side"):
        method(sparsity={"mode": "flops", "flops": 0.001}).prune(problem_for("depthwise", steps=0))


def make_wide_net() -> nn.Module:
    return nn.Sequential(
        cases.conv_bn(3, 16),
        cases.conv_bn(16, 16),
        cases.conv_bn(16, 16),
        cases.conv_bn(16, 16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, cases.CLASSES),
    )


def test_narrower_blocks_come_before_channels() -> None:
    problem = replace(problem_for(steps=0), model=cases.seeded(make_wide_net, trained=True))
    found = {}
    for share in (0.6, 0.4):
        pruned = method(sparsity={"mode": "flops", "flops": share}, min_side=8).prune(problem)
        assert pruned.extra["channel_share"] == 0 and pruned.extra["blocked"] > 0
        found[share] = pruned.extra["side"]
    assert found == {0.6: 8, 0.4: 4}
    wide = method(sparsity={"mode": "flops", "flops": 0.4}, min_side=8, least_side=8).prune(problem)
    assert wide.extra["side"] == 8 and wide.extra["channel_share"] > 0


def test_channels_go_where_that_does_least_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the reduction, by widths that an allocation by damage makes for that half; blocks do the rest."""
    monkeypatch.setattr(division, "SPENT", 0.0)  # and nothing of it is given back to channels
    problem = replace(problem_for(steps=0), model=cases.seeded(make_wide_net, trained=True))
    asked = {"mode": "damage", "flops": 0.25}
    chosen = method(sparsity=asked, channel_share=0.5, least_side=2)
    pruned = chosen.prune(problem)
    wanted = keep_by_damage(problem, ByDamage(flops=0.5), problem.groups, 4)
    assert {name: len(units) for name, units in pruned.kept.items()} == wanted
    equal = method(sparsity=asked | {"mode": "flops"}, channel_share=0.5, least_side=2).prune(problem)
    assert {name: len(units) for name, units in equal.kept.items()} != wanted
    assert pruned.extra["channel_share"] == pytest.approx(0.5, abs=0.05) and pruned.extra["blocked"] > 0
    left, seen = count(pruned.model, problem.example), chosen.preview(problem)
    assert (seen.flops, seen.params) == (left.flops, left.params) and left.flops <= 0.25 * problem.cost.dense


def test_damage_of_stages_that_do_not_exist_is_refused() -> None:
    wrong = method(sparsity={"mode": "damage", "flops": 0.5, "damage_weights": {"nowhere": 1.0}})
    with pytest.raises(InputError, match="unknown stage 'nowhere'"):
        wrong.prune(problem_for(steps=0))
    with pytest.raises(ValueError, match="keeps every residual block"):
        method(sparsity={"mode": "damage", "flops": 0.5, "blocks": True})


@pytest.mark.parametrize("share", [0.2, 0.15, 0.12])
def test_no_more_channels_go_than_must(share: float) -> None:
    """Whatever the target: with a little less done by channels, blocks would not reach it."""
    problem = replace(problem_for(steps=0), model=cases.seeded(make_wide_net, trained=True))
    whole = method(sparsity={"mode": "flops", "flops": share}, min_side=8)
    target = whole.sparsity
    assert isinstance(target, FlopsTarget)
    division = whole.divide(problem)
    split = next(division.yield_splits(target))
    assert 0 < split.share < 1
    for less in (1.5 * FINEST, 0.5 * split.share):
        assert not list(division.yield_reached(split.share - less, 4, target))
    with pytest.warns(UserWarning, match=rf"blocks of at least 4 .* do not reach {share} .* {split.share:.0%} of the"):
        whole.check(problem)
    pruned = whole.prune(problem)
    assert pruned.extra["flops_share"] <= share
    assert pruned.extra["channel_share"] == pytest.approx(split.share, abs=0.15)


def make_perceptron() -> nn.Module:
    """Its widths have few divisors in common, so that blocks come in few sizes."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 96), nn.ReLU(), nn.Linear(96, 40), nn.ReLU(), nn.Linear(40, cases.CLASSES)
    )


@pytest.mark.parametrize("share", [0.5, 0.35, 0.25, 0.125])
def test_what_blocks_save_beyond_the_target_is_given_back_to_channels(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    problem = replace(problem_for(steps=0), model=cases.seeded(make_perceptron), known=None)
    asked: dict[str, object] = {"sparsity": {"mode": "flops", "flops": share}, "channel_share": 0.5}
    seen = method(**asked).preview(problem)
    pruned = method(**asked).prune(problem)
    assert 0.95 * share < pruned.extra["flops_share"] <= share
    assert pruned.extra["flops_share"] == seen.flops / problem.cost.dense
    monkeypatch.setattr(division, "SPENT", 0.0)  # nothing is given back
    before = method(**asked).prune(problem).extra
    assert before["flops_share"] < pruned.extra["flops_share"]
    assert before["flops_share_channels"] < pruned.extra["flops_share_channels"]


def test_damage_is_the_rise_of_the_mean_loss() -> None:
    """However many batches there are, and however they are cut; it is what a network with that mask loses."""
    model = cases.seeded(cases.NETS["vgg"], trained=True).eval()
    weights = {name: model.get_parameter(f"{name}.weight").detach() for name in ("2.0", "4.0")}
    scores = {name: weight.double().square().sum((2, 3)).numpy() for name, weight in weights.items()}
    with torch.no_grad():
        answers = model(VALIDATION.inputs).argmax(1)  # any change of the network costs something
        whole = [(VALIDATION.inputs, answers)]
    cut = list(zip(VALIDATION.inputs.split(7), answers.split(7), strict=True))
    choice = Choice(2, 2, 2)
    rises = []
    for batches in (whole, cut, 3 * whole):
        damage = loss_damage(model, batches, scores, "block_diag")
        rises.append([damage(name, choice) for name in scores])
        assert damage("2.0", DENSE) == 0
    assert rises[1] == pytest.approx(rises[0], rel=1e-4) and rises[2] == pytest.approx(rises[0], rel=1e-4)
    for name, rise in zip(scores, rises[0], strict=True):
        kept, retained = _pivot_layer(scores[name], "block_diag", choice)
        masked = copy.deepcopy(model)
        apply_masks(masked, {name: kept})
        with torch.no_grad():
            before, after = (F.cross_entropy(net(whole[0][0]), whole[0][1]).item() for net in (model, masked))
        assert rise == pytest.approx(max(0.0, after - before) + 1e-3 * (1 - retained), rel=1e-3)
    assert min(rises[0]) > 2e-3, "more than what grows with sparsity"


def test_where_the_best_division_fails_others_follow_up_to_channels_alone() -> None:
    """What equal losses reach, the losses of trained weights may not: then channels do a little more, and so on."""
    problem = problem_for(steps=0)
    whole = method(sparsity={"mode": "flops", "flops": 0.5})
    target = whole.sparsity
    assert isinstance(target, FlopsTarget)
    shares = [split.share for split in whole.divide(problem).yield_splits(target)]
    assert shares == sorted(shares) and shares[-1] == 1
    steps = sorted(set(shares))
    assert all(after - before <= 4 * FINEST for before, after in pairwise(steps)) and len(steps) > 3


@pytest.mark.parametrize("mode", ["one_shot", "gradual", "from_unstructured", "random_mask"])
@pytest.mark.parametrize("score", ["energy", "fisher"])
def test_modes(mode: str, score: str) -> None:
    reports: list[dict[str, float]] = []
    problem = problem_for(steps=12, report=reports.append)
    pruned = method(mode=mode, score=score, pivot_interval=2, ramp=0.5).prune(problem)
    assert reports == list(pruned.history) and pruned.steps == 12 == pruned.history[-1]["step"]
    assert ("retained" in pruned.history[0]) == (mode == "gradual")
    assert {type(m) for m in pruned.model.modules()} & {PivotedConv2d, PivotedLinear}
    assert pruned.extra["unmixed"] == 0 and 0 < pruned.extra["retained"] < 1
    assert all(isinstance(value, float) for value in pruned.extra.values())


def test_searching_keeps_more_than_chance_and_training_keeps_more_yet() -> None:
    found = {
        mode: method(mode=mode, ramp=0.5, decay=0.2, pivot_interval=3).prune(problem_for("projection", steps=24))
        for mode in ("random_mask", "one_shot", "gradual")
    }
    kept = {mode: pruned.extra["retained"] for mode, pruned in found.items()}
    assert kept["random_mask"] < kept["one_shot"] < kept["gradual"]


def test_sensitivity_by_loss() -> None:
    problem = problem_for("projection", steps=0)
    pruned = method(sparsity={"mode": "flops", "flops": 0.6, "tilt": 0.5}, sensitivity="loss", score="taylor").prune(
        problem
    )
    assert 0.3 < pruned.extra["flops_share"] <= 0.6
    assert all(p.grad is None for p in problem.model.parameters())


def test_ramp_continues_from_a_checkpoint_bit_for_bit() -> None:
    def make_fresh() -> tuple[nn.Module, Trainer]:
        model = cases.seeded(NETS["vgg"], trained=True)
        plan, pivots = make_plan(model, "block_diag", "free")
        scores = Scores(model, plan.names, "fisher")
        hook = Concentration(scores, plan, pivots, 12, 2, 0.1, lambda masks: {})
        return model, Trainer(model, TRAIN, Recipe(lr=0.05, batch_size=32), 12, 5, hook=hook)

    model, trainer = make_fresh()
    trainer.run()
    first, interrupted = make_fresh()
    interrupted.run(until=5)
    state = interrupted.state_dict()
    again, continued = make_fresh()
    continued.load_state_dict(state)
    continued.run()
    for mine, theirs in zip(again.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert not torch.equal(next(first.parameters()), next(model.parameters()))


def test_weights_outside_the_blocks_shrink() -> None:
    model = cases.seeded(NETS["vgg"], trained=True)
    plan, pivots = make_plan(model, "block_diag", "perfect_shuffle")
    hook = Concentration(Scores(model, plan.names, "energy"), plan, pivots, 4, 100, 0.5, lambda masks: {})
    name = plan.names[0]
    weight = model.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    before, mask = weight.detach().clone(), torch.from_numpy(hook.masks[name])[:, :, None, None]
    for step in range(4):
        hook.after_step(step)
    left = float(np.prod([1 - 0.5 * k / 4 for k in (1, 2, 3, 4)]))
    torch.testing.assert_close(weight.detach(), torch.where(mask, before, before * left))
    assert hook.epoch_end()["retained"] > 0.5


def test_scores() -> None:
    model = cases.seeded(NETS["plain"])
    weight = model.get_submodule("2").weight
    assert isinstance(weight, Tensor)
    x, y = TRAIN.inputs[:32], TRAIN.labels[:32]
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), y), [weight])
    expected = {
        "energy": weight.square(),
        "l1": weight.abs(),
        "taylor": (weight * gradient).abs(),
        "fisher": (weight * gradient).square(),
    }
    split = cases.TensorSplit(x, y)
    for how, values in expected.items():
        scores = Scores(model, ["2"], how)  # type: ignore[arg-type]
        scores.look(split, 1, 32, seed=0)
        torch.testing.assert_close(
            torch.from_numpy(scores.entries()["2"]), values.sum((2, 3)).double(), check_dtype=False
        )
    entries = Scores(model, ["2"], "energy").entries()
    left = survivors(entries, {"2": weight}, {"2": 0.25})["2"]
    strong = weight.abs() >= weight.abs().flatten().sort().values[-weight.numel() // 4]
    np.testing.assert_allclose(left, (weight.square() * strong).sum((2, 3)).detach().double(), rtol=1e-5)
    assert share_retained(entries, {"2": np.ones_like(left, dtype=bool)})["2"] == pytest.approx(1)
    assert share_retained({"2": np.zeros((2, 2))}, {"2": np.ones((2, 2), dtype=bool)})["2"] == 1
    assert (noise(entries, 1)["2"] == noise(entries, 1)["2"]).all()


def test_specs_read_and_make_every_channel() -> None:
    plan, pivots = make_plan(cases.seeded(NETS["projection"]), "bsr", "free")
    for name, spec in specs(plan, pivots).items():
        (rows, columns) = plan.masks(pivots)[name].shape
        assert sorted(spec.rows.tolist()) == list(range(rows))
        assert set(spec.columns.flatten().tolist()) == set(range(columns))
        assert spec.clusters.tolist() == sorted(spec.clusters.tolist())


def test_networks_of_blocks_travel_as_data() -> None:
    for net in ("projection", "linear"):
        for structure, coupling in WAYS:
            dense = cases.seeded(NETS[net], trained=True)
            plan, pivots = make_plan(dense, structure, coupling)
            blocks = compact(dense, plan, pivots)
            text = json.dumps(describe(dense, blocks))
            again = rebuild(NETS[net](), json.loads(text), blocks.state_dict(), Pivoting.layers)
            assert torch.equal(again(VALIDATION.inputs), blocks(VALIDATION.inputs))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"coupling": "shared_order"}, "'shared_order' does not go with structure 'block_diag'"),
        ({"coupling": "perfect_shuffle", "structure": "bsr"}, "'perfect_shuffle' does not go with structure 'bsr'"),
        ({"structure": "bsr", "degree": 1}, "degree must be at least 2"),
        ({"channel_tilt": 2}, "channel_tilt = 2 is not allowed"),
        ({"mode": "gradually"}, "mode = 'gradually' is not allowed"),
    ],
)
def test_bad_settings_are_explained(fields: dict[str, str | int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pivoting.from_point({"sparsity.mode": "flops", "sparsity.flops": 0.5, **fields})


@pytest.mark.parametrize("score", ["taylor", "fisher"])
def test_where_nothing_can_be_blocked_channels_do_it_all(score: str) -> None:
    pruned = method(score=score, min_side=512, least_side=512, sparsity={"mode": "flops", "flops": 0.5}).prune(
        problem_for(steps=0)
    )
    assert pruned.extra["flops_share"] <= 0.5
    assert not [m for m in pruned.model.modules() if isinstance(m, PivotedConv2d | PivotedLinear)]
    assert pruned.extra["channel_share"] == 1 and pruned.extra["blocked"] == 0 and "retained" not in pruned.extra


def test_blocks_go_where_they_cost_least_per_operation_saved() -> None:
    """A layer that saves twice as much for a third more of damage is the cheaper one to block."""
    shapes = [Shape("big", 64, 64, 40960, 0.0), Shape("small", 64, 64, 20480, 1.0)]
    options = {shape.name: [DENSE, Choice(2, 2, 2)] for shape in shapes}
    damage = {"big": 2.0, "small": 1.5}
    found = allocate(
        shapes, options, lambda name, choice: 0.0 if choice == DENSE else damage[name], 0, 61440 - 10000, lambda _: True
    )
    assert found == {"big": Choice(2, 2, 2), "small": DENSE}


def test_a_positive_tilt_makes_damage_in_deep_layers_count_less() -> None:
    shapes = [Shape(name, 64, 64, 4096, depth) for name, depth in (("first", 0.0), ("middle", 0.5), ("last", 1.0))]
    tilted = tilt_damages(lambda name, choice: 1.0, shapes, 1.0)
    assert [tilted(name, DENSE) for name in ("first", "middle", "last")] == [4.0, 1.0, 0.25]


@pytest.mark.parametrize("mode", ["one_shot", "gradual", "from_unstructured", "random_mask"])
@pytest.mark.parametrize(
    ("net", "fields"),
    [
        ("projection", {}),
        ("projection", {"structure": "bsr", "channel_share": 0.3}),
        ("grouped", {"structure": "block_sparse", "coupling": "free", "channel_share": 0.5}),
        ("linear", {"channel_share": 1.0, "round_to": 2}),
        ("linear", {"coupling": "free", "score": "taylor"}),
    ],
)
def test_the_cost_of_given_ratios_is_known_before_training(net: str, fields: dict[str, object], mode: str) -> None:
    problem, chosen = problem_for(net, steps=8), method(mode=mode, **fields)
    seen = chosen.preview(problem)
    left = count(chosen.prune(problem).model, problem.example)
    assert seen is not None and (seen.flops, seen.params) == (left.flops, left.params)
    assert left.flops < problem.cost.dense


@pytest.mark.parametrize(
    "fields", [{}, {"score": "fisher"}, {"sensitivity": "loss"}, {"mode": "gradual", "channel_share": 0.5}]
)
def test_a_share_of_the_flops_is_given_out_by_what_trained_layers_lose(fields: dict[str, object]) -> None:
    """So its preview is costly, and exact, whatever the seed of the trial."""
    chosen = method(sparsity={"mode": "flops", "flops": 0.5}, **fields)
    assert chosen.has_costly_preview and not method(sparsity={"mode": "uniform", "ratio": 0.5}).has_costly_preview
    seen = chosen.preview(problem_for("projection"))
    for seed in (0, 1):
        problem = replace(problem_for("projection", steps=8), generator=torch.Generator().manual_seed(seed))
        left = count(chosen.prune(problem).model, problem.example)
        assert (seen.flops, seen.params) == (left.flops, left.params)
