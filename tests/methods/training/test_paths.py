"""Paths between trained networks: known ends, known barriers, batch norms and shortcuts on the way."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from methods.contract.recipe import Recipe, derive_seed
from methods.network.channels import channel_groups, cut, mask_units
from methods.network.layers import ZeroPadShortcut
from methods.training.evaluation import evaluate, recalibrate
from methods.training.paths import Profile, curve, expand_to_dense_shape, line, paths_between
from methods.training.trainer import Trainer
from spaces import InputError
from tests.methods import cases

TRAIN = cases.blobs(cases.IMAGE, 128, noise=0.0)
EXAMPLE = TRAIN.inputs[:1]


@cache
def train_network(net: str, seed: int = 0) -> nn.Module:
    model = cases.seeded(cases.NETS[net], seed=seed)
    Trainer(model, TRAIN, Recipe(lr=0.05, batch_size=32), 40, seed).run()
    return model


def swap_units(model: nn.Module) -> nn.Module:
    """The same function with its hidden units in reverse order."""
    twin = copy.deepcopy(model)
    layers = [layer for layer in twin.modules() if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, following in zip(layers[:-1], layers[1:], strict=True):
            layer.weight.copy_(layer.weight.flip(0))
            layer.bias.copy_(layer.bias.flip(0))
            following.weight.copy_(following.weight.flip(1))
    return twin


def test_barrier_by_hand() -> None:
    assert Profile((0.0, 0.5, 1.0), (1.0, 4.0, 2.0)).barrier == 2.0
    assert Profile((0.0, 0.5, 1.0), (1.0, 1.5, 2.0)).barrier == 0.0


def test_line_is_straight_and_ends_at_the_networks() -> None:
    one, other = train_network("linear"), train_network("linear", 1)
    before = copy.deepcopy(one.state_dict())
    profile = line(one, other, TRAIN, points=5)
    assert profile.positions == (0.0, 0.25, 0.5, 0.75, 1.0)
    for index, weight in ((0, 0.0), (1, 0.25), (4, 1.0)):
        paths_between = copy.deepcopy(one)
        with torch.no_grad():
            for mine, a, b in zip(paths_between.parameters(), one.parameters(), other.parameters(), strict=True):
                mine.copy_((1 - weight) * a + weight * b)
        assert profile.losses[index] == pytest.approx(evaluate(paths_between, TRAIN).loss, rel=1e-5)
    assert all(torch.equal(before[key], value) for key, value in one.state_dict().items())
    assert not any(module.training for module in one.modules())


def test_nothing_rises_between_a_network_and_itself() -> None:
    model = train_network("vgg")
    profile = line(model, model, TRAIN, points=4)
    assert max(profile.losses) - min(profile.losses) < 1e-6
    assert curve(model, model, TRAIN, steps=0, points=4).barrier < 1e-6


def test_curve_goes_around_the_barrier_of_the_line() -> None:
    """Permuting hidden units gives the same function behind a barrier; a curve leads there without one."""
    one = train_network("linear")
    other = swap_units(one)
    assert evaluate(one, TRAIN).loss == pytest.approx(evaluate(other, TRAIN).loss, rel=1e-5)
    straight = line(one, other, TRAIN, points=9)
    bent = curve(one, other, TRAIN, steps=120, batch_size=32, points=9, seed=1)
    assert straight.barrier > 0.1
    assert bent.barrier < straight.barrier / 5
    assert bent.losses[0] == straight.losses[0] and bent.losses[-1] == straight.losses[-1]
    assert bent == curve(one, other, TRAIN, steps=120, batch_size=32, points=9, seed=1)


def test_curve_passes_through_its_control_point() -> None:
    """Without training the control point is the middle, and the curve the line."""
    one, other = train_network("linear"), train_network("linear", 1)
    assert curve(one, other, TRAIN, steps=0, points=5).losses == pytest.approx(
        line(one, other, TRAIN, points=5).losses, rel=1e-4
    )


def test_batch_norms_are_estimated_anew() -> None:
    one, other = train_network("vgg"), train_network("vgg", 1)
    middle = copy.deepcopy(one)
    with torch.no_grad():
        for mine, a, b in zip(middle.parameters(), one.parameters(), other.parameters(), strict=True):
            mine.copy_((a + b) / 2)
    stale = evaluate(middle, TRAIN).loss
    recalibrate(middle, TRAIN, 3, 128, derive_seed(0, 3))
    expected = evaluate(middle, TRAIN).loss
    assert stale != pytest.approx(expected, rel=1e-3)
    assert line(one, other, TRAIN, points=3, batches=3).losses[1] == pytest.approx(expected, rel=1e-5)


def test_shortcuts_that_differ_are_mixed() -> None:
    """Lanes of a shortcut are no weights: the pruned network has fewer, and each end must be what it is."""
    one = train_network("zero_pad")
    groups = channel_groups(one, EXAMPLE)
    other = mask_units(one, groups, {group.name: range(group.channels // 2) for group in groups})
    sources = [[m.source for m in net.modules() if isinstance(m, ZeroPadShortcut)] for net in (one, other)]
    assert not torch.equal(sources[0][0], sources[1][0])
    profile = line(one, other, TRAIN, points=3, batches=3)
    for model, loss in ((one, profile.losses[0]), (other, profile.losses[-1])):
        end = copy.deepcopy(model)
        recalibrate(end, TRAIN, 3, 128, derive_seed(0, 3))
        assert loss == pytest.approx(evaluate(end, TRAIN).loss, rel=1e-5)
    again = line(other, one, TRAIN, points=3, batches=3)
    assert again.losses == pytest.approx(profile.losses[::-1], rel=1e-4)


def test_global_generator_is_untouched_and_numbers_agree() -> None:
    one, other = train_network("projection"), train_network("projection", 1)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    paths = paths_between(one, other, TRAIN, Recipe(batch_size=32, recalibrate=2), 4, seed=2, points=(5, 7))
    assert torch.equal(torch.random.get_rng_state(), before)
    numbers = paths.numbers
    assert numbers["line_barrier"] == numbers["line_max"] - max(numbers["loss_unpruned"], numbers["loss_pruned"])
    assert paths == paths_between(one, other, TRAIN, Recipe(batch_size=32, recalibrate=2), 4, seed=2, points=(5, 7))
    assert [len(pairs) for pairs in paths.profiles.values()] == [5, 7]
    assert paths.profiles["curve"][-1] == (1.0, paths.curve.losses[-1])
    with torch.no_grad():
        assert F.cross_entropy(one(TRAIN.inputs), TRAIN.labels) < 0.5


@pytest.mark.parametrize("net", ["plain", "vgg", "projection", "zero_pad", "grouped", "depthwise", "linear"])
def test_in_dense_shape_a_pruned_network_computes_the_same(net: str) -> None:
    dense = cases.seeded(cases.NETS[net], trained=True).double()
    groups = channel_groups(dense, EXAMPLE.double())
    kept = {group.name: list(range(0, group.channels, 2)) for group in groups}
    smaller = cut(dense, groups, kept)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # trained on since it was cut
        for parameter in smaller.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.double), alpha=0.1)
    before = copy.deepcopy(dense.state_dict())
    back = expand_to_dense_shape(dense, smaller, groups, kept)
    assert [p.shape for p in back.parameters()] == [p.shape for p in dense.parameters()]
    assert all(torch.equal(before[name], tensor) for name, tensor in dense.state_dict().items())
    inputs = TRAIN.inputs[:16].double()
    with torch.no_grad():  # batch norms take the statistics of the batch
        assert (back.train()(inputs) - smaller.train()(inputs)).abs().max() < 1e-9


def test_networks_of_other_layers_have_no_line() -> None:
    dense = cases.seeded(cases.NETS["vgg"])
    groups = channel_groups(dense, EXAMPLE)
    kept = {group.name: list(range(group.channels)) for group in groups}
    other = cut(dense, groups, kept | {groups[0].name: [0]})
    with pytest.raises(InputError, match=r"not the dense one less some channels: \S+, .* differ"):
        expand_to_dense_shape(dense, other, groups, kept)
