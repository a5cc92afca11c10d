"""A small setting, and trials that are known in advance."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from methods.contract.recipe import Recipe
from methods.contract.sample_problem import IMAGE, blobs, build_seeded, chain_network
from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.trials.trial import Setting
from spaces import Value

POINT: dict[str, Value] = {"sparsity.mode": "uniform", "sparsity.ratio": 0.5}


def make_tiny_setting(steps: int = 2) -> Setting:
    """A network and data so small that a trial takes an instant."""
    return Setting(
        model=build_seeded(chain_network, trained=True),
        example=torch.zeros(1, *IMAGE),
        train=blobs(IMAGE, 64),
        validation=blobs(IMAGE, 40, seed=1, noise=0),
        recipe=Recipe(lr=0.05, batch_size=32, recalibrate=1),
        steps=steps,
        objectives=("accuracy", "flops"),
    )


class Trials:
    """A study of a few trials."""

    def __init__(self, specs: Sequence[TrialSpec]) -> None:
        self._left, self._told = list(specs), 0

    def open_trials(self) -> list[TrialSpec]:
        return []

    def count_told(self) -> int:
        return self._told

    def ask(self) -> TrialSpec:
        return self._left.pop(0)

    def tell(self, outcome: Outcome) -> None:
        self._told += 1

    def pause(self, outcome: Outcome) -> None: ...
