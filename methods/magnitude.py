"""L1 magnitude: remove the filters with the smallest weights, then fine-tune. The baseline to beat.

Hao Li, Asim Kadav, Igor Durdanovic, Hanan Samet, Hans Peter Graf: "Pruning Filters for Efficient ConvNets",
ICLR 2017, arXiv 1608.08710.

The paper ranks the filters of one layer by their L1 norm (section 3.1) and, where a shortcut ties layers
together, lets the projection alone decide (section 3.3). Here every layer of a coupled group has a say: the
norms of each layer are divided by their mean over the layer and then added, so that layers of different size
count alike. The paper sets sparsity by hand after a sensitivity analysis; here it is a parameter.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from methods.contract.method import Problem
from methods.network.channels import ChannelGroup
from methods.network.importance import l1_importance
from methods.training.one_shot_method import OneShot


class Magnitude(OneShot):
    """Keep the channels with the largest filters.

    Attributes:
        sparsity: How many channel units of each group are kept.
        round_to: Widths are multiples of this.
    """

    title: ClassVar[str] = "L1 norm of coupled filters, one shot"
    source: ClassVar[str] = "Li, Kadav, Durdanovic, Samet, Graf, 2017, arXiv 1608.08710"

    def score(self, problem: Problem, group: ChannelGroup) -> Tensor:
        """Sum up the L1 norms of a unit's filters, those of every layer divided by their mean.

        Args:
            problem: The network.
            group: The group.

        Returns:
            ``[units]``.
        """
        return l1_importance(problem.model, group)
