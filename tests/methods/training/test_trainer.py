"""The training loop: exact continuation, schedules, loss pieces, divergence, evaluation."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from methods.contract.classification import Classification
from methods.contract.data import Batch
from methods.contract.method import Record
from methods.training.evaluation import steps_remembered
from methods.training.mixing import mix_inputs
from methods.training.trainer import (
    Diverged,
    Hook,
    Recipe,
    Trainer,
    build_optimizer,
    derive_seed,
    evaluate,
    learning_rate,
    recalibrate,
)
from tests.methods import cases

TRAIN = cases.blobs(cases.IMAGE, 80)
VALIDATION = cases.blobs(cases.IMAGE, 41, seed=1, noise=0)


def net_with_dropout() -> nn.Module:
    return nn.Sequential(
        cases.conv_bn(3, 6), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(24, cases.CLASSES)
    )


class Idle(Hook):
    """A hook that overrides nothing."""


@dataclass
class Counting(Hook):
    """A hook whose state matters: it counts, and adds its count to the gradients."""

    model: nn.Module
    count: int = 0
    calls: list[str] = field(default_factory=list)
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizers.append(optimizer)

    def before_batch(self, step: int) -> None:
        self.calls.append(f"batch {step}")
        assert self.model.training and all(p.grad is None for p in self.model.parameters())

    def before_step(self, step: int, lr: float) -> None:
        self.calls.append(f"before {step}")
        for parameter in self.model.parameters():
            assert parameter.grad is not None
            parameter.grad.add_(parameter.detach(), alpha=1e-3 * self.count)
        self.count += 1

    def after_step(self, step: int) -> None:
        self.calls.append(f"after {step}")

    def before_evaluation(self) -> None:
        self.calls.append("evaluation")

    def epoch_end(self) -> Record:
        self.calls.append("end")
        return {"count": float(self.count)}

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def trainer(recipe: Recipe, steps: int = 23, seed: int = 3, **options: Any) -> Trainer:
    model = cases.seeded(net_with_dropout)
    teacher = cases.seeded(net_with_dropout, seed=9) if recipe.distill else None
    return Trainer(
        model, TRAIN, recipe, steps, seed, validation=VALIDATION, hook=Counting(model), teacher=teacher, **options
    )


def assert_same(one: nn.Module, other: nn.Module) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert torch.equal(mine[name], theirs[name]), name


RECIPES = {
    "sgd": Recipe(lr=0.05, batch_size=16, nesterov=True, warmup=0.2),
    "adamw": Recipe(optimizer="adamw", lr=0.01, batch_size=16, label_smoothing=0.1, clip_norm=1.0),
    "finished": Recipe(lr=0.05, batch_size=16, mixup=0.4, cutmix=1.0, ema=0.9, keep="best"),
    "mixed pieces": Recipe(lr=0.05, batch_size=16, mixup=0.4, ema=0.9, accumulate=2),
    "everything": Recipe(
        lr=0.05, batch_size=16, schedule="step", accumulate=3, distill=0.5, bf16=True, channels_last=True
    ),
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("stop", [5, 7, 20])  # at the end of an epoch, in the middle, in the last epoch
def test_continues_bitwise(name: str, stop: int) -> None:
    whole = trainer(RECIPES[name])
    records = whole.run()
    first = trainer(RECIPES[name])
    first.run(until=stop)
    state = first.state_dict()
    first.run()  # going on must not change the stored state
    torch.rand(3)  # nor may the global generator matter
    second = trainer(RECIPES[name])
    second.load_state_dict(state)
    assert second.run() == records
    assert_same(second.model, whole.model)
    assert_same(first.model, whole.model)


def test_records_cover_every_epoch_and_the_rest() -> None:
    seen: list[Record] = []
    job = trainer(RECIPES["sgd"], report=seen.append, epochs_before=2, steps_before=100)
    records = job.run()
    assert seen == records
    assert [(r["epoch"], r["step"]) for r in records] == [(3, 105), (4, 110), (5, 115), (6, 120), (7, 123)]
    assert records[-1].keys() == {"epoch", "step", "loss", "lr", "comparable", "accuracy", "val_loss", "count"}
    assert records[-1]["count"] == 23
    assert records[-1]["lr"] == learning_rate(RECIPES["sgd"], 22, 23)
    assert not any(module.training for module in job.model.modules())
    hook = job.hook
    assert isinstance(hook, Counting) and hook.optimizers == [job.optimizer]
    steps = [[f"batch {n}", f"before {n}", f"after {n}"] for n in range(23)]
    ends = [["evaluation", "end"] if n in (4, 9, 14, 19, 22) else [] for n in range(23)]
    assert hook.calls == [call for pair in zip(steps, ends, strict=True) for part in pair for call in part]


class Swapping(Hook):
    """Trains a network with its first layer silenced in every step, and evaluates it as it was at the start."""

    def __init__(self, model: nn.Module) -> None:
        self.weight = model.get_parameter("0.weight")
        self.first = self.weight.detach().clone()

    @torch.no_grad()
    def before_batch(self, step: int) -> None:
        self.weight.zero_()

    @torch.no_grad()
    def before_evaluation(self) -> None:
        self.weight.copy_(self.first)


def test_hooks_decide_what_is_trained_and_what_is_evaluated() -> None:
    """What it leaves before a batch is what is trained, what it leaves before an evaluation is what counts."""
    model = cases.seeded(cases.make_plain_net)
    silent, twin = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        silent.get_parameter("0.weight").zero_()
    recipe = Recipe(lr=1e-9, batch_size=16, schedule="constant", weight_decay=0)
    records = Trainer(model, TRAIN, recipe, 10, 0, validation=VALIDATION, hook=Swapping(model)).run()
    slow = Trainer(silent, TRAIN, recipe, 10, 0).run()
    assert [record["loss"] for record in records] == pytest.approx([record["loss"] for record in slow], abs=1e-6)
    assert [record["val_loss"] for record in records] == pytest.approx(2 * [evaluate(twin, VALIDATION).loss], abs=1e-6)


def test_hook_acts_once_for_all_pieces_of_a_batch() -> None:
    job = trainer(RECIPES["everything"], steps=3)
    job.run()
    hook = job.hook
    assert isinstance(hook, Counting) and [c for c in hook.calls if c.startswith("batch")] == [
        "batch 0",
        "batch 1",
        "batch 2",
    ]


def test_a_hook_that_overrides_nothing_does_nothing() -> None:
    ends = []
    for hook in (None, Idle()):
        model = cases.seeded(net_with_dropout)
        job = Trainer(model, TRAIN, RECIPES["sgd"], 7, 0, validation=VALIDATION, hook=hook)
        job.run(until=3)
        job.load_state_dict(job.state_dict())
        ends.append((job.run(), model))
    assert ends[0][0] == ends[1][0]
    assert_same(ends[0][1], ends[1][1])


def test_global_generator_is_untouched() -> None:
    before = torch.random.get_rng_state()
    trainer(RECIPES["sgd"]).run()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_dropout_is_seeded_too() -> None:
    ends = []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            ends.append(trainer(RECIPES["sgd"]).run())
    assert ends[0] == ends[1]


def test_divergence_right_after_a_stop_still_knows_the_loss() -> None:
    def make_poisoned() -> Trainer:
        return Trainer(Poison(5), TRAIN, Recipe(batch_size=16, lr=1e-3), 10, 0)

    first = make_poisoned()
    first.run(until=5)
    second = make_poisoned()
    second.load_state_dict(first.state_dict())
    second.model.left = 0  # type: ignore[assignment]  # a plain number
    with pytest.raises(Diverged) as caught:
        second.run()
    assert caught.value.step == 5 and caught.value.last_finite_loss == first._losses[-1].item()


def test_seed_decides() -> None:
    one, same, other = trainer(RECIPES["sgd"]), trainer(RECIPES["sgd"]), trainer(RECIPES["sgd"], seed=4)
    assert one.run() == same.run() != other.run()


def test_learns() -> None:
    model = cases.seeded(cases.vgg_net)
    before = evaluate(model, VALIDATION)
    records = Trainer(model, TRAIN, Recipe(lr=0.05, batch_size=16), 50, 0, validation=VALIDATION).run()
    assert before.accuracy < 0.6 < 0.95 <= records[-1]["accuracy"]
    assert records[-1]["loss"] < records[0]["loss"] / 3


def test_one_step_is_the_textbook_step() -> None:
    """SGD with momentum, weight decay on matrices only, against the formula written out."""
    recipe = Recipe(lr=0.1, momentum=0.5, weight_decay=0.01, batch_size=80, schedule="constant", label_smoothing=0.2)
    model = cases.seeded(cases.linear_net).double()
    train = cases.TensorSplit(TRAIN.inputs.double(), TRAIN.labels)
    expected = copy.deepcopy(model)
    buffers = [torch.zeros_like(p) for p in expected.parameters()]
    for _ in range(3):
        loss = F.cross_entropy(expected(train.inputs), train.labels, label_smoothing=0.2)
        gradients = torch.autograd.grad(loss, list(expected.parameters()))
        with torch.no_grad():
            for p, g, b in zip(expected.parameters(), gradients, buffers, strict=True):
                b.mul_(0.5).add_(g + (0.01 * p if p.ndim > 1 else 0))
                p.sub_(0.1 * b)
    Trainer(model, train, recipe, 3, 0).run()
    for mine, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_pieces_give_the_gradient_of_the_batch() -> None:
    models = []
    for pieces in (1, 3):
        model = cases.seeded(cases.make_plain_net).double()
        train = cases.TensorSplit(TRAIN.inputs.double(), TRAIN.labels)
        records = Trainer(model, train, Recipe(lr=0.1, batch_size=16, accumulate=pieces), 7, 0).run()
        models.append((model, records))
    for mine, theirs in zip(models[0][0].parameters(), models[1][0].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)
    assert models[0][1][0]["loss"] == pytest.approx(models[1][1][0]["loss"], rel=1e-6)


def test_decay_spares_norms_unless_asked() -> None:
    model = cases.vgg_net()
    for decay_norm, groups in ((False, 2), (True, 1)):
        optimizer = build_optimizer(model, Recipe(decay_norm=decay_norm, weight_decay=0.1))
        assert len(optimizer.param_groups) == groups
        decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
        for p in model.parameters():
            assert decays[id(p)] == (0.1 if p.ndim > 1 or decay_norm else 0)


def test_distillation_alone_ignores_labels() -> None:
    wrong = replace(TRAIN, labels=(TRAIN.labels + 1) % cases.CLASSES)
    ends = []
    for train in (TRAIN, wrong):
        model = cases.seeded(cases.make_plain_net)
        teacher = cases.seeded(cases.make_plain_net, seed=5)
        Trainer(model, train, Recipe(distill=1.0, batch_size=16), 5, 0, teacher=teacher).run()
        ends.append(model)
    assert_same(*ends)


def test_distillation_by_hand() -> None:
    student = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, 1.0], [3.0, 0.5]], dtype=torch.float64)
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    by_hand = 4 * (p * (p / q).log()).sum(1).mean()
    assert Classification().distill(student, teacher, 2.0).item() == pytest.approx(by_hand.item(), rel=1e-12)
    assert Classification().distill(teacher, teacher, 2.0).item() == 0


def test_teacher_is_untouched_and_needed() -> None:
    teacher = cases.seeded(cases.vgg_net).train()
    before = copy.deepcopy(teacher.state_dict())
    Trainer(cases.seeded(cases.vgg_net), TRAIN, Recipe(distill=0.5, batch_size=16), 5, 0, teacher=teacher).run()
    assert teacher.training and all(p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    with pytest.raises(ValueError, match=r"distill = 0\.5 needs a teacher"):
        Trainer(cases.make_plain_net(), TRAIN, Recipe(distill=0.5), 5, 0)


class Poison(nn.Module):
    """Gives finite answers for so many calls, then none."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.left = calls

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        return x.flatten(1)[:, : cases.CLASSES] * self.scale / (0.0 if self.left < 0 else 1.0)


@pytest.mark.parametrize("calls", [0, 3, 5, 7])
def test_divergence_names_the_step(calls: int) -> None:
    job = Trainer(Poison(calls), TRAIN, Recipe(batch_size=16, lr=1e-3), 20, 0, steps_before=100)
    with pytest.raises(Diverged, match=f"not finite at step {100 + calls} ") as caught:
        job.run()
    assert caught.value.step == 100 + calls
    assert (caught.value.last_finite_loss > 0) == (calls > 0)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(copied, Diverged) and copied.step == caught.value.step
    assert "smaller learning rate" in str(copied)


def test_divergence_of_the_last_step_is_seen_on_validation() -> None:
    job = Trainer(Poison(5), TRAIN, Recipe(batch_size=16), 5, 0, validation=VALIDATION)
    with pytest.raises(Diverged, match="not finite at step 5"):
        job.run()


def test_channels_last_is_undone_at_the_end() -> None:
    model = cases.seeded(cases.vgg_net)
    job = Trainer(model, TRAIN, Recipe(batch_size=16, channels_last=True), 4, 0)
    weight = dict(model.named_parameters())["2.0.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    job.run()
    assert all(p.is_contiguous() for p in model.parameters())


def test_no_steps_is_fine() -> None:
    model = cases.seeded(cases.make_plain_net).train()
    assert Trainer(model, TRAIN, Recipe(), 0, 0).run() == []
    assert not model.training


def test_bad_lengths() -> None:
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        Trainer(cases.make_plain_net(), TRAIN, Recipe(), -1, 0)
    with pytest.raises(ValueError, match="until must be between 0 and 5, got 6"):
        Trainer(cases.make_plain_net(), TRAIN, Recipe(), 5, 0).run(until=6)


@dataclass(frozen=True)
class Short(cases.TensorSplit):
    """Promises more batches than it has."""

    def steps(self, batch_size: int) -> int:
        return 9

    def epoch(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        yield from list(TRAIN.epoch(batch_size, seed))[start:]


def test_data_that_ends_early_is_an_error() -> None:
    split = Short(TRAIN.inputs, TRAIN.labels)
    with pytest.raises(ValueError, match="ended after 5 batches of an epoch, 9 were promised"):
        Trainer(cases.make_plain_net(), split, Recipe(batch_size=16), 20, 0).run()


def test_evaluate_counts_exactly_and_restores_modes() -> None:
    model = cases.seeded(net_with_dropout, trained=True).train()
    model.get_submodule("0.1").eval()
    modes = [m.training for m in model.modules()]
    small, large = evaluate(model, VALIDATION, batch_size=7), evaluate(model, VALIDATION)
    assert [m.training for m in model.modules()] == modes
    copied = copy.deepcopy(model).eval()
    with torch.no_grad():
        answers = copied(VALIDATION.inputs)
    assert small.accuracy == large.accuracy == int((answers.argmax(1) == VALIDATION.labels).sum()) / 41
    assert large.loss == pytest.approx(F.cross_entropy(answers, VALIDATION.labels).item(), rel=1e-6)
    assert evaluate(model, VALIDATION) == large


def test_recalibrate_averages_over_batches() -> None:
    model = cases.seeded(net_with_dropout, trained=True)
    twin = copy.deepcopy(model)
    conv, norm = model.get_submodule("0.0"), model.get_submodule("0.1")
    assert isinstance(norm, nn.BatchNorm2d)
    model.train()
    recalibrate(model, TRAIN, batches=7, batch_size=16, seed=5)  # one epoch has 5
    assert all(m.training for m in model.modules()) and norm.momentum == 0.1
    batches = [*TRAIN.epoch(16, derive_seed(5, 0)), *list(TRAIN.epoch(16, derive_seed(5, 5)))[:2]]
    with torch.no_grad():
        maps = [conv(inputs) for inputs, _ in batches]
    mean = torch.stack([x.mean((0, 2, 3)) for x in maps]).mean(0)
    variance = torch.stack([x.var((0, 2, 3)) for x in maps]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert torch.equal(norm.weight, twin.get_parameter("0.1.weight"))


def test_recalibrate_without_batches_or_norms_changes_nothing() -> None:
    for build, batches in ((cases.vgg_net, 0), (cases.make_plain_net, 3)):
        model = cases.seeded(build, trained=True)
        before = copy.deepcopy(model)
        recalibrate(model, TRAIN, batches, batch_size=16, seed=0)
        assert_same(model, before)


def test_schedules_by_hand() -> None:
    step = Recipe(lr=1.0, schedule="step", milestones=(0.5, 0.75), factor=0.5)
    assert [learning_rate(step, s, 8) for s in range(8)] == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]
    constant = Recipe(lr=0.3, schedule="constant", warmup=0.5)
    assert [learning_rate(constant, s, 4) for s in range(4)] == pytest.approx([0.15, 0.3, 0.3, 0.3])


@given(
    schedule=st.sampled_from(["cosine", "step", "constant"]),
    warmup=st.floats(0, 0.99),
    steps=st.integers(1, 60),
)
@settings(max_examples=60, deadline=None)
def test_learning_rate_rises_then_falls(schedule: Any, warmup: float, steps: int) -> None:
    recipe = Recipe(lr=0.1, schedule=schedule, warmup=warmup)
    rates = [learning_rate(recipe, step, steps) for step in range(steps)]
    assert all(0 < rate <= 0.1 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr": 0}, "greater than 0"),
        ({"lr": float("nan")}, "finite"),
        ({"optimizer": "adam"}, "'sgd' or 'adamw'"),
        ({"nesterov": True, "momentum": 0}, "nesterov needs optimizer 'sgd' and momentum above 0, got 'sgd' and 0"),
        ({"milestones": (0.7, 0.3)}, "milestones must be ascending fractions"),
        ({"milestones": (1.0,)}, "milestones must be ascending fractions"),
        ({"accumulate": 9, "batch_size": 8}, "accumulate = 9 must be at most batch_size = 8"),
        ({"distill": 1.5}, "less than or equal to 1"),
        ({"lrr": 1}, "Extra inputs"),
    ],
)
def test_recipe_messages(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(fields)
    with pytest.raises(ValidationError, match=message):
        Recipe().with_changes(**fields)


def test_recipe_is_frozen_data() -> None:
    recipe = Recipe(lr=0.2, milestones=(0.25,))
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert recipe.with_changes(lr=0.3) == Recipe(lr=0.3, milestones=(0.25,))
    with pytest.raises(ValidationError, match="frozen"):
        recipe.lr = 1.0  # type: ignore[misc]  # that is the point


def test_derived_seeds_differ() -> None:
    seeds = {derive_seed(seed, *path) for seed in range(20) for path in [(), (0,), (1,), (0, 1), (10,)]}
    assert len(seeds) == 100 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("noise", [0.02, 0.05, 2.0])
def test_distillation_in_bf16_is_that_of_float32(noise: float) -> None:
    """Near the teacher above all: there the divergence is smaller than the spacing of bfloat16."""
    generator = torch.Generator().manual_seed(0)
    teacher = 3 * torch.randn(64, 10, generator=generator)
    student = teacher + noise * torch.randn(64, 10, generator=generator)
    losses, gradients = [], []
    for bf16 in (False, True):
        logits = student.bfloat16().float().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            answers = logits.bfloat16() if bf16 else logits
            loss = Classification().distill(answers, teacher.bfloat16() if bf16 else teacher.bfloat16().float(), 4.0)
        torch.autograd.backward(loss)
        assert logits.grad is not None
        losses.append(loss.item())
        gradients.append(logits.grad)
    assert losses[1] == pytest.approx(losses[0], rel=1e-6) and losses[0] > 0
    assert (gradients[1] - gradients[0]).norm() < 0.01 * gradients[0].norm()


def test_the_average_is_what_is_evaluated_and_kept() -> None:
    """Against an average kept by hand, which evaluation and the network at the end must agree with."""
    recipe = Recipe(lr=0.1, batch_size=16, ema=0.9)
    model = cases.seeded(cases.make_plain_net)
    twin = copy.deepcopy(model)
    job = Trainer(model, TRAIN, recipe, 10, 0, validation=VALIDATION)
    plain = Trainer(twin, TRAIN, recipe.with_changes(ema=0.0), 10, 0)
    means = [parameter.detach().clone() for parameter in twin.parameters()]
    for step in range(10):
        plain.run(until=step + 1)
        decay = min(0.9, (2 + step) / (11 + step))
        means = [decay * m + (1 - decay) * p.detach() for m, p in zip(means, twin.parameters(), strict=True)]
    records = job.run()
    for mine, mean in zip(model.parameters(), means, strict=True):
        torch.testing.assert_close(mine.detach(), mean, rtol=1e-4, atol=1e-6)
    assert records[-1]["val_loss"] == pytest.approx(evaluate(model, VALIDATION).loss, rel=1e-6)
    assert [record["loss"] for record in records] == pytest.approx([record["loss"] for record in plain.history])


def test_the_best_epoch_is_kept_where_it_is_asked_for() -> None:
    recipe = Recipe(lr=0.5, batch_size=16, schedule="constant", momentum=0.95)
    ends = {}
    for keep in ("last", "best"):
        model = cases.seeded(cases.make_plain_net)
        job = Trainer(model, TRAIN, recipe.with_changes(keep=keep, lr=0.12), 40, 1, validation=VALIDATION)
        found = [record["accuracy"] for record in job.run()]
        ends[keep] = (evaluate(model, VALIDATION).accuracy, found)
    assert ends["best"][0] == max(ends["best"][1]) and ends["last"][0] == ends["last"][1][-1]


def test_a_method_that_prunes_keeps_its_weights() -> None:
    """Neither an average nor an earlier epoch may undo what a hook has done to the weights."""
    model = cases.seeded(net_with_dropout)
    job = Trainer(model, TRAIN, Recipe(ema=0.9, keep="best", batch_size=16), 6, 0, hook=Counting(model))
    assert job.state_dict()["average"] is None
    tuned = Trainer(model, TRAIN, Recipe(ema=0.9, batch_size=16), 6, 0, hook=Counting(model), comparable=True)
    assert tuned.state_dict()["average"] is not None


@pytest.mark.parametrize(("mixup", "cutmix"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_mixed_inputs_and_their_shares(mixup: float, cutmix: float) -> None:
    inputs = torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    shares = set()
    for seed in range(12):
        mixed, order, share = mix_inputs(inputs, mixup, cutmix, seed)
        assert sorted(order.tolist()) == list(range(6)) and 0 <= share <= 1
        other = inputs[order]
        linear = torch.allclose(mixed, share * inputs + (1 - share) * other, atol=1e-6)
        pasted = bool(((mixed == inputs) | (mixed == other)).all())
        assert (linear and mixup > 0) or (pasted and cutmix > 0)
        moved = [one for one in range(6) if order[one] != one]
        if pasted and not linear:
            kept = (mixed[moved] == inputs[moved]).float().mean()
            assert kept == pytest.approx(share, abs=1e-6)
        shares.add(share)
        again = mix_inputs(inputs, mixup, cutmix, seed)
        assert torch.equal(mixed, again[0]) and share == again[2]
    assert len(shares) > 4


# --- running statistics after few steps ---


def short_training(steps: int, comparable: bool = True) -> tuple[float, float]:
    """Train for some steps: the loss on validation as the network is left, and with statistics of many batches."""
    model, recipe = cases.seeded(cases.make_zero_pad_net), Recipe(lr=0.05, batch_size=16)
    trainer = Trainer(model, TRAIN, recipe, steps, 0, validation=VALIDATION, comparable=comparable)
    left = trainer.run()[-1]["val_loss"]
    assert left == pytest.approx(evaluate(model, VALIDATION).loss)
    recalibrate(model, TRAIN, 50, 16, 5)
    return left, evaluate(model, VALIDATION).loss


def test_statistics_are_those_of_the_weights_however_short_training_is() -> None:
    for steps in (1, 6, 15):
        left, settled = short_training(steps)
        assert left == pytest.approx(settled, rel=0.05)
    assert short_training(6, comparable=False)[0] > 1.2 * short_training(6)[0]  # a method that still prunes


def test_after_many_steps_statistics_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("methods.training.trainer.recalibrate", lambda model, split, *rest: asked.append(rest[0]))
    model = cases.seeded(cases.make_zero_pad_net)
    Trainer(model, TRAIN, Recipe(batch_size=16), 60, 0, validation=VALIDATION, comparable=True).run()
    assert len(asked) == 8  # 5 steps an epoch: after 40 steps 1.5 % of what was before are left, after 45 0.9 %


def test_steps_remembered() -> None:
    assert steps_remembered(nn.Linear(2, 2)) == 0
    for momentum, steps in ((0.1, 44), (0.5, 7), (None, 0), (1.0, 0), (0.0, 0)):
        assert steps_remembered(nn.Sequential(nn.BatchNorm2d(2, momentum=momentum))) == steps
    assert steps_remembered(nn.Sequential(nn.BatchNorm2d(2, momentum=0.5), nn.BatchNorm2d(2, momentum=0.01))) == 459
    assert steps_remembered(nn.BatchNorm2d(2, track_running_stats=False)) == 0
    assert steps_remembered(nn.BatchNorm2d(2).eval()) == 0
