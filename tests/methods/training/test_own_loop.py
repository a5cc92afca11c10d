"""Loops of the user's own: what they see of methods, and what methods see of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.contract.classification import Classification
from methods.contract.loop import LoopHooks, LoopTask, require_batches
from methods.contract.method import Problem
from methods.contract.recipe import Recipe
from methods.contract.task import Metric
from methods.eigendamage.method import EigenDamage
from methods.greedy.method import Greedy
from methods.increg.method import IncReg
from methods.magnitude import Magnitude
from methods.network.channels import channel_groups
from methods.sdprun.method import SDPrun
from methods.spp.method import SPP
from methods.training.evaluation import evaluate, recalibrate
from methods.training.hooks import Hook
from methods.training.trainer import Diverged, Trainer
from search.tasks.data.own_loop import make_loop_data
from spaces import InputError, Uniform
from tests.methods import cases

TRAIN, VALIDATION = cases.blobs(cases.IMAGE, 64), cases.blobs(cases.IMAGE, 32, seed=1)
PLAIN = Recipe(optimizer="sgd", lr=0.05, momentum=0.0, weight_decay=0.0, schedule="constant", batch_size=16)


class Loop(LoopTask):
    """Plain gradient descent on the same batches as the trainer's."""

    name: ClassVar[str] = "loop"
    metrics = (Metric("accuracy", "accuracy", format=".2%", ideal=1.0, worst=0.0),)
    steps_per_epoch = 4

    def __init__(self, shown: bool = True, step: Callable[[LoopHooks], None] | None = None) -> None:
        self.shown, self.step = shown, step

    def example(self) -> Tensor:
        return TRAIN.inputs[:1]

    def fit(self, model: nn.Module, budget: int, hooks: LoopHooks) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        if self.step is not None:
            return self.step(hooks)
        hooks.begin(optimizer)
        done = 0
        while done < budget:
            for x, y in TRAIN.batches(16):
                if done == budget:
                    break
                hooks.before_batch()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                hooks.before_step()
                optimizer.step()
                hooks.after_step()
                optimizer.zero_grad()
                done += 1
            if done % self.steps_per_epoch == 0:
                hooks.epoch_end({"loss": float(loss.detach())})

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        assert not model.training
        return {"accuracy": evaluate(model, VALIDATION).accuracy, "extra": 1.0}

    def inputs(self, batch_size: int, seed: int) -> Iterator[Tensor]:
        if self.shown:
            yield from (x for x, _ in TRAIN.batches(batch_size))


class Noted(Hook):
    """Writes down what is called."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        self.calls.append("begin")

    def before_batch(self, step: int) -> None:
        self.calls.append(("batch", step))

    def before_step(self, step: int, lr: float) -> None:
        self.calls.append(("step", step, lr))

    def after_step(self, step: int) -> None:
        self.calls.append(("after", step))

    def before_evaluation(self) -> None:
        self.calls.append("evaluation")

    def epoch_end(self) -> dict[str, float]:
        self.calls.append("end")
        return {"noted": float(len(self.calls))}


def problem(task: LoopTask, steps: int = 40) -> Problem:
    data = make_loop_data(task)
    return Problem(
        model=cases.vgg_net(),
        example=data.example,
        train=data.train,
        validation=data.validation,
        recipe=PLAIN,
        steps=steps,
        generator=torch.Generator().manual_seed(0),
        task=task,
    )


def train(task: LoopTask, steps: int = 6, hook: Hook | None = None, model: nn.Module | None = None) -> Trainer:
    data = make_loop_data(task)
    trainer = Trainer(
        cases.vgg_net() if model is None else model,
        data.train,
        PLAIN,
        steps,
        seed=0,
        validation=data.validation,
        hook=hook,
        task=task,
        epochs_before=3,
        steps_before=12,
    )
    trainer.run()
    return trainer


def test_a_hook_is_called_as_in_the_trainer() -> None:
    noted = Noted()
    trainer = train(Loop(), 6, noted)
    around = [[("batch", n), ("step", n, 0.05), ("after", n)] for n in range(6)]
    expected = ["begin", *sum(around[:4], []), "evaluation", "end", *sum(around[4:], []), "evaluation", "end"]
    assert noted.calls == expected
    assert [(record["epoch"], record["step"]) for record in trainer.history] == [(4, 16), (5, 18)]
    first = trainer.history[0]
    assert {"loss", "lr", "accuracy", "noted"} <= first.keys() and "extra" not in first and "val_loss" not in first
    assert not trainer.model.training


def test_the_loop_trains_the_network_it_is_given() -> None:
    model = cases.vgg_net()
    alone = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.05)
    for _, (x, y) in zip(range(4), TRAIN.batches(16), strict=True):
        F.cross_entropy(alone(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    train(Loop(), 4, model=model)
    for one, other in zip(model.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda hooks: None, "fit showed 0 steps of 2 to its hooks: call hooks.before_batch"),
        (lambda hooks: hooks.before_batch(), r"hooks.before_batch\(\) before hooks.begin\(optimizer\)"),
        (lambda hooks: act_after_begin(hooks, hooks.after_step), r"after_step\(\) where hooks.before_batch\(\) is due"),
        (
            lambda hooks: act_after_begin(hooks, lambda: take_three_steps(hooks)),
            "takes more than the 2 steps of its budget",
        ),
    ],
)
def test_a_loop_that_hides_steps_is_refused(step: Callable[[LoopHooks], None], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(Loop(step=step), 2, Noted())


def begin(hooks: LoopHooks) -> None:
    hooks.begin(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0))


def act_after_begin(hooks: LoopHooks, act: Callable[[], None]) -> None:
    begin(hooks)
    act()


def take_three_steps(hooks: LoopHooks) -> None:
    for _ in range(3):
        steps(hooks)


def steps(hooks: LoopHooks) -> None:
    hooks.before_batch()
    hooks.before_step()
    hooks.after_step()


def test_where_no_method_acts_a_loop_may_call_nothing() -> None:
    trainer = train(Loop(step=lambda hooks: None), 5)
    assert [record["step"] for record in trainer.history] == [17]


def test_a_loss_that_is_not_finite_ends_training() -> None:
    def diverge(hooks: LoopHooks) -> None:
        begin(hooks)
        steps(hooks)
        hooks.epoch_end({"loss": float("nan")})

    with pytest.raises(Diverged, match="not finite at step 13"):
        train(Loop(step=diverge), 2)


@pytest.mark.parametrize(
    "method",
    [Magnitude(sparsity=Uniform(ratio=0.5)), IncReg(sparsity=Uniform(ratio=0.5)), SPP(sparsity=Uniform(ratio=0.5))],
)
def test_methods_prune_inside_the_loop(method: Any) -> None:
    given = problem(Loop())
    method.check(given)
    pruned = method.prune(given)
    assert pruned.steps == 40
    groups = channel_groups(given.model, given.example)
    wanted = Uniform(ratio=0.5).keep([group.layer for group in groups], len, 1)
    assert {name: len(left) for name, left in pruned.kept.items()} == wanted
    assert sum(p.numel() for p in pruned.model.parameters()) < sum(p.numel() for p in given.model.parameters())
    assert "accuracy" in pruned.history[-1] and "accuracy_cut" in pruned.extra


@pytest.mark.parametrize(
    ("method", "needs"),
    [
        (
            EigenDamage(sparsity=Uniform(ratio=0.5)),
            "eigendamage needs the loss of single batches for the Fisher matrix",
        ),
        (Greedy(sparsity=Uniform(ratio=0.5)), "greedy needs the loss of single batches for what units are chosen by"),
        (SDPrun(), "sdprun needs the loss of single batches for an optimiser of its own"),
    ],
)
def test_methods_that_look_at_batches_refuse(method: Any, needs: str) -> None:
    with pytest.raises(InputError, match=f"{needs}, which a loop of your own does not show"):
        method.check(problem(Loop()))
    require_batches(Classification(), "any", "method")


def test_batch_norm_is_estimated_from_what_the_loop_shows() -> None:
    model = cases.vgg_net()
    shown, hidden = make_loop_data(Loop()), make_loop_data(Loop(shown=False))
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    norm.running_mean = torch.full_like(norm.weight, 7.0)
    recalibrate(model, hidden.train, 3, 16, seed=0)
    assert bool((norm.running_mean == 7).all())  # nothing is known, nothing changes
    recalibrate(model, shown.train, 3, 16, seed=0)
    assert bool((norm.running_mean != 7).all())


def test_what_a_loop_must_say() -> None:
    class NoMetric(Loop):
        def evaluate(self, model: nn.Module) -> Mapping[str, float]:
            return {"other": 1.0}

    class NotFinite(Loop):
        def evaluate(self, model: nn.Module) -> Mapping[str, float]:
            return {"accuracy": float("nan")}

    wrong: list[tuple[Loop, str]] = [
        (NoMetric(), r"gives no 'accuracy', only \['other'\]"),
        (NotFinite(), "gives accuracy = nan"),
    ]
    for each, message in wrong:
        data = make_loop_data(each)
        with pytest.raises(InputError, match=message):
            evaluate(cases.vgg_net(), data.validation, task=each)
    assert evaluate(cases.vgg_net(), make_loop_data(Loop()).test, task=Loop()).metrics == {}
    task = Loop()
    task.steps_per_epoch = 0
    with pytest.raises(InputError, match="steps_per_epoch, a whole number of at least 1, not 0"):
        make_loop_data(task)


def test_a_loop_takes_no_teacher_and_no_optimiser() -> None:
    data, model = make_loop_data(Loop()), cases.vgg_net()
    with pytest.raises(InputError, match=r"cannot be given a teacher \(recipe.distill\)"):
        Trainer(model, data.train, PLAIN.with_changes(distill=0.5), 2, 0, teacher=model, task=Loop())
    with pytest.raises(InputError, match="cannot be given the optimiser or learning rates of a method"):
        Trainer(model, data.train, PLAIN, 2, 0, optimizer=torch.optim.SGD(model.parameters()), task=Loop())
