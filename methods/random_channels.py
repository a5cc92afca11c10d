"""Random channels: the control. Whatever a method gains over this, its choice of channels has earned.

Deepak Mittal, Shweta Bhardwaj, Mitesh M. Khapra, Balaraman Ravindran: "Recovering from Random Pruning: On the
Plasticity of Deep Convolutional Neural Networks", WACV 2018, arXiv 1801.10447. They find that after
fine-tuning random choices come close to careful ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field

from methods.contract.method import Method, Preview, Problem, Pruned
from methods.training.one_shot import allot_widths, prune_once
from spaces import LayerGroup, Space, Sparsity, sparsity_space


class RandomChannels(Method):
    """Keep channels drawn at random.

    Attributes:
        sparsity: How many channel units of each group are kept.
        round_to: Widths are multiples of this.
    """

    title: ClassVar[str] = "random channels, one shot (control)"
    source: ClassVar[str] = "Mittal, Bhardwaj, Khapra, Ravindran, 2018, arXiv 1801.10447"
    flops_parameter: ClassVar[str | None] = "sparsity.flops"
    rounds_widths: ClassVar[bool] = True

    sparsity: Sparsity
    round_to: int = Field(default=1, ge=1)

    @classmethod
    def space(cls, groups: Sequence[LayerGroup]) -> Space:
        """Return the search space: sparsity alone.

        Args:
            groups: The prunable channel groups.

        Returns:
            The space.
        """
        return sparsity_space(groups, damage=True)

    def preview(self, problem: Problem) -> Preview:
        """Say what the chosen widths cost.

        Args:
            problem: The network.

        Returns:
            The exact cost.
        """
        return problem.preview(allot_widths(problem, self.sparsity, self.round_to)[1])

    def prune(self, problem: Problem) -> Pruned:
        """Draw, cut and fine-tune.

        Args:
            problem: The network, the data, the budget and the generator to draw from.

        Returns:
            The smaller network.
        """
        return prune_once(
            problem,
            self.sparsity,
            self.round_to,
            lambda group: torch.rand(group.channels, generator=problem.generator),
        )
