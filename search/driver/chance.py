"""Whether the dense network has learned anything: pruning one that has not only compares accidents.

A permutation test that holds for every task: the metric with the true targets is compared with the same outputs and
targets in another order (R. A. Fisher, The Design of Experiments, 1935).
"""

from __future__ import annotations

import torch
from torch import nn

from methods.contract.data import Split
from methods.contract.inputs import Target, batch_size, call, take, tensors
from methods.contract.loop import LoopTask
from methods.contract.task import Task
from methods.training.evaluation import evaluation_mode

ORDERS = 19
"""Orders of the targets; a network without knowledge beats all of them in one of twenty cases."""

EXAMPLES = 512
"""Examples that are looked at, drawn from the whole split so that they are of all kinds."""


def chance_warning(model: nn.Module, split: Split, task: Task) -> str | None:
    """Look whether a network answers its inputs, or would do as well on other ones.

    Args:
        model: The trained network.
        split: Validation data.
        task: What the network is for; a loop of the user's own shows no outputs and is not looked at.

    Returns:
        A sentence, or ``None`` where the network is better than with targets in any other order, or where targets do
        not differ.
    """
    if isinstance(task, LoopTask):
        return None
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    with evaluation_mode(model), torch.no_grad():
        inputs, target = next(iter(split.epoch(EXAMPLES, 0)))
        output = task.output(call(model, inputs)).float()

        def measure(found: Target) -> float:
            sums = {name: value.cpu().double() for name, value in task.sums(output, found).items()}
            return task.metrics_from(sums)[task.quality.name]

        orders = [torch.randperm(batch_size(inputs), generator=generator).to(device) for _ in range(ORDERS)]
        moved = [take(target, order) for order in orders]
        if all(_equal(target, other) for other in moved):
            return None
        reached, others = measure(target), [measure(other) for other in moved]
    if all(task.quality.is_better(reached, other) for other in others):
        return None
    shown, chance = (task.quality.text(value) for value in (reached, sorted(others)[ORDERS // 2]))
    return (
        f"the dense network is at chance: {task.quality.title} {shown}, and {chance} with the targets in another "
        "order; train it longer (dense.epochs), or with another learning rate, before it is pruned"
    )


def _equal(one: Target, other: Target) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))
