"""Random channels: the control. Whatever a method gains over this, its choice of channels has earned.

Deepak Mittal, Shweta Bhardwaj, Mitesh M. Khapra, Balaraman Ravindran: "Recovering from Random Pruning: On the
Plasticity of Deep Convolutional Neural Networks", WACV 2018, arXiv 1801.10447. They find that after
fine-tuning random choices come close to careful ones.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from methods.contract.method import Problem
from methods.network.channels import ChannelGroup
from methods.training.one_shot_method import OneShot


class RandomChannels(OneShot):
    """Keep channels drawn at random.

    Attributes:
        sparsity: How many channel units of each group are kept.
        round_to: Widths are multiples of this.
    """

    title: ClassVar[str] = "random channels, one shot (control)"
    source: ClassVar[str] = "Mittal, Bhardwaj, Khapra, Ravindran, 2018, arXiv 1801.10447"

    def score(self, problem: Problem, group: ChannelGroup) -> Tensor:
        """Draw a number for every unit.

        Args:
            problem: The generator.
            group: The group.

        Returns:
            ``[units]``, uniform in 0..1.
        """
        return torch.rand(group.channels, generator=problem.generator)
