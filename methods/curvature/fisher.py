"""The Fisher matrix of a classifier: what is sent backward so that squared gradients add up to it.

The Fisher of one input is ``E_y [grad log p(y) grad log p(y)^T]``, with labels ``y`` that follow the *network's*
softmax ``p`` (the data's labels give the so-called empirical Fisher, another matrix). At the logits the gradient of
the cross-entropy is ``p - e_y``, so that the expectation there is ``diag(p) - p p^T``, which is also the Hessian of
the cross-entropy: Fisher and generalised Gauss-Newton matrix agree.

Each way to estimate it is a list of gradients at the logits, scaled such that the *sum* over the list of the squares
of what they become at a layer estimates the Fisher there. Losses are per sample, never averaged over a batch.

James Martens: "New Insights and Perspectives on the Natural Gradient Method", JMLR 21 (2020), arXiv 1412.1193;
Frederik Kunstner, Lukas Balles, Philipp Hennig: "Limitations of the Empirical Fisher Approximation", NeurIPS 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from math import sqrt
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from spaces import InputError

Fisher = Literal["mc", "exact", "empirical"]
"""Labels drawn from the network's softmax, all classes weighted by it, or the labels of the data."""

Gradients = Callable[[Tensor, Tensor], Iterable[Tensor]]
"""From the outputs and labels of a batch, gradients of the sum of per-sample losses at the outputs."""


def drawn_labels(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one label per row.

    The cumulative distribution is inverted rather than ``torch.multinomial`` called: that waits for the device, and
    on a GPU probabilities that are not numbers would end the process.

    Args:
        probabilities: ``[batch, classes]``, rows that add up to 1.
        generator: Where uniform numbers come from; its device need not be that of ``probabilities``.

    Returns:
        Labels, ``[batch]``.
    """
    uniform = torch.rand(len(probabilities), 1, generator=generator, device=generator.device, dtype=torch.float64).to(
        probabilities.device, non_blocking=True
    )
    cumulative = probabilities.double().cumsum(dim=1)
    # Scaled, because a sum of rounded numbers may end below 1: no label then has probability zero.
    beaten = cumulative <= uniform * cumulative[:, -1:]
    return beaten.sum(dim=1).clamp_(max=probabilities.shape[1] - 1)


def gradients_of(fisher: Fisher, draws: int = 1, generator: torch.Generator | None = None) -> Gradients:
    """Choose what is sent backward from the logits.

    Args:
        fisher: Which labels.
        draws: Labels drawn per input, if ``fisher`` is ``"mc"``; each is one backward pass.
        generator: Where they are drawn from.

    Returns:
        From logits ``[batch, classes]`` and the data's labels ``[batch]``, gradients ``[batch, classes]``, one
        backward pass each. The sum of ``g g^T`` over all of them is, for each sample, the Fisher at its logits (an
        estimate of it, if labels are drawn; its empirical counterpart, if they are the data's).

    Raises:
        ValueError: If labels are to be drawn and there is no generator, or less than one draw.
    """
    if fisher != "mc":
        return {"exact": _exact, "empirical": _empirical}[fisher]
    if generator is None or draws < 1:
        raise ValueError(f"drawn labels need a generator and at least one draw, not {generator} and {draws}")
    return partial(_mc, draws=draws, generator=generator)


def _mc(logits: Tensor, labels: Tensor, draws: int, generator: torch.Generator) -> Iterator[Tensor]:
    probabilities = _softmax(logits, labels)
    for _ in range(draws):
        yield _residual(probabilities, drawn_labels(probabilities, generator)) / sqrt(draws)


def _exact(logits: Tensor, labels: Tensor) -> Iterator[Tensor]:
    probabilities = _softmax(logits, labels)
    for label in range(probabilities.shape[1]):
        every = torch.full_like(labels, label, dtype=torch.long)
        yield probabilities[:, label, None].sqrt() * _residual(probabilities, every)


def _empirical(logits: Tensor, labels: Tensor) -> Iterator[Tensor]:
    yield _residual(_softmax(logits, labels), labels)


def _softmax(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        given = f"outputs {list(logits.shape)} for labels {list(labels.shape)}"
        raise InputError(f"the Fisher of a classifier needs outputs [batch, classes] and labels [batch], not {given}")
    return logits.detach().softmax(dim=1)


def _residual(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the cross-entropy at the logits: ``p - e_y``."""
    return probabilities - F.one_hot(labels, probabilities.shape[1]).to(probabilities.dtype)
