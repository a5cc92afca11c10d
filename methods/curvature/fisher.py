"""The Fisher matrix of a network: what is sent backward so that squared gradients add up to it.

The Fisher of one input is ``E_y [grad log p(y) grad log p(y)^T]``, with targets ``y`` that follow the *network's own*
predictive distribution ``p`` (the data's targets give the so-called empirical Fisher, another matrix). Which
distribution that is, and how its gradient looks at the output, is the task's to say
(:meth:`methods.contract.task.Task.fisher_gradient`). A classifier draws labels from its softmax: at the logits the
gradient of the cross-entropy is ``p - e_y``, so that the expectation there is ``diag(p) - p p^T``, which is also the
Hessian of the cross-entropy. So it is for every task here: Fisher and generalised Gauss-Newton matrix agree.

Each way to estimate it is a list of gradients at the output, scaled such that the *sum* over the list of the squares
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

from methods.contract.classification import Classification
from methods.contract.inputs import Target
from methods.contract.task import Task

Fisher = Literal["mc", "exact", "empirical"]
"""Targets drawn from the network's own predictions, all outcomes weighted by them, or the targets of the data."""

Gradients = Callable[[Tensor, Target], Iterable[Tensor]]
"""From the outputs and targets of a batch, gradients of the sum of per-sample losses at the outputs."""


def gradients_of(
    fisher: Fisher, draws: int = 1, generator: torch.Generator | None = None, task: Task | None = None
) -> Gradients:
    """Choose what is sent backward from the output.

    Args:
        fisher: Which targets.
        draws: Targets drawn per input, if ``fisher`` is ``"mc"``; each is one backward pass.
        generator: Where they are drawn from.
        task: What the network is for; classification by default.

    Returns:
        From outputs ``[batch, ...]`` and the data's targets, gradients like the outputs, one backward pass each. The
        sum of ``g g^T`` over all of them is, for each sample, the Fisher at its output (an estimate of it, if targets
        are drawn; its empirical counterpart, if they are the data's).

    Raises:
        ValueError: If targets are to be drawn and there is no generator, or less than one draw.
    """
    task = Classification() if task is None else task
    if fisher == "mc" and (generator is None or draws < 1):
        raise ValueError(f"drawn labels need a generator and at least one draw, not {generator} and {draws}")
    if fisher == "mc" and generator is not None:
        return partial(_yield_sampled, task=task, draws=draws, generator=generator)
    return partial(_yield_exact if fisher == "exact" else _yield_empirical, task=task)


def _yield_sampled(
    output: Tensor, target: Target, task: Task, draws: int, generator: torch.Generator
) -> Iterator[Tensor]:
    task.check(output, target)
    for _ in range(draws):
        drawn = task.draw_target(output.detach(), generator, like=target)
        yield task.fisher_gradient(output.detach(), drawn) / sqrt(draws)


def _yield_exact(output: Tensor, target: Target, task: Task) -> Iterator[Tensor]:
    task.check(output, target)
    yield from task.exact_gradients(output.detach(), target)


def _yield_empirical(output: Tensor, target: Target, task: Task) -> Iterator[Tensor]:
    task.check(output, target)
    yield task.fisher_gradient(output.detach(), target)
