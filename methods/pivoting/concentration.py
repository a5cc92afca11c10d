"""What pivots maximise, and training that moves it into the blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from methods.contract.classification import Classification
from methods.contract.data import Split
from methods.contract.inputs import call
from methods.contract.method import Record
from methods.contract.task import Task
from methods.pivoting.block_matrices import Booleans, Floats, Pivots
from methods.pivoting.pivoted_network import Plan, expand_mask
from methods.pivoting.pivots import search
from methods.training.trainer import Hook

Score = Literal["energy", "l1", "taylor", "fisher"]

ENOUGH = 0.95
"""When the blocks retain so much of the scores, pivots stay as they are."""


class Scores:
    """Scores of the entries of layers: sums over the weights of a kernel.

    ``energy``: squares of weights; ``l1``: absolute values; ``taylor``: absolute values of weight times gradient;
    ``fisher``: squares of weights times squares of gradients (of whole batches, a running mean).

    Args:
        model: The network.
        names: Its layers.
        how: What is summed.
        task: Whose loss is differentiated; classification by default.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], how: Score, task: Task | None = None) -> None:
        self.model, self.how = model, how
        self.task: Task = Classification() if task is None else task
        self.weights = {name: _weight(model, name) for name in names}
        self.curvature = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.seen = 0

    @property
    def needs_gradients(self) -> bool:
        """Whether gradients have to be seen first."""
        return self.how in ("taylor", "fisher")

    def look(self, data: Split, batches: int, batch_size: int, seed: int) -> None:
        """Take gradients of some batches, if the scores need any; the network is as it was afterwards.

        Args:
            data: Training data.
            batches: How many.
            batch_size: Examples per batch.
            seed: Decides which.
        """
        if not (self.needs_gradients and self.weights):  # where nothing can be blocked there is nothing to score
            return
        self.model.eval()
        for inputs, target in islice(data.epoch(batch_size, seed), batches):
            loss = self.task.loss(self.task.output(call(self.model, inputs)), target)
            weights = list(self.weights.values())
            self._see(dict(zip(self.weights, torch.autograd.grad(loss, weights), strict=True)))

    def observe(self) -> None:
        """Take the gradients that the training loop has just computed, if the scores need any."""
        if self.needs_gradients:
            self._see({name: w.grad for name, w in self.weights.items() if w.grad is not None})

    def _see(self, gradients: Mapping[str, Tensor]) -> None:
        self.seen += 1
        with torch.no_grad():
            for name, gradient in gradients.items():
                new = (gradient * self.weights[name]).abs() if self.how == "taylor" else gradient.square()
                self.curvature[name].lerp_(new, max(0.1, 1 / self.seen))

    def entries(self) -> dict[str, Floats]:
        """Return the scores.

        Returns:
            ``[rows, columns]`` by name of layer, on the CPU.
        """
        found = {}
        for name, weight in self.weights.items():
            w = weight.detach().double()
            how: dict[Score, Callable[[], Tensor]] = {
                "energy": w.square,
                "l1": w.abs,
                "taylor": self.curvature[name].double,
                "fisher": lambda w=w, c=self.curvature[name]: w.square() * c.double(),  # type: ignore[misc]
            }
            found[name] = np.asarray(how[self.how]().flatten(2).sum(2).cpu() if w.ndim > 2 else how[self.how]().cpu())
        return found


def survivors(
    scores: Mapping[str, Floats], weights: Mapping[str, Tensor], densities: Mapping[str, float]
) -> dict[str, Floats]:
    """Score only what unstructured magnitude pruning to the same densities would leave.

    Args:
        scores: ``[rows, columns]`` by name of layer.
        weights: ``[rows, columns, ...]`` by name of layer.
        densities: Share of the weights to leave.

    Returns:
        The scores times the share of each entry's squared weights that survives.
    """
    found = {}
    for name, entries in scores.items():
        w = weights[name].detach().double().reshape(*entries.shape, -1).cpu()
        count = max(1, round(densities[name] * w.numel()))
        threshold = w.abs().flatten().kthvalue(w.numel() - count + 1).values
        total = w.square().sum(2)
        left = (w.square() * (w.abs() >= threshold)).sum(2)
        found[name] = entries * np.asarray(left / total.clamp_min(torch.finfo(torch.float64).tiny))
    return found


def noise(scores: Mapping[str, Floats], seed: int) -> dict[str, Floats]:
    """Replace scores by random numbers.

    Args:
        scores: ``[rows, columns]`` by name of layer.
        seed: Decides the numbers.

    Returns:
        Numbers between 0 and 1 of the same shapes.
    """
    rng = np.random.default_rng(seed)
    return {name: rng.random(entries.shape) for name, entries in scores.items()}


def share_retained(scores: Mapping[str, Floats], masks: Mapping[str, Booleans]) -> dict[str, float]:
    """Return the share of each layer's scores inside its blocks.

    Args:
        scores: ``[rows, columns]`` by name of layer.
        masks: Kept entries by name of layer.

    Returns:
        Shares by name; 1 for a layer of zeros, which loses nothing.
    """
    totals = {name: float(scores[name].sum()) for name in masks}
    return {
        name: float(scores[name][mask].sum()) / totals[name] if totals[name] > 0 else 1.0
        for name, mask in masks.items()
    }


class Concentration(Hook):
    """Shrinks what lies outside the blocks after every step, and moves the blocks to where the scores are.

    A weight outside the blocks is multiplied with ``1 - d`` after each step, with ``d`` growing linearly to
    ``decay``. Pivots are searched again every ``interval`` steps, from where they are, until they retain
    :data:`ENOUGH` or the last quarter of the time has come.

    Args:
        scores: What pivots maximise.
        plan: The matrices of the network.
        pivots: Where to start.
        steps: Length of the phase.
        interval: Steps between searches.
        decay: Largest ``d``.
        measure: Measures the network with these masks, at the end of an epoch.
    """

    def __init__(
        self,
        scores: Scores,
        plan: Plan,
        pivots: Pivots,
        steps: int,
        interval: int,
        decay: float,
        measure: Callable[[Mapping[str, Booleans]], Record],
    ) -> None:
        self.scores, self.plan, self.pivots, self.measure = scores, plan, pivots, measure
        self.steps, self.interval, self.decay = steps, interval, decay
        self._take(pivots)

    def before_step(self, step: int, lr: float) -> None:
        """Look at the gradients.

        Args:
            step: Index of the step.
            lr: Not used.
        """
        self.scores.observe()

    def after_step(self, step: int) -> None:
        """Shrink, and from time to time search.

        Args:
            step: Index of the step.
        """
        shrink = self.decay * (step + 1) / self.steps
        with torch.no_grad():
            for name, outside in self._outside.items():
                weight = self.scores.weights[name]
                weight.sub_(weight * outside, alpha=shrink)
        done = step + 1
        if done % self.interval == 0 and done <= 0.75 * self.steps and self._measure_inside() < ENOUGH:
            entries = self.plan.fill_scores(self.scores.entries())
            self._take(search(entries, self.plan.slots, start=self.pivots.orders, still=self.plan.still))

    def epoch_end(self) -> Record:
        """Return how much the present blocks retain, and what the network is worth without the rest.

        Returns:
            ``retained``: mean share of the layers' scores inside their blocks; and what was measured.
        """
        return {"retained": self._measure_inside()} | self.measure(self.masks)

    def state_dict(self) -> dict[str, Any]:
        """Return the pivots and the running means.

        Returns:
            Tensors and plain values.
        """
        return {
            "orders": [torch.from_numpy(order) for order in self.pivots.orders],
            "kept": [torch.from_numpy(kept) for kept in self.pivots.kept],
            "curvature": self.scores.curvature,
            "seen": self.scores.seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state.

        Args:
            state: What :meth:`state_dict` returned.
        """
        for name, value in state["curvature"].items():
            self.scores.curvature[name].copy_(value)
        self.scores.seen = state["seen"]
        orders, kept = (tuple(tensor.numpy() for tensor in state[key]) for key in ("orders", "kept"))
        self._take(Pivots(orders, kept, (), ()))

    def _take(self, pivots: Pivots) -> None:
        self.pivots = pivots
        self.masks = self.plan.masks(pivots)
        self._outside = {name: 1 - expand_mask(mask, self.scores.weights[name]) for name, mask in self.masks.items()}

    def _measure_inside(self) -> float:
        shares = share_retained(self.scores.entries(), self.masks)
        return sum(shares.values()) / len(shares)


def _weight(model: nn.Module, name: str) -> Tensor:
    weight = model.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight
