"""A dense network that has learned nothing is told before it is pruned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from methods.contract.classification import Classification
from methods.contract.data import Split
from methods.contract.task import Task
from search.driver import league, sweep
from search.driver.chance import chance_warning
from search.tasks.data.splits import TensorSplit
from search.tasks.regression import Regression
from tests.search.cases import Warned, make_quick_config


class Answers(nn.Module):
    """Hands its inputs on, but for a parameter that gives it a device."""

    def __init__(self, constant: bool = False) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1))
        self.constant = constant

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x + self.place if self.constant else x


def labelled(noise: float, classes: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (300,), generator=generator).sort().values  # of one class after the other
    logits = nn.functional.one_hot(labels, 5).float() + noise * torch.randn(300, 5, generator=generator)
    return logits, labels


def split(inputs: Tensor, targets: Tensor) -> TensorSplit:
    return TensorSplit(inputs, targets, [0.0] * 5, [1.0] * 5)


@pytest.mark.parametrize(
    ("task", "noise", "constant", "warned"),
    [
        (Classification(), 0.5, False, False),
        (Classification(), 1e6, False, True),
        (Classification(), 0.0, True, True),  # one answer for all inputs
        (Regression(), 0.5, False, False),
        (Regression(), 1e6, False, True),
    ],
)
def test_chance_is_what_answers_reach_with_other_targets(
    task: Task, noise: float, constant: bool, warned: bool
) -> None:
    logits, labels = labelled(noise)
    target = labels if isinstance(task, Classification) else nn.functional.one_hot(labels, 5).float()
    said = chance_warning(Answers(constant), split(logits, target), task)
    assert (said is not None) == warned
    assert said is None or (task.quality.title in said and "dense.epochs" in said)


def test_targets_that_do_not_differ_say_nothing() -> None:
    logits, labels = labelled(0.5, classes=1)
    assert chance_warning(Answers(), split(logits, labels), Classification()) is None


def test_trainings_of_the_dense_network_and_leagues_say_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[nn.Module, int]] = []

    def warn(model: nn.Module, split: Split, task: Task) -> str:
        asked.append((model, split.examples))
        return "at chance"

    for module in (sweep, league):
        monkeypatch.setattr(module, "chance_warning", warn)
    config = make_quick_config(tmp_path, shares=[0.5], dense={"epochs": 0.1})
    heard = Warned()
    sweep.train_dense(config, heard)
    assert heard.warnings == ["at chance"]
    said: list[str] = []
    job = league.League(config, ("magnitude",), "l", 2, say=said.append)
    for seed in (0, 1):
        next(job._jobs(seed, tmp_path))
    assert said == ["warning: at chance"], "the seeds share the network"
    assert [size for _, size in asked] == [359, 359], "validation"
