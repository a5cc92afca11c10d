from __future__ import annotations

import torch

from methods.contract.method import Problem
from methods.contract.recipe import Recipe
from methods.magnitude import Magnitude
from methods.training.damage import add_damages, widths_of
from spaces import ByDamage
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


def test_a_method_whose_ratios_are_inputs_meets_its_budget_by_damage() -> None:
    given = problem()
    method = Magnitude(sparsity=ByDamage(flops=0.5))
    found = method.preview(given)
    assert 0.35 * given.cost.dense < found.flops <= 0.5 * given.cost.dense
    pruned = method.prune(given)
    assert given.preview({name: len(kept) for name, kept in pruned.kept.items()}).flops == found.flops
