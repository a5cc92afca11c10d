"""Selecting the units of one layer of a network: what a candidate is judged by, and on which images.

Objectives of a layer's mask: the loss of the whole network (cross-entropy in the ICML paper), the same after a
screening by its derivative, and the imitation of what the layer's consumers compute (the follow-up paper); see
``methods.greedy.forward_selection`` for both. All run in eval mode and leave running statistics alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

import torch
from torch import Tensor, nn

from methods.contract.classification import Classification
from methods.contract.data import Batch, Split
from methods.contract.inputs import Target, batch_size, get_first_tensor, repeat
from methods.contract.recipe import derive_seed
from methods.contract.task import Sums, Task
from methods.curvature.covariances import collect_factors
from methods.curvature.finite import origin
from methods.curvature.passes import keep_full_precision
from methods.greedy.forward_selection import RULES, Ordering, Step, forward_selection, grid_line_search
from methods.greedy.imitation import Imitation, gram_matrix
from methods.greedy.masked_network import MaskedNetwork, build_masked_network, follow
from methods.greedy.readers import readers
from methods.network.channels import ChannelGroup
from spaces import InputError

BatchMode = Literal["fresh_per_step", "fixed_per_layer", "fixed_global"]
RuleName = Literal["uniform_norepeat", "uniform_repeat", "linesearch", "norepeat_noscale"]
Judge = Literal["global_ce", "global_taylor_screen", "local_gram"]
ObjectiveName = Literal["global_ce", "global_taylor_screen", "local_gram", "best_of_both"]
OBJECTIVES: Mapping[ObjectiveName, tuple[Judge, ...]] = {
    "global_ce": ("global_ce",),
    "global_taylor_screen": ("global_taylor_screen",),
    "local_gram": ("local_gram",),
    "best_of_both": ("global_ce", "local_gram"),
}
"""What layers are judged by: one thing, or several of which the best counts."""

IMAGES_AT_ONCE = {"cpu": 512, "cuda": 8192}
"""Images (candidates times batch) in one pass, by device: more gain nothing there."""

SUBSET_LEAST = 512
"""Images that metrics are taken on, at least (where there are so many)."""


@dataclass(frozen=True)
class Search:
    """How units are selected.

    Attributes:
        rule: The step rule.
        candidates: Units tried in a step.
        screen: Share of them that is evaluated after screening.
        batch: Images per step.
        batches: When new images are drawn.
        stride: One of so many training images is in the subset that metrics are taken on.
    """

    rule: RuleName = "uniform_norepeat"
    candidates: int = 50
    screen: float = 0.25
    batch: int = 128
    batches: BatchMode = "fresh_per_step"
    stride: int = 200


@dataclass(frozen=True)
class MaskedLoss:
    """Mean loss of a network on one batch, as a function of the mask of one layer.

    Attributes:
        network: The network, with the batch loaded.
        target: The targets of the batch.
        task: Whose loss it is.
    """

    network: MaskedNetwork
    target: Target
    task: Task = field(default_factory=Classification)

    def losses(self, mask: Tensor, candidates: Tensor, keep: Tensor, add: Tensor) -> Tensor:
        """Evaluate steps towards several candidates, some at once.

        Args:
            mask: Present mask, ``[units]``.
            candidates: Units to step towards, ``[candidates]``.
            keep: What the present mask is multiplied with, ``[candidates]``.
            add: What is added at the candidate, ``[candidates]``.

        Returns:
            The losses, ``[candidates]``.
        """
        with torch.no_grad(), keep_full_precision():
            answers = self.network.run_candidates(mask, candidates, keep, add, self._masks_at_once())
            return torch.cat([self._means(some) for some in answers])

    def line_search(self, mask: Tensor, candidates: Tensor, usual: float) -> tuple[Tensor, Tensor]:
        """Find how far to step towards the best candidate, on a grid.

        Args:
            mask: Present mask, ``[units]``.
            candidates: Units to step towards, ``[candidates]``.
            usual: The uniform step.

        Returns:
            Losses and steps, ``[candidates]`` each.
        """
        return grid_line_search(self, mask, candidates, usual)

    def slopes(self, mask: Tensor) -> Tensor:
        """Differentiate the loss with respect to the mask.

        Args:
            mask: ``[units]``.

        Returns:
            ``[units]``; what shortcuts pass on without weights has no part in it.
        """
        free = mask.to(get_first_tensor(self.target).device).detach().requires_grad_(True)
        with torch.enable_grad(), keep_full_precision():
            loss = self._means(self.network.outputs(free[None])).sum()
            return torch.autograd.grad(loss, free)[0].to(mask.device)

    def sums(self, masks: Tensor) -> list[Sums]:
        """Take the statistics from which the task's metrics follow.

        Args:
            masks: ``[masks, units]``.

        Returns:
            Those of the batch under each mask, float64 on the device.
        """
        found: list[Sums] = []
        with torch.no_grad(), keep_full_precision():
            for part in masks.split(self._masks_at_once()):
                found += [self.task.sums(output, self.target) for output in self.network.outputs(part)]
        return [{name: each.double() for name, each in sums.items()} for sums in found]

    def _masks_at_once(self) -> int:
        return max(1, IMAGES_AT_ONCE.get(get_first_tensor(self.target).device.type, 512) // batch_size(self.target))

    def _means(self, outputs: Tensor) -> Tensor:
        """Mean losses under each mask, ``[masks]``, of outputs ``[masks, batch, ...]``."""
        # Candidates differ by as little as 1e-4 of the loss: never in less than float32.
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        losses = self.task.sample_losses(outputs.flatten(0, 1), repeat(self.target, len(outputs)))
        return losses.view(len(outputs), -1).mean(1)


@dataclass(frozen=True)
class Screened:
    """Loss of the candidates that its first derivative makes promising.

    Attributes:
        exact: The loss.
        share: Share of the candidates that is evaluated.
    """

    exact: MaskedLoss
    share: float

    def losses(self, mask: Tensor, candidates: Tensor, keep: Tensor, add: Tensor) -> Tensor:
        """Evaluate the steps along which the loss falls most steeply.

        Args:
            mask: Present mask, ``[units]``.
            candidates: Units to step towards, ``[candidates]``.
            keep: What the present mask is multiplied with, ``[candidates]``.
            add: What is added at the candidate, ``[candidates]``.

        Returns:
            The losses, ``[candidates]``; infinite for those not evaluated.
        """
        best = self._promising(taylor_scores(self.exact.slopes(mask), mask, candidates, keep, add))
        found = self.exact.losses(mask, candidates[best], keep[best], add[best])
        return found.new_full((len(candidates),), torch.inf).index_copy(0, best.to(found.device), found)

    def line_search(self, mask: Tensor, candidates: Tensor, usual: float) -> tuple[Tensor, Tensor]:
        """Find how far to step towards the best of the promising candidates.

        Args:
            mask: Present mask, ``[units]``.
            candidates: Units to step towards, ``[candidates]``.
            usual: The uniform step.

        Returns:
            Losses and steps, ``[candidates]`` each; infinite and 0 for those not evaluated.
        """
        eta = torch.full((len(candidates),), usual, dtype=mask.dtype)
        scores = taylor_scores(self.exact.slopes(mask), mask, candidates, 1 - eta, eta * len(mask))
        best = self._promising(scores)
        losses, etas = self.exact.line_search(mask, candidates[best], usual)
        everywhere = torch.full((len(candidates),), torch.inf, dtype=losses.dtype).index_copy(0, best, losses)
        return everywhere, torch.zeros_like(eta).index_copy(0, best, etas.to(eta))

    def _promising(self, scores: Tensor) -> Tensor:
        return scores.argsort(stable=True)[: ceil(self.share * len(scores))].sort().values


def taylor_scores(slopes: Tensor, mask: Tensor, candidates: Tensor, keep: Tensor, add: Tensor) -> Tensor:
    """Predict how the loss changes with a step, to first order.

    For convex weights this is ``eta <dL/da, e_c - a>``.

    Args:
        slopes: Derivative of the loss with respect to the mask, ``[units]``.
        mask: Present mask, ``[units]``.
        candidates: ``[candidates]``.
        keep: What the present mask is multiplied with, ``[candidates]``.
        add: What is added at the candidate, ``[candidates]``.

    Returns:
        Changes of the loss, ``[candidates]``.
    """
    return add.to(slopes) * slopes[candidates] + (keep.to(slopes) - 1) * (slopes @ mask.to(slopes))


@dataclass(frozen=True)
class Layer:
    """One layer whose units are to be selected.

    Attributes:
        model: The network, in eval mode.
        network: The same as a function of the layer's mask.
        group: The layer.
        train: Training data.
        subset: Batches that metrics are taken on.
        seed: Decides batches and candidates of this layer.
        shared_seed: Decides the batch that all layers share, where they do.
        task: What the network is for.
    """

    model: nn.Module
    network: MaskedNetwork
    group: ChannelGroup
    train: Split
    subset: Sequence[Batch]
    seed: int
    shared_seed: int
    task: Task = field(default_factory=Classification)

    def qualities(self, masks: Tensor, batches: int | None = None) -> Tensor:
        """Measure the quality, the task's first metric, on the subset.

        Args:
            masks: ``[masks, units]``.
            batches: On how many of its batches; all by default.

        Returns:
            ``[masks]``; a metric of which less is better is negated.
        """
        totals: list[dict[str, Tensor]] = [{} for _ in masks]
        for inputs, target in self.subset[:batches]:
            self.network.load(inputs)
            for total, sums in zip(totals, MaskedLoss(self.network, target, self.task).sums(masks), strict=True):
                total |= {name: total[name] + each if name in total else each for name, each in sums.items()}
        quality = self.task.quality
        sign = 1 if quality.direction == "maximize" else -1
        summed = ({name: each.cpu() for name, each in total.items()} for total in totals)
        return torch.tensor([sign * self.task.metrics_from(total)[quality.name] for total in summed])

    def loss(self, mask: Tensor) -> float:
        """Measure the mean loss on the subset.

        Args:
            mask: ``[units]``.

        Returns:
            The loss.
        """
        total, stay, nothing = 0.0, torch.ones(1), torch.zeros(1)
        for inputs, target in self.subset:
            self.network.load(inputs)
            judged = MaskedLoss(self.network, target, self.task)
            found = judged.losses(mask, torch.zeros(1, dtype=torch.long), stay, nothing)
            total += float(found) * batch_size(target)
        return total / sum(batch_size(target) for _, target in self.subset)


def layers_of(
    model: nn.Module, groups: Sequence[ChannelGroup], train: Split, search: Search, seed: int, task: Task | None = None
) -> Iterator[Layer]:
    """Prepare the layers of a network for selection, one after the other.

    Args:
        model: The network, in eval mode.
        groups: The layers.
        train: Training data.
        search: How units are selected.
        seed: Decides batches and candidates.
        task: What the network is for; classification by default.

    Yields:
        The layers.
    """
    task = Classification() if task is None else task
    graph, subset = follow(model), subset_of(train, search, derive_seed(seed, 0))
    for position, group in enumerate(groups):
        network = build_masked_network(model, graph, group, subset[0][0], task)
        yield Layer(model, network, group, train, subset, derive_seed(seed, 1, position), derive_seed(seed, 2), task)


def subset_of(train: Split, search: Search, seed: int) -> list[Batch]:
    """Draw the images that metrics and covariances are taken on.

    Args:
        train: Training data; augmented, as the authors have it.
        search: How many.
        seed: Which.

    Returns:
        Batches, kept on the device.
    """
    wanted = min(max(train.examples // search.stride, SUBSET_LEAST), train.examples)
    batches: list[Batch] = []
    for inputs, target in train.epoch(search.batch, seed):
        batches.append((inputs, target))
        wanted -= batch_size(inputs)
        if wanted <= 0:
            break
    return batches


def select(layer: Layer, judge: Judge, search: Search) -> Iterator[Step]:
    """Select the units of a layer until all are chosen.

    With rules that repeat, as many repeats as there are units are made in all at most.

    Args:
        layer: The layer.
        judge: What candidates are judged by.
        search: How units are selected.

    Yields:
        The steps.

    Raises:
        InputError: If no candidate has a finite loss; the layer is named, and the one where values stop being
            finite.
    """
    units = layer.group.channels
    generator = torch.Generator().manual_seed(derive_seed(layer.seed, 0))
    objective_at = _JUDGES[judge](layer, search)
    try:
        yield from forward_selection(
            objective_at, units, RULES[search.rule], search.candidates, generator, repeats=units
        )
    except InputError as error:
        where = origin(layer.model, layer.subset[0][0])
        hint = "its masks may overflow" if where is None else f"{where} are not finite"
        raise InputError(f"layer {layer.group.name!r}: {error}; {hint}") from error


def order(layer: Layer, judge: Judge, search: Search, heard: Callable[[int], None] | None = None) -> Ordering:
    """Run the selection of a layer to its end.

    Args:
        layer: The layer.
        judge: What candidates are judged by.
        search: How units are selected.
        heard: Called with every step, with the number of different units chosen before; ``None`` for no reports.

    Returns:
        The ordering, of which every width is a prefix.
    """
    steps: list[Step] = []
    for step in select(layer, judge, search):
        if heard is not None:
            heard(len({step.unit for step in steps}))
        steps.append(step)
    return Ordering.from_steps(steps, layer.group.channels, RULES[search.rule])


def gram_of(layer: Layer) -> Tensor:
    """Compute the Gram matrix of what the units of a layer contribute to its consumers.

    Every consumer counts relative to the power of its whole output, so that none drowns the others.

    Args:
        layer: The layer.

    Returns:
        ``[units, units]``, float64, on the CPU.
    """
    weighted = [reader for reader in readers(layer.model, layer.group) if not reader.lane]
    names = [reader.module for reader in weighted]
    factors = collect_factors(layer.model, layer.subset, names, fisher=None, full=True, task=layer.task)
    total = torch.zeros(layer.group.channels, layer.group.channels, dtype=torch.float64)
    for reader in weighted:
        weight = layer.model.get_submodule(reader.module).weight
        assert isinstance(weight, Tensor)
        gram = gram_matrix(weight, factors[reader.module].inputs, reader.index.to(weight.device)).cpu()
        total += gram / gram.sum().clamp_min(torch.finfo(gram.dtype).tiny)
    return total


def _judge_by_loss(layer: Layer, search: Search) -> Callable[[int], MaskedLoss]:
    batches = batches_for(layer, search)

    def objective(step: int) -> MaskedLoss:
        inputs, target = next(batches)
        layer.network.load(inputs)
        return MaskedLoss(layer.network, target, layer.task)

    return objective


def _judge_by_screened_loss(layer: Layer, search: Search) -> Callable[[int], Screened]:
    exact = _judge_by_loss(layer, search)
    return lambda step: Screened(exact(step), search.screen)


def _judge_by_imitation(layer: Layer, search: Search) -> Callable[[int], Imitation]:
    imitation = Imitation(gram_of(layer))
    return lambda step: imitation


_JUDGES: Mapping[Judge, Callable[[Layer, Search], Callable[[int], MaskedLoss | Screened | Imitation]]] = {
    "global_ce": _judge_by_loss,
    "global_taylor_screen": _judge_by_screened_loss,
    "local_gram": _judge_by_imitation,
}


def batches_for(layer: Layer, search: Search) -> Iterator[Batch]:
    """Draw the images of each step, without end.

    Args:
        layer: The layer.
        search: How many, and when new ones are drawn.

    Yields:
        One batch per step; the same object where it is the same.
    """
    if search.batches == "fresh_per_step":
        epoch = 0
        while True:
            yield from layer.train.epoch(search.batch, derive_seed(layer.seed, 1, epoch))
            epoch += 1
    seed = layer.seed if search.batches == "fixed_per_layer" else layer.shared_seed
    batch = next(iter(layer.train.epoch(search.batch, derive_seed(seed, 1))))
    while True:
        yield batch
