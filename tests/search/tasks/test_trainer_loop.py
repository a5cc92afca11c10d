"""A method that prunes while training acts in the loop of Hugging Face's Trainer as in our own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paretoprune
from methods.contract.loop import LoopHooks, LoopTask
from methods.contract.task import Metric
from spaces import InputError

transformers: Any = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore")  # both warn of optional packages of their own


def data() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    images = torch.randn(64, 1, 16, 16, generator=generator) + labels[:, None, None, None]
    return [{"pixel_values": image, "labels": label} for image, label in zip(images, labels, strict=True)]


def network() -> nn.Module:
    settings = transformers.ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = transformers.ResNetForImageClassification(settings)
    return model


class Loop(LoopTask):
    """Lets the Trainer of transformers train.

    Args:
        home: Where it may write.
        accumulate: Batches of one step.
    """

    metrics = (Metric("right", "right answers", ideal=1.0, worst=0.0),)
    steps_per_epoch = 8

    def __init__(self, home: Path, accumulate: int) -> None:
        self.home, self.accumulate = home, accumulate

    def example(self) -> dict[str, Tensor]:
        return {"pixel_values": data()[0]["pixel_values"][None]}

    def fit(self, model: nn.Module, budget: int, hooks: LoopHooks) -> None:
        arguments = transformers.TrainingArguments(
            output_dir=str(self.home),
            max_steps=budget,
            per_device_train_batch_size=8 // self.accumulate,
            gradient_accumulation_steps=self.accumulate,
            learning_rate=1e-3,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_steps=4,
            disable_tqdm=True,
        )
        callbacks: Any = [paretoprune.trainer_callback(hooks)]
        transformers.Trainer(model, arguments, train_dataset=data(), callbacks=callbacks).train()

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        inputs = torch.stack([each["pixel_values"] for each in data()])
        labels = torch.stack([each["labels"] for each in data()])
        return {"right": float((model(pixel_values=inputs).logits.argmax(1) == labels).float().mean())}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_channels_go_in_the_trainers_loop(accumulate: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = Loop(tmp_path, accumulate)
    pruned = paretoprune.prune(network(), task.example(), method="increg", flops=0.5, task=task, steps=32)
    assert pruned.steps == 32
    assert sum(len(kept) for kept in pruned.kept.values()) < 32
    assert pruned.extra["residual"] < 0.9  # weights were squeezed by the penalties before they were cut
    assert pruned.history[-1]["step"] == 32
    assert "loss" in pruned.history[-1]


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match="needs the package transformers; install it"):
        paretoprune.trainer_callback(None)  # type: ignore[arg-type]
