"""Passes replayed as a CUDA graph: the same numbers as computed ones; on the CPU nothing changes."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from methods import load_method, method_names
from methods.contract.recipe import Recipe
from methods.contract.testing import MethodOnNetwork
from methods.training.hooks import Hook
from methods.training.recorded import RecordedPasses, _compare
from methods.training.trainer import Trainer
from spaces import InputError
from tests.methods import cases

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
TRAIN = cases.blobs(cases.IMAGE, 96)
RECIPE = Recipe(lr=0.05, batch_size=16, nesterov=True)
GRAPH = RECIPE.with_changes(cuda_graph=True)


def train(model: nn.Module, recipe: Recipe, device: str, steps: int = 15, **options: Any) -> list[Tensor]:
    model = copy.deepcopy(model).to(device)
    Trainer(model, TRAIN.to(device), recipe, steps, 0, **options).run()
    return [tensor.cpu() for tensor in model.state_dict().values()]


def test_elsewhere_nothing_changes() -> None:
    model = cases.seeded(cases.make_zero_pad_net)
    for one, other in zip(train(model, RECIPE, "cpu"), train(model, GRAPH, "cpu"), strict=True):
        assert torch.equal(one, other)


def test_recipes_from_before_are_stored_as_they_were() -> None:
    assert "cuda_graph" not in RECIPE.model_dump(mode="json")
    assert GRAPH.model_dump(mode="json")["cuda_graph"] is True
    assert Recipe.model_validate(GRAPH.model_dump()) == GRAPH


def test_shares_that_change_are_refused() -> None:
    with pytest.raises(ValidationError, match="cuda_graph excludes mixup and cutmix"):
        Recipe(cuda_graph=True, mixup=0.2)


def test_networks_that_differ_from_step_to_step_are_refused() -> None:
    _compare(1.001, 1.0)
    _compare(float("nan"), 1.0)
    with pytest.raises(InputError, match=r"a loss of 1.5 when replayed and 1 when computed.*leave cuda_graph out"):
        _compare(1.5, 1.0)


@gpu
@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"distill": 0.5}, {"ema": 0.9}, {"clip_norm": 1.0}])
def test_replayed_training_is_the_same(changes: dict[str, Any]) -> None:
    model = cases.seeded(cases.make_zero_pad_net)
    teacher = copy.deepcopy(model).cuda()
    usual, replayed = (
        train(model, recipe.with_changes(**changes), "cuda", teacher=teacher) for recipe in (RECIPE, GRAPH)
    )
    for one, other in zip(usual, replayed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@gpu
@pytest.mark.parametrize("changes", [{"bf16": True, "channels_last": True}, {"fp16": True}])
def test_half_precision_is_replayed(changes: dict[str, Any]) -> None:
    model = cases.seeded(cases.make_zero_pad_net)
    usual, replayed = (train(model, recipe.with_changes(**changes), "cuda") for recipe in (RECIPE, GRAPH))
    for one, other in zip(usual, replayed, strict=True):
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.1)


@gpu
def test_stopped_and_continued_is_the_same() -> None:
    model = cases.seeded(cases.make_zero_pad_net).cuda()
    train_set = TRAIN.to("cuda")
    whole = Trainer(copy.deepcopy(model), train_set, GRAPH, 18, 0)
    whole.run()
    first = Trainer(copy.deepcopy(model), train_set, GRAPH, 18, 0)
    first.run(until=8)
    second = Trainer(copy.deepcopy(model), train_set, GRAPH, 18, 0)
    second.load_state_dict(first.state_dict())
    second.run()
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@dataclass
class Decay(Hook):
    """A hook that acts on gradients and weights in place."""

    model: nn.Module

    @torch.no_grad()
    def before_step(self, step: int, lr: float) -> None:
        for parameter in self.model.parameters():
            assert parameter.grad is not None
            parameter.grad.add_(parameter, alpha=0.1)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        for parameter in self.model.parameters():
            parameter.mul_(0.99)


@gpu
def test_hooks_see_the_gradients_of_their_step() -> None:
    ends = []
    for recipe in (RECIPE, GRAPH):
        model = cases.seeded(cases.make_zero_pad_net).cuda()
        Trainer(model, TRAIN.to("cuda"), recipe, 15, 0, hook=Decay(model)).run()
        ends.append(model)
    for one, other in zip(ends[0].parameters(), ends[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@gpu
@pytest.mark.parametrize("name", method_names())
def test_methods_are_replayed(name: str) -> None:
    """Every method cuts as much, and its network is no worse, whether its passes are replayed or computed."""
    parts = {"method": load_method(name), "network": staticmethod(cases.make_zero_pad_net)}
    tested: Any = type("Tested", (MethodOnNetwork,), parts)
    ends = []
    for graph in (False, True):
        problem = tested.problem(steps=60)
        pruned = tested.build().prune(
            replace(
                problem,
                model=problem.model.cuda(),
                example=torch.zeros(1, *cases.IMAGE, device="cuda"),
                train=problem.train.to("cuda"),
                validation=problem.validation.to("cuda"),
                recipe=problem.recipe.with_changes(cuda_graph=graph),
            )
        )
        ends.append(pruned)
    usual, replayed = ends
    assert replayed.steps == usual.steps
    assert {name: len(units) for name, units in replayed.kept.items()} == {
        name: len(units) for name, units in usual.kept.items()
    }
    assert replayed.history[-1]["val_loss"] == pytest.approx(usual.history[-1]["val_loss"], abs=0.2)


class Restless(nn.Module):
    """Does one thing or another by a coin of Python's."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, cases.CLASSES)
        self.coin = random.Random(0)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x.flatten(1)) * self.coin.uniform(0, 10)
        return out


@gpu
def test_a_restless_network_is_refused() -> None:
    images = torch.randn(16, 3, 8, 8, device="cuda")
    labels = torch.zeros(16, dtype=torch.long, device="cuda")
    model = Restless().cuda()
    passes = RecordedPasses(model, lambda x, y: _backward(model, x, y))
    with pytest.raises(InputError, match="does not do the same in every step"):
        passes(images, labels)


@gpu
def test_dropout_draws_anew_in_every_step() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, cases.CLASSES)).cuda().train()
    passes = RecordedPasses(model, lambda x, y: _backward(model, x, y))
    images, labels = torch.randn(16, 3, 8, 8, device="cuda"), torch.zeros(16, dtype=torch.long, device="cuda")
    assert len({float(passes(images, labels)) for _ in range(5)}) == 5


@gpu
def test_other_shapes_are_computed_and_moved_weights_recorded_again() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, cases.CLASSES)).cuda().train()
    passes = RecordedPasses(model, lambda x, y: _backward(model, x, y))

    def compare(count: int) -> None:
        images, labels = torch.randn(count, 3, 8, 8, device="cuda"), torch.arange(count, device="cuda") % 3
        found = passes(images, labels).clone()
        gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        model.zero_grad(set_to_none=True)
        torch.testing.assert_close(found, _backward(model, images, labels))
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)
        model.zero_grad(set_to_none=True)

    compare(16)
    compare(16)
    compare(7)
    model[1].weight.data = torch.randn(cases.CLASSES, 192, device="cuda")
    compare(16)


def _backward(model: nn.Module, inputs: Any, target: Any) -> Tensor:
    loss = nn.functional.cross_entropy(model(inputs), target)
    torch.autograd.backward(loss)
    return loss.detach()
