"""Our own parts pass the contract tests that others import, and the tests can fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from methods.contract.classification import Classification
from methods.contract.testing import check_layer, check_task
from methods.pivoting.arrangement import PivotSpec
from methods.pivoting.blocks import keep_blocks
from search.objectives import OBJECTIVES
from search.study.config import Resources
from search.testing import check_executor, check_objective, check_sampler
from search.workers.inline import InlinePool, inline_pool

HALVES = PivotSpec(torch.arange(8).reshape(2, 4), torch.arange(2), torch.arange(8))


def test_our_executor(tmp_path: Path) -> None:
    check_executor(inline_pool, tmp_path)


def test_an_executor_that_tells_before_it_writes_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hasty(InlinePool):
        def run(self, schedule: Any, setting: Any, files: Any, on_started: Any) -> None:
            monkeypatch.setattr(type(files), "write", lambda self, finished: None)
            super().run(schedule, setting, files, on_started)

    def make(resources: Resources, gpus_per_trial: float, warn: Callable[[str], None]) -> Hasty:
        return Hasty()

    with pytest.raises(Exception, match="trial 0"):
        check_executor(make, tmp_path)


@pytest.mark.parametrize("name", ["flops", "params"])
def test_our_objectives(name: str) -> None:
    check_objective(OBJECTIVES[name])


class Forgetful:
    """Counts its own calls: what it proposes depends on more than its seed and the trials."""

    calls = 0

    def __init__(self, aim: Any, seed: int) -> None: ...

    def observe(self, trial: Any) -> None: ...

    def propose(self, history: Any, space: Any, cost: Any, n: int) -> list[Any]:
        Forgetful.calls += 1
        return [space.sample(Forgetful.calls)] * n


def test_a_sampler_that_depends_on_more_than_the_trials_fails() -> None:
    with pytest.raises(AssertionError, match="a resumed sweep must ask the same points"):
        check_sampler(Forgetful)


def test_our_task_and_layers() -> None:
    check_task(Classification(), torch.randn(6, 4), torch.arange(6) % 4)
    check_layer(keep_blocks(nn.Conv2d(8, 8, 3, padding=1), HALVES), torch.randn(2, 8, 5, 5))
    check_layer(keep_blocks(nn.Linear(8, 8), HALVES), torch.randn(3, 8))


def test_a_layer_whose_forms_differ_fails() -> None:
    class Wrong(nn.Linear):
        def equal_forms(self) -> dict[str, nn.Module]:
            return {"own": Wrong(2, 2), "other": nn.Linear(2, 2)}

    with pytest.raises(AssertionError, match="own does not give the same answer"):
        check_layer(Wrong(2, 2), torch.ones(1, 2))
