"""Methods that score channels once, cut and fine-tune: they differ in the score alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from methods.contract.method import Method, Preview, Problem, Pruned
from methods.network.channels import ChannelGroup
from methods.training.one_shot import preview_widths, prune_once
from spaces import LayerGroup, Space, Sparsity, Value, sparsity_space


class OneShot(Method):
    """Keep the channels with the highest scores.

    Attributes:
        sparsity: How many channel units of each group are kept.
        round_to: Widths are multiples of this.
    """

    flops_parameter: ClassVar[str | None] = "sparsity.flops"
    rounds_widths: ClassVar[bool] = True
    by_damage: ClassVar[Mapping[str, Value]] = {"sparsity.mode": "damage"}
    removes_blocks: ClassVar[bool] = True

    sparsity: Sparsity
    round_to: int = Field(default=1, ge=1)

    @abstractmethod
    def score(self, problem: Problem, group: ChannelGroup) -> Tensor:
        """Score the units of one group; called once per group, in order.

        Args:
            problem: The network, the data and the generator to draw from.
            group: The group.

        Returns:
            Importance, ``[units]``; the highest stay.
        """

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
        return preview_widths(problem, self.sparsity, self.round_to)

    def prune(self, problem: Problem) -> Pruned:
        """Score, cut and fine-tune.

        Args:
            problem: The network, the data, the budget and the generator.

        Returns:
            The smaller network.
        """
        return prune_once(problem, self.sparsity, self.round_to, lambda group: self.score(problem, group))
