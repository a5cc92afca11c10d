"""Samplers as somebody else would write them."""

from __future__ import annotations

from collections.abc import Sequence

from search.study.samplers.base import Aim, CostOf, Tried
from spaces import Space, Value


class Halving:
    """Half of the FLOPs of the trial that was told last."""

    def __init__(self, aim: Aim, seed: int) -> None:
        self.share = 0.8

    def observe(self, trial: Tried) -> None:
        self.share = float(trial.point["sparsity.flops"]) / 2

    def propose(self, history: Sequence[Tried], space: Space, cost: CostOf, n: int) -> list[dict[str, Value]]:
        own: dict[str, Value] = {"sparsity.mode": "flops", "sparsity.flops": self.share, "sparsity.tilt": 0.0}
        point: dict[str, Value] = {f"magnitude.{name}": value for name, value in own.items()}
        return [{"method": "magnitude", **point}] * n


class NoSampler:
    """Lacks both acts."""
