"""Scores, choice and the way from a choice to a fine-tuned network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods import load_method
from methods.contract.method import Problem
from methods.contract.recipe import derive_seed, learning_rate
from methods.magnitude import Magnitude
from methods.network.channels import channel_groups, cut
from methods.network.importance import l1_importance
from methods.random_channels import RandomChannels
from methods.training.one_shot import cut_and_finetune, draw_seed, keep_top
from methods.training.trainer import Recipe, Trainer, evaluate, recalibrate
from spaces import Value
from tests.methods import cases

EXAMPLE = torch.zeros(1, *cases.IMAGE)


def problem(steps: int = 9, seed: int = 0) -> Problem:
    return Problem(
        model=cases.seeded(cases.projection_net, trained=True),
        example=EXAMPLE,
        train=cases.blobs(cases.IMAGE, 96),
        validation=cases.blobs(cases.IMAGE, 40, seed=1, noise=0),
        recipe=Recipe(lr=0.05, batch_size=32, recalibrate=2),
        steps=steps,
        generator=torch.Generator().manual_seed(seed),
        known=cases.find_anatomy(cases.projection_net),
    )


def test_of_equal_units_the_first_are_kept() -> None:
    scores = torch.randint(2, (300,), generator=torch.Generator().manual_seed(0)).float()
    best = sorted(range(300), key=lambda unit: (-float(scores[unit]), unit))
    for keep in (20, 200):
        assert keep_top(scores, keep) == sorted(best[:keep])


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=12), st.data())
def test_keep_top_keeps_the_best(scores: list[float], data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, len(scores)))
    kept = keep_top(torch.tensor(scores), keep)
    assert len(kept) == keep and kept == sorted(kept)
    by_hand = sorted(range(len(scores)), key=lambda unit: (-scores[unit], unit))[:keep]
    assert kept == sorted(by_hand)


def test_magnitude_by_hand() -> None:
    """A residual stage: two producers of different size, each divided by its own mean."""
    model = cases.seeded(cases.projection_net)
    stage = next(g for g in channel_groups(model, EXAMPLE) if len(g.producers(model)) == 2)
    expected = torch.zeros(stage.channels)
    for member in stage.producers(model):
        weight = model.get_parameter(f"{member.module}.weight").detach()
        norms = torch.stack([weight[channel].abs().sum() for channel in range(stage.channels)])
        expected += norms / norms.mean()
    torch.testing.assert_close(l1_importance(model, stage), expected)
    assert expected.mean().item() == pytest.approx(2, rel=1e-5)


def test_magnitude_of_dead_layers_is_zero() -> None:
    model = cases.seeded(cases.vgg_net)
    with torch.no_grad():
        model.get_parameter("2.0.weight").zero_()
    group = next(g for g in channel_groups(model, EXAMPLE) if g.name == "2.0")
    assert l1_importance(model, group).tolist() == [0] * 12


def test_magnitude_removes_the_weakest() -> None:
    task = problem()
    weight = task.model.get_parameter("2.conv1.weight")
    with torch.no_grad():
        weight[[0, 3, 7, 8, 9, 11, 14, 15]] *= 0.01
    pruned = Magnitude.from_point({"sparsity.mode": "uniform", "sparsity.ratio": 0.5}).prune(task)
    assert pruned.kept["2.conv1"] == [1, 2, 4, 5, 6, 10, 12, 13]


def test_round_to() -> None:
    pruned = Magnitude.from_point({"sparsity.mode": "uniform", "sparsity.ratio": 0.4, "round_to": 4}).prune(problem())
    assert all(len(units) % 4 == 0 for units in pruned.kept.values())


def test_random_choice_is_drawn_from_the_generator() -> None:
    method = RandomChannels.from_point({"sparsity.mode": "uniform", "sparsity.ratio": 0.5})
    one, same, other = (method.prune(problem(0, seed)).kept for seed in (0, 0, 1))
    assert one == same != other


def test_history_goes_on_where_pruning_ended() -> None:
    task = problem(steps=9)
    groups = channel_groups(task.model, EXAMPLE)
    kept = {group.name: [0, 1, 2] for group in groups}
    past = [{"epoch": 1.0, "step": 3.0}, {"epoch": 2.0, "step": 4.0}]
    pruned = cut_and_finetune(task, groups, kept, history=past, extra={"mine": 1.0})
    assert pruned.steps == 9
    assert [(r["epoch"], r["step"]) for r in pruned.history] == [(1, 3), (2, 4), (3, 7), (4, 9)]
    assert pruned.extra.keys() == {"mine", "accuracy_cut"}
    assert pruned.kept == kept


def test_accuracy_before_fine_tuning_is_reported() -> None:
    task = problem(steps=0)
    method = Magnitude.from_point({"sparsity.mode": "flops", "sparsity.flops": 0.5})
    pruned = method.prune(task)
    assert pruned.history == [] and pruned.steps == 0
    assert pruned.extra["accuracy_cut"] == evaluate(pruned.model, task.validation).accuracy


def test_batch_norm_is_estimated_again_after_the_cut() -> None:
    """What a batch norm knew of its inputs is no longer so when channels before it are gone."""
    given_, again = problem(steps=0), problem(steps=0)
    groups = channel_groups(given_.model, EXAMPLE)
    kept = {group.name: list(range(group.channels // 2)) for group in groups}
    model = cut_and_finetune(given_, groups, kept).model
    by_hand = cut(again.model, groups, kept)
    stale = {name: buffer.clone() for name, buffer in by_hand.named_buffers() if name.endswith("running_mean")}
    seed = derive_seed(draw_seed(again.generator), 0)
    recalibrate(by_hand, again.train, again.recipe.recalibrate, again.recipe.batch_size, seed)
    for name, before in stale.items():
        assert torch.equal(model.get_buffer(name), by_hand.get_buffer(name)), name
        assert not torch.equal(model.get_buffer(name), before), name


def test_distillation_learns_from_the_dense_network() -> None:
    """With labels ignored altogether, the cut network still comes to agree with the dense one."""
    task = problem(steps=60)
    Trainer(task.model, task.train, task.recipe, 30, 0).run()
    recipe = task.recipe.with_changes(distill=1.0)
    garbled = cases.TensorSplit(task.train.inputs, torch.zeros_like(task.train.labels))  # type: ignore[attr-defined]
    task = Problem(task.model, EXAMPLE, garbled, task.validation, recipe, 60, task.generator)
    pruned = Magnitude.from_point({"sparsity.mode": "flops", "sparsity.flops": 0.7}).prune(task)
    inputs = next(iter(task.validation.batches(40)))[0]
    agree = (pruned.model(inputs).argmax(1) == task.model(inputs).argmax(1)).double().mean().item()
    assert agree > 0.9


def test_drawn_seeds() -> None:
    generator = torch.Generator().manual_seed(0)
    seeds = {draw_seed(generator) for _ in range(50)}
    assert len(seeds) == 50 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("name", ["magnitude", "increg"])
def test_one_schedule_may_span_pruning_and_fine_tuning(name: str) -> None:
    """With span "whole" the rates of all phases are those of one cosine over the budget."""
    given = problem(steps=30)
    given = replace(given, recipe=given.recipe.with_changes(span="whole", lr=0.1))
    point: dict[str, Value] = {"sparsity.mode": "uniform", "sparsity.ratio": 0.25}
    pruned = load_method(name).from_point(point).prune(given)
    rates = [learning_rate(given.recipe, int(record["step"]) - 1, 30) for record in pruned.history]
    assert [record["lr"] for record in pruned.history] == pytest.approx(rates)
    assert len(rates) > 5 and rates[0] > 2 * rates[-1]
