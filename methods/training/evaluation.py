"""Evaluating a network by its task, and estimating its batch-norm statistics again."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from math import ceil, fsum, log

import torch
from torch import Tensor, nn

from methods.contract.classification import Classification
from methods.contract.data import Split
from methods.contract.inputs import Inputs, call
from methods.contract.loop import LoopTask
from methods.contract.recipe import derive_seed
from methods.contract.task import Sums, Task

REST = 0.01
"""What may be left in running statistics of the weights before."""


@dataclass(frozen=True)
class Evaluation:
    """How a network answers a whole split.

    Attributes:
        loss: Mean loss; NaN where a loop of the user's own gives none.
        metrics: The task's metrics by name, the first one first.
    """

    loss: float
    metrics: Mapping[str, float]

    @property
    def accuracy(self) -> float:
        """Share of right answers, for tasks that measure it."""
        return self.metrics["accuracy"]


def evaluate(
    model: nn.Module, split: Split, batch_size: int = 512, autocast: torch.dtype | None = None, task: Task | None = None
) -> Evaluation:
    """Evaluate in eval mode; modes are restored.

    Args:
        model: The network.
        split: The data.
        batch_size: Examples per forward pass.
        autocast: In what type layers compute, ``torch.bfloat16`` say; ``None`` for that of the weights.
        task: What the network is for; classification by default.

    Returns:
        Loss and metrics.
    """
    task = Classification() if task is None else task
    if isinstance(task, LoopTask):
        with evaluation_mode(model), torch.no_grad():
            found = task.measure_checked(model, split)
        metrics = {metric.name: found[metric.name] for metric in task.metrics if metric.name in found}
        return Evaluation(found.get("loss", float("nan")), metrics)
    device = next(model.parameters()).device
    batches: list[Sums] = []
    # Not inference mode: a split may keep what it computes here and hand it out for training later.
    with evaluation_mode(model), torch.no_grad():
        for inputs, target in split.batches(batch_size):
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                output = task.output(call(model, inputs))
            batches.append(task.sums(output.to(torch.promote_types(output.dtype, torch.float32)), target))
    sums = {name: _total([each[name] for each in batches]) for name in batches[0]}
    return Evaluation(float(sums["loss"] / sums["count"]), task.metrics_from(sums))


def _total(parts: list[Tensor]) -> Tensor:
    """Add up a statistic over batches, float64 on the CPU; numbers without rounding before the last digit."""
    stacked = torch.stack(parts).cpu().double()
    return stacked.sum(dim=0) if stacked.ndim > 1 else torch.tensor(fsum(stacked.tolist()), dtype=torch.float64)


def steps_remembered(model: nn.Module) -> int:
    """Count the steps of training after which running statistics are those of these steps.

    Args:
        model: The network.

    Returns:
        Steps until less than :data:`REST` of what its slowest batch norm had before is left: ``(1 - momentum)^steps``;
        0 without running statistics, and for those that are plain averages, or that stand still, as in eval mode.
    """
    momenta = [norm.momentum for norm in _list_norms(model) if norm.training and norm.momentum and norm.momentum < 1]
    return max((ceil(log(REST) / log(1 - momentum)) for momentum in momenta), default=0)


def recalibrate(model: nn.Module, split: Split, batches: int, batch_size: int, seed: int) -> None:
    """Estimate the running statistics of batch norms again, as plain averages over some batches.

    Args:
        model: The network, changed in place: only running statistics, not the modes.
        split: Training data.
        batches: How many batches to average over; with 0 nothing changes.
        batch_size: Examples per batch.
        seed: Decides which batches.
    """
    norms = _list_norms(model)
    if not norms or batches == 0:
        return
    seen = _inputs(split, batches, batch_size, seed)
    first = next(seen, None)
    if first is None:  # a loop of the user's own that shows no inputs: statistics follow while it trains
        return
    momenta = [norm.momentum for norm in norms]
    with evaluation_mode(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.train()
        for inputs in chain([first], seen):
            call(model, inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _list_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """List the batch norms that have running statistics."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [norm for norm in norms if norm.track_running_stats]


def _inputs(split: Split, batches: int, batch_size: int, seed: int) -> Iterator[Inputs]:
    """Yield the inputs of some batches, over as many epochs as that takes."""
    per_epoch = split.steps(batch_size)
    for done in range(0, batches, per_epoch):
        for inputs, _ in islice(split.epoch(batch_size, derive_seed(seed, done)), batches - done):
            yield inputs


@contextmanager
def evaluation_mode(model: nn.Module) -> Generator[None]:
    """Put the network in eval mode for a while; afterwards each module is in the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
