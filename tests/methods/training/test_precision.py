"""Half precision while training: results near float32, steps that overflow left out, continuation exact."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from methods.contract.recipe import Recipe
from methods.training.hooks import NoHook
from methods.training.precision import choose_half_type, loss_scaler, measure_half
from methods.training.trainer import Trainer
from tests.methods import cases

TRAIN = cases.blobs(cases.IMAGE, 80)
VALIDATION = cases.blobs(cases.IMAGE, 40, seed=1, noise=0)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(cases.conv_bn(3, 6), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, cases.CLASSES))


def trainer(model: nn.Module, **fields: bool) -> Trainer:
    recipe = Recipe(lr=0.05, batch_size=20, clip_norm=1.0).with_changes(**fields)
    return Trainer(model, TRAIN, recipe, 12, 3, validation=VALIDATION)


def test_types() -> None:
    assert choose_half_type(Recipe()) is None
    assert choose_half_type(Recipe(bf16=True)) is torch.bfloat16
    assert choose_half_type(Recipe(fp16=True)) is torch.float16
    assert loss_scaler(Recipe(bf16=True), torch.device("cpu")) is None
    with pytest.raises(ValidationError, match="exclude each other"):
        Recipe(bf16=True, fp16=True)


def test_what_takes_longer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is a counter of convolutions' costs here: what is timed is what runs under autocast."""
    now, whole = [0.0], torch.nn.functional.conv2d

    def convolve(images: torch.Tensor, filters: torch.Tensor, padding: int) -> torch.Tensor:
        now[0] += 7.0 if torch.is_autocast_enabled("cpu") else 2.0
        answer = whole(images, filters, padding=padding)
        assert answer.dtype is (torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32)
        return answer

    monkeypatch.setattr("methods.training.precision.F.conv2d", convolve)
    monkeypatch.setattr("methods.training.precision.time.perf_counter", lambda: now[0])
    assert measure_half(torch.bfloat16) == 3.5


@pytest.mark.parametrize("half", ["bf16", "fp16"])
def test_half_precision_learns_what_float32_learns(half: str) -> None:
    exact, rounded = trainer(net()).run(), trainer(net(), **{half: True}).run()
    assert rounded[-1]["val_loss"] == pytest.approx(exact[-1]["val_loss"], rel=0.02)
    assert rounded[-1]["val_loss"] != exact[-1]["val_loss"]


class Watching(NoHook):
    """Notes the norm of the whole gradient that a method is shown."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.norms = model, list[float]()

    def before_step(self, step: int, lr: float) -> None:
        gradients = [p.grad.flatten() for p in self.model.parameters() if p.grad is not None]
        self.norms.append(float(torch.cat(gradients).norm()))


def test_a_method_sees_the_gradient_of_the_loss_and_not_of_the_scaled_loss() -> None:
    model = net()
    hook = Watching(model)
    Trainer(model, TRAIN, Recipe(lr=0.05, batch_size=20, clip_norm=1.0, fp16=True), 12, 3, hook=hook).run()
    assert len(hook.norms) == 12 and 0.01 < max(hook.norms) <= 1.0 + 1e-3  # clipped at 1; the scale is 65,536


def test_a_step_that_overflows_is_left_out_and_the_scale_comes_down() -> None:
    whole = trainer(net(), fp16=True)
    assert whole._scaler is not None
    whole._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = copy.deepcopy([p.detach() for p in whole.model.parameters()])
    whole.run(1)
    assert all(torch.equal(old, new) for old, new in zip(before, whole.model.parameters(), strict=True))
    assert whole._scaler.get_scale() < 2.0**40


def test_training_in_float16_goes_on_exactly() -> None:
    whole = trainer(net(), fp16=True)
    expected = whole.run()
    first = trainer(net(), fp16=True)
    first.run(7)
    second = trainer(net(), fp16=True)
    second.load_state_dict(first.state_dict())
    assert second.run() == expected
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True))
