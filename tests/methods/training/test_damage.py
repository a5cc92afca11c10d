from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from methods import load_method, method_names
from methods.contract.analyses import Analyses, Fresh, Settings, Tensors
from methods.contract.method import Method, Problem
from methods.contract.recipe import Recipe
from methods.greedy.method import Greedy
from methods.increg.method import IncReg
from methods.magnitude import Magnitude
from methods.network.architecture import describe, rebuild
from methods.network.cost import count
from methods.network.scope import choose_prunable
from methods.spp.method import SPP
from methods.training.damage import BATCH, BATCHES, add_damages, list_block_damages, widths_of
from methods.training.evaluation import recalibrate
from methods.training.one_shot import allot_widths
from spaces import ByDamage, InputError, PerLayer
from tests.methods import cases


def problem() -> Problem:
    data = cases.blobs(cases.IMAGE, 64)
    model = cases.seeded(cases.make_plain_net, trained=True)
    example = torch.zeros(1, *cases.IMAGE)
    return Problem(model, example, data, data, Recipe(), 2, torch.Generator().manual_seed(0))


def test_curves_fall_to_nothing_at_the_full_width_and_are_the_same_every_time() -> None:
    first, again = add_damages(problem()), add_damages(problem())
    assert first == again
    for layer, group in zip(first, problem().groups, strict=True):
        widths = [width for width, _ in layer.damages]
        damages = [damage for _, damage in layer.damages]
        assert widths == [*widths_of(group), group.channels]
        assert damages == sorted(damages, reverse=True) and damages[-1] == 0.0
    assert any(layer.damages[0][1] > 0 for layer in first), "cutting to one unit does harm somewhere"


@dataclass
class Asked:
    """Computes analyses, and remembers what was asked for."""

    settings: list[Settings]

    def get(self, name: str, settings: Settings, compute: Callable[[], Tensors]) -> Tensors:
        self.settings.append(settings)
        return compute()


def test_damage_is_measured_in_the_precision_of_the_recipe() -> None:
    asked, halves = Asked([]), list[torch.dtype]()
    whole = add_damages(replace(problem(), analyses=asked))
    half = replace(problem(), analyses=asked, recipe=Recipe(bf16=True, channels_last=True))
    assert half.groups, "followed before anybody listens"
    handle = half.model.register_forward_hook(lambda module, inputs, output: halves.append(output.dtype))
    measured = add_damages(half)
    handle.remove()
    assert set(halves) == {torch.bfloat16}, "the dense network's loss is taken in it, too"
    assert len({repr(settings) for settings in asked.settings}) == 2, "one is not taken for the other"
    for layer, other in zip(whole, measured, strict=True):
        for (_, exact), (_, rough) in zip(layer.damages, other.damages, strict=True):
            assert rough == pytest.approx(exact, rel=0.1, abs=0.01)
    assert all(p.is_contiguous() for p in half.model.parameters()), "the dense network stays as it was"


BY_DAMAGE = [name for name in method_names() if name not in {"eigendamage", "pivoting", "sdprun"}]
"""Methods whose numbers of channels are inputs."""


@pytest.mark.parametrize("name", BY_DAMAGE)
def test_a_method_whose_ratios_are_inputs_meets_its_budget_by_damage(name: str) -> None:
    given = replace(problem(), steps=24)
    space = load_method(name).space([group.layer for group in given.groups]).narrow({"sparsity.mode": "damage"})
    assert "sparsity.flops" in space
    method = load_method(name).from_point({"sparsity.mode": "damage", "sparsity.flops": 0.5})
    method.check(given)
    found = method.preview(given)
    assert found is not None and 0.35 * given.cost.dense < found.flops <= 0.5 * given.cost.dense
    assert found.kept == ByDamage(flops=0.5).keep(add_damages(given), given.cost.flops)
    pruned = method.prune(given)
    assert {name: len(kept) for name, kept in pruned.kept.items()} == found.kept


def test_groups_that_a_method_leaves_whole_have_no_part_in_the_allocation() -> None:
    given = with_blocks(Measured(unit=1.0, block=0.5))
    method = Greedy(sparsity=ByDamage(flops=0.8), prune_outputs=False)
    found = method.preview(given)
    inner = choose_inner(given)
    assert found is not None and found.kept is not None and set(found.kept) == inner < {g.name for g in given.groups}
    assert any(found.kept[group.name] < group.channels for group in given.groups if group.name in inner)
    assert found.flops == given.cost.flops(found.kept)
    assert found.flops <= 0.8 * given.cost.dense
    with pytest.raises(InputError, match=r"flops = 0\.05 cannot be reached"):
        Greedy(sparsity=ByDamage(flops=0.05), prune_outputs=False).preview(given)


def choose_inner(given: Problem) -> set[str]:
    return {group.name for group in choose_prunable(given.groups, given.model, "inner_only")}


def with_blocks(analyses: Analyses | None = None) -> Problem:
    data = cases.blobs(cases.IMAGE, 64)
    model = cases.seeded(cases.make_zero_pad_net, trained=True)
    example = torch.zeros(1, *cases.IMAGE)
    generator = torch.Generator().manual_seed(0)
    return Problem(model, example, data, data, Recipe(), 24, generator, analyses=analyses or Fresh())


def test_the_damage_of_a_block_is_what_the_loss_rises_by_without_it() -> None:
    problem = with_blocks()
    (block,) = list_block_damages(problem)
    assert (block.name, block.stage) == ("1", "8x8")
    assert block.groups == ("1.conv1",)
    assert block.damage > 0
    silent = with_blocks()
    for parameter in silent.model.get_submodule("1").parameters():
        parameter.detach().zero_()
    recalibrate(silent.model, silent.train, BATCHES, BATCH, seed=1)  # as what is compared with it will be
    assert list_block_damages(silent)[0].damage == pytest.approx(0.0, abs=1e-5), (
        "it adds nothing, and does no harm by going"
    )


METHODS = [load_method(name) for name in method_names() if load_method(name).removes_blocks]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_that_says_so_takes_blocks_out(method: type[Method]) -> None:
    problem = with_blocks()
    sparsity = PerLayer(level=0.5, without={"1": True})
    made = method.model_validate({"sparsity": sparsity})
    made.check(problem)
    seen, pruned = made.preview(problem), made.prune(problem)
    counted = count(pruned.model, problem.example)
    assert seen is not None and (seen.flops, seen.params) == (counted.flops, counted.params)
    assert [block.name for block in seen.removed] == ["1"] and seen.kept is not None and seen.kept["1.conv1"] == 0
    assert list(pruned.kept["1.conv1"]) == [] and pruned.extra["blocks_removed"] == 1
    assert {name: len(units) for name, units in pruned.kept.items()} == seen.kept
    assert isinstance(pruned.model.get_submodule("1"), nn.Identity)
    description = describe(problem.model, pruned.model)
    back = rebuild(cases.seeded(cases.make_zero_pad_net), description, pruned.model.state_dict())
    x = torch.randn(2, *cases.IMAGE)
    assert torch.equal(back(x), pruned.model(x))
    assert not isinstance(problem.model.get_submodule("1"), nn.Identity)


@dataclass
class Measured:
    """Analyses that were made before: every unit of every group does as much harm, and so does the block."""

    unit: float
    block: float

    def get(self, name: str, settings: Settings, compute: Callable[[], Tensors]) -> Tensors:
        if name == "block_damages":
            return {"damages": torch.tensor([self.block], dtype=torch.float64)}
        groups = with_blocks().groups
        pairs = [[[1.0, self.unit * (group.channels - 1)], [float(group.channels), 0.0]] for group in groups]
        return {str(number): torch.tensor(rows, dtype=torch.float64) for number, rows in enumerate(pairs)}


def test_blocks_go_by_damage_when_they_may() -> None:
    """A block that does little harm goes first, and one that does much stays; without leave all stay."""
    problem = with_blocks(Measured(unit=1.0, block=0.5))
    share = problem.cost_with_blocks.flops({"1": 0}) / problem.cost.dense
    found = Magnitude(sparsity=ByDamage(flops=share + 1e-6, blocks=True)).preview(problem)
    assert [block.name for block in found.removed] == ["1"] and found.kept is not None
    assert found.kept == {group.name: 0 if group.name == "1.conv1" else group.channels for group in problem.groups}
    narrow = Magnitude(sparsity=ByDamage(flops=share + 1e-6)).preview(problem)
    assert narrow.removed == () and narrow.kept is not None and min(narrow.kept.values()) > 0
    same = Magnitude(sparsity=ByDamage(flops=1.0, blocks=True)).preview(problem)
    assert same.flops == problem.cost.dense and same.removed == ()
    dear = Magnitude(sparsity=ByDamage(flops=share + 1e-6, blocks=True))
    assert dear.preview(with_blocks(Measured(unit=0.01, block=50.0))).removed == ()
    weighted = ByDamage(flops=share + 1e-6, blocks=True, damage_weights={"8x8": 2.0, "4x4": -2.0})
    assert Magnitude(sparsity=weighted).preview(with_blocks(Measured(unit=1.0, block=7.0))).removed == ()


def test_rates_of_layers_that_went_with_their_block_are_passed_over() -> None:
    problem = with_blocks()
    sparsity = PerLayer(level=0.5, without={"1": True})
    made = IncReg(sparsity=sparsity, rates="layer", layer_rates={"1.conv1": 2.0, "1.conv2": 2.0})
    assert made.prune(problem).extra["blocks_removed"] == 1
    with pytest.raises(InputError, match=r"unknown layer in layer_rates: '2.conv9'"):
        IncReg(sparsity=sparsity, rates="layer", layer_rates={"2.conv9": 2.0}).prune(problem)


def test_with_nothing_else_to_remove_the_shallower_network_is_trained() -> None:
    problem = with_blocks()
    whole = PerLayer(
        layers={group.name: 0.0 for group in problem.groups if group.name != "1.conv1"}, without={"1": True}
    )
    for method in (IncReg(sparsity=whole), SPP(sparsity=whole)):
        pruned = method.prune(problem)
        assert isinstance(pruned.model.get_submodule("1"), nn.Identity) and pruned.steps == problem.steps


def test_blocks_that_are_none_are_refused() -> None:
    problem = with_blocks()
    with pytest.raises(InputError, match=r"unknown residual block '2'; did you mean '1'|unknown residual block '2'"):
        Magnitude(sparsity=PerLayer(level=0.5, without={"2": True})).preview(problem)
    with pytest.raises(InputError, match="this method keeps every residual block"):
        allot_widths(problem, ByDamage(flops=0.5, blocks=True), 1)
    with pytest.raises(InputError, match="sparsity.blocks = true needs the network's blocks"):
        Greedy(sparsity=ByDamage(flops=0.5, blocks=True)).preview(problem)
    with pytest.raises(InputError, match="sparsity.without needs the network's blocks"):
        PerLayer(level=0.5, without={"1": True}).keep([], len)
    with pytest.raises(InputError, match="sparsity.blocks = true needs the network's blocks"):
        ByDamage(flops=0.5, blocks=True).keep([], len)
    with pytest.raises(InputError, match="give granularity = 'filter'"):
        SPP(sparsity=PerLayer(level=0.5, without={"1": True}), granularity="column").prune(problem)
    assert PerLayer(level=0.5, without={"1": False}).keep([], len) == {}
