"""Which of several results wins, how tolerances are read, and how tuning is shared out: by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from methods.contract.recipe import Recipe
from methods.greedy import layerwise
from methods.greedy.layerwise import Accurate, Partial, Tuning, Width, select_units, tune
from methods.greedy.method import Greedy
from methods.greedy.selection import Search, layers_of
from tests.methods.greedy.test_method import Remembering, greedy, groups_of, problem_for, train_network


class Told:
    """A layer whose losses and qualities are given."""

    def __init__(self, losses: dict[tuple[float, ...], float], quality: float = 0.5) -> None:
        self.losses, self.quality = losses, quality
        self.group = groups_of(train_network("vgg"))[0]

    def loss(self, mask: Tensor) -> float:
        return self.losses[tuple(mask.tolist())]

    def qualities(self, masks: Tensor, batches: int | None = None) -> Tensor:
        return torch.full((len(masks),), self.quality)


@pytest.mark.parametrize("better", [0, 1])
def test_of_rivals_of_equal_width_the_one_with_the_lower_loss_wins(
    better: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = [torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 1.0])]
    found = dict(zip(("global_ce", "local_gram"), masks, strict=True))
    monkeypatch.setattr(layerwise, "_add_until", lambda layer, judge, *rest: found[judge])
    layer: Any = Told({tuple(mask.tolist()): float(n != better) for n, mask in enumerate(masks)})
    search: Any = None
    won = select_units(layer, ("global_ce", "local_gram"), search, Width(2), 1)
    assert won is not None and torch.equal(won, masks[better])
    found["global_ce"] = torch.tensor([0.0, 0.0, 1.0])  # fewer units win before the loss is looked at
    won = select_units(layer, ("global_ce", "local_gram"), search, Width(1), 1)
    assert won is not None and torch.equal(won, found["global_ce"])


def test_of_two_orderings_the_better_one_is_taken_layer_by_layer() -> None:
    shared, kept = Remembering(), {}
    for objective in ("global_ce", "local_gram", "best_of_both"):
        problem = replace(problem_for("vgg", steps=0), analyses=shared)
        method = greedy(objective=objective, sparsity__ratio=0.625)
        kept[objective] = method.prune(problem).kept
    search: Search = method._search()
    apart = 0
    for group in groups_of(problem.model):
        rivals = [kept["global_ce"][group.name], kept["local_gram"][group.name]]
        if rivals[0] == rivals[1]:
            continue
        (layer,) = layers_of(problem.model, [group], problem.train, search, method.seed, problem.task)
        losses = []
        for units in rivals:
            mask = torch.zeros(group.channels, dtype=torch.float64)
            mask[list(units)] = group.channels / len(units)
            losses.append(layer.loss(mask))
        apart += losses[0] != losses[1]
        assert kept["best_of_both"][group.name] == rivals[losses.index(min(losses))]
    assert apart > 0


def test_tolerances_are_shares_of_the_whole_layers_quality() -> None:
    layer: Any = Told({}, quality=0.5)
    enough = greedy(stop_rule="tol", top1_tol=0.1, skip_eval_margin=0.2)._define_enough(layer, None)
    assert isinstance(enough, Accurate)
    assert enough.wanted == pytest.approx(0.45) and enough.glance == pytest.approx(0.4)


def test_widths_of_rounds_fall_by_the_same_ratio_and_share_the_tuning() -> None:
    def method(rounds: int) -> Greedy:
        return greedy(procedure="sequential", rounds=rounds, mid_ft_epochs=1.0)

    three = method(3)
    assert [three._width_in_round(8, 64, 64, turn) for turn in range(3)] == [32, 16, 8]
    problem = problem_for("vgg", steps=48)
    epoch = problem.train.steps(problem.recipe.batch_size)
    assert epoch == 3 and method(1)._steps_between(problem, 3) == epoch
    assert method(4)._steps_between(problem, 3) == 2, "half of the budget over three layers and four rounds"


def test_between_layers_everything_decays_and_nothing_has_momentum() -> None:
    """As the authors' code runs: after a step of size lr, a norm's weight has decayed as a filter's has."""
    problem = replace(problem_for("vgg"), recipe=Recipe(batch_size=16, weight_decay=0.5, momentum=0.9))
    groups = groups_of(problem.model)
    start = Partial.from_model(problem.model, groups)
    moved = {}
    for decay in (0.0, 0.5):
        given = replace(problem, recipe=problem.recipe.with_changes(weight_decay=decay))
        moved[decay], _ = tune(start, given, Tuning(1, 0.01, keep_scale=False), [], 0)
    for name, before in start.model.named_parameters():
        plain, decayed = (dict(moved[decay].model.named_parameters())[name] for decay in (0.0, 0.5))
        torch.testing.assert_close(plain - decayed, 0.01 * 0.5 * before, rtol=1e-3, atol=1e-6, msg=name)
