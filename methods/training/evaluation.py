"""Evaluating a network, and estimating its batch-norm statistics anew."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from math import fsum

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.contract.data import Split
from methods.contract.recipe import derive_seed


@dataclass(frozen=True)
class Evaluation:
    """How a network answers a whole split.

    Attributes:
        loss: Mean cross-entropy.
        accuracy: Share of right answers: an exact count divided by the number of examples.
    """

    loss: float
    accuracy: float


def evaluate(model: nn.Module, split: Split, batch_size: int = 512, bf16: bool = False) -> Evaluation:
    """Evaluate in eval mode; modes are restored.

    Args:
        model: The network.
        split: The data.
        batch_size: Examples per forward pass.
        bf16: Whether layers compute in bfloat16.

    Returns:
        Loss and accuracy.
    """
    device = next(model.parameters()).device
    losses: list[Tensor] = []
    hits: list[Tensor] = []
    # Not inference mode: a split may keep what it computes here and hand it out for training later.
    with _eval_mode(model), torch.no_grad():
        for inputs, labels in split.batches(batch_size):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = model(inputs)
            losses.append(F.cross_entropy(logits.float(), labels, reduction="sum"))
            hits.append((logits.argmax(dim=-1) == labels).sum())
    correct = int(torch.stack(hits).sum())
    return Evaluation(fsum(torch.stack(losses).tolist()) / split.examples, correct / split.examples)


def recalibrate(model: nn.Module, split: Split, batches: int, batch_size: int, seed: int) -> None:
    """Estimate the running statistics of batch norms anew, as plain averages over some batches.

    Args:
        model: The network, changed in place: only running statistics, not the modes.
        split: Training data.
        batches: How many batches to average over; with 0 nothing changes.
        batch_size: Examples per batch.
        seed: Decides which batches.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms or batches == 0:
        return
    momenta = [norm.momentum for norm in norms]
    per_epoch = split.steps(batch_size)
    with _eval_mode(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.train()
        for done in range(0, batches, per_epoch):
            for inputs, _ in islice(split.epoch(batch_size, derive_seed(seed, done)), batches - done):
                model(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@contextmanager
def _eval_mode(model: nn.Module) -> Generator[None]:
    """Put the network in eval mode for a while; afterwards each module is in the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
