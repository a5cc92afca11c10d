"""L1 magnitude: remove the filters with the smallest weights, then fine-tune. The baseline to beat.

Hao Li, Asim Kadav, Igor Durdanovic, Hanan Samet, Hans Peter Graf: "Pruning Filters for Efficient ConvNets",
ICLR 2017, arXiv 1608.08710.

The paper ranks the filters of one layer by their L1 norm (section 3.1) and, where a shortcut ties layers
together, lets the projection alone decide (section 3.3). Here every layer of a coupled group has a say: the
norms of each layer are divided by their mean over the layer and then added, so that layers of different size
count alike. The paper sets sparsity by hand after a sensitivity analysis; here it is a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from methods.contract.method import Method, Preview, Problem, Pruned
from methods.network.importance import l1_importance
from methods.training.one_shot import allot_widths, prune_once
from spaces import LayerGroup, Space, Sparsity, sparsity_space


class Magnitude(Method):
    """Keep the channels with the largest filters.

    Attributes:
        sparsity: How many channel units of each group are kept.
        round_to: Widths are multiples of this.
    """

    title: ClassVar[str] = "L1 norm of coupled filters, one shot"
    source: ClassVar[str] = "Li, Kadav, Durdanovic, Samet, Graf, 2017, arXiv 1608.08710"
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
        """Score, cut and fine-tune.

        Args:
            problem: The network, the data and the budget.

        Returns:
            The smaller network.
        """
        return prune_once(problem, self.sparsity, self.round_to, lambda group: l1_importance(problem.model, group))
