"""A method that prunes while training acts in Lightning's loop as in our own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import paretoprune
from methods.contract.loop import LoopHooks, LoopTask
from methods.contract.task import Metric
from spaces import InputError

lightning: Any = pytest.importorskip("lightning.pytorch")
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of cores, loggers and checkpoints


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    return TensorDataset(torch.randn(64, 1, 8, 8, generator=generator) + labels[:, None, None, None], labels)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


class Module(lightning.LightningModule):  # type: ignore[misc]
    """Trains with SGD.

    Args:
        model: The network.
        optimizers: How many optimisers it says it has.
    """

    def __init__(self, model: nn.Module, optimizers: int = 1) -> None:
        super().__init__()
        self.model, self.count = model, optimizers
        self.automatic_optimization = optimizers == 1

    def training_step(self, batch: Any, index: int) -> Tensor:
        loss: Tensor = F.cross_entropy(self.model(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        made = [torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9) for _ in range(self.count)]
        return made if self.count > 1 else made[0]


class Loop(LoopTask):
    """Lets Lightning train."""

    metrics = (Metric("right", "right answers", ideal=1.0, worst=0.0),)
    steps_per_epoch = 8

    def __init__(self, accumulate: int = 1, optimizers: int = 1, silent: bool = False) -> None:
        self.accumulate, self.optimizers, self.silent = accumulate, optimizers, silent

    def example(self) -> Tensor:
        first: Tensor = data()[:1][0]
        return first

    def fit(self, model: nn.Module, budget: int, hooks: LoopHooks) -> None:
        trainer = lightning.Trainer(
            max_steps=budget,
            accelerator="cpu",
            accumulate_grad_batches=self.accumulate,
            callbacks=[] if self.silent else [paretoprune.lightning_callback(hooks)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Module(model, self.optimizers), DataLoader(data(), 8 // self.accumulate))

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        inputs, labels = data()[:]
        return {"right": float((model(inputs).argmax(1) == labels).float().mean())}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_channels_go_in_lightnings_loop(accumulate: int) -> None:
    task = Loop(accumulate)
    pruned = paretoprune.prune(network(), task.example(), method="increg", flops=0.4, task=task, steps=40)
    assert pruned.steps == 40
    assert sum(len(kept) for kept in pruned.kept.values()) < 16
    assert pruned.extra["residual"] < 0.5  # weights were squeezed by the penalties before they were cut
    assert [record["step"] for record in pruned.history][-1] == 40
    assert all("loss" in record for record in pruned.history)


def test_a_loop_that_shows_no_steps_is_refused() -> None:
    task = Loop(silent=True)
    with pytest.raises(InputError, match=r"fit showed 0 steps of \d+ to its hooks"):
        paretoprune.prune(network(), task.example(), method="increg", flops=0.4, task=task, steps=40)


def test_several_optimisers_are_refused() -> None:
    task = Loop(optimizers=2)
    with pytest.raises(InputError, match="Module has 2 and steps itself"):
        paretoprune.prune(network(), task.example(), method="increg", flops=0.4, task=task, steps=40)


def test_data_beside_a_loop_are_refused() -> None:
    with pytest.raises(InputError, match="reads its own data: leave train= and validation= out"):
        paretoprune.prune(network(), Loop().example(), task=Loop(), train=data())


def test_without_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    with pytest.raises(InputError, match="needs the package lightning; install it"):
        paretoprune.lightning_callback(None)  # type: ignore[arg-type]
