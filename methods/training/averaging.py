"""A running average of a network's weights, which is often better than the weights themselves (Polyak, 1992)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class RunningAverage:
    """An exponential average of all floating-point parameters and buffers, in a few fused operations per step.

    Args:
        model: The network; its tensors are referred to, the average begins at what they hold.
        decay: ``d``: after ``t`` steps the average moves by ``1 - min(d, (1 + t) / (10 + t))``, so that it does not
            remember its beginning for long.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._tensors: list[Tensor] = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
        self.means: list[Tensor] = [tensor.detach().clone() for tensor in self._tensors]
        self.steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take the network as it is into the average."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        # m <- m + (1 - d) (w - m)
        torch._foreach_lerp_(self.means, self._tensors, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Put the average into the network and what the network held into its place; twice changes nothing."""
        held = [tensor.detach().clone() for tensor in self._tensors]
        torch._foreach_copy_([tensor.detach() for tensor in self._tensors], self.means)
        torch._foreach_copy_(self.means, held)

    def load(self, means: Sequence[Tensor], steps: int) -> None:
        """Continue from an average.

        Args:
            means: :attr:`means` of then.
            steps: :attr:`steps` of then.
        """
        torch._foreach_copy_(self.means, list(means))
        self.steps = steps
