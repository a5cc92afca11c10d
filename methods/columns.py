"""Columns of unrolled convolutions: what SPP and IncReg prune in their papers.

A convolution is the product of its weights ``[out, in * height * width]`` and its unrolled input (im2col); a
*column* is one position of one input channel in all filters. A dense kernel runs no faster for zero columns: what
they save is theoretical, but for input channels whose every column is gone, which are cut (in 1x1 convolutions and
linear layers each column is such a channel).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from methods.base import Problem, Pruned, Record
from methods.channels import ChannelGroup, cut
from methods.cost import layer_flops
from methods.evaluation import evaluate, recalibrate
from methods.layers import ZeroPadShortcut
from methods.one_shot import drawn_seed
from methods.recipe import derived
from methods.training import Trainer
from methods.units import Units
from spaces import InputError, LayerGroup


class Columns:
    """The columns of all convolutions and linear layers, as a padded table ``[layers, widest]``.

    Depthwise convolutions, which read one channel per filter, are left alone. In grouped convolutions a column
    is one position in all groups.

    Args:
        model: The network; its weights are referred to, not copied.
        example: One input, ``[1, ...]``.
        groups: The network's channel groups.

    Attributes:
        names: Names of the layers, one per row.
        weights: Their weights.
        valid: Which entries of the table are columns.

    Raises:
        InputError: If there is no such layer.
    """

    def __init__(self, model: nn.Module, example: Tensor, groups: Sequence[ChannelGroup]) -> None:
        self._flops = layer_flops(model, example)
        modules = {name: model.get_submodule(name) for name in self._flops}
        self.weights = {name: weight for name, module in modules.items() if (weight := _matrix(module)) is not None}
        if not self.weights:
            raise InputError(f"nothing to prune in {type(model).__name__}: no convolution or linear layer has columns")
        self.names = list(self.weights)
        self.sizes = [weight[0].numel() for weight in self.weights.values()]
        device = next(model.parameters()).device
        self.valid = torch.arange(max(self.sizes), device=device) < torch.tensor(self.sizes, device=device)[:, None]
        stages = {m.module: group.stage for group in groups for m in group.members if m.side == "out"}
        self.layers = [
            LayerGroup(name, size, stages.get(name, "1x1"), row / max(1, len(self.names) - 1))
            for row, (name, size) in enumerate(zip(self.names, self.sizes, strict=True))
        ]
        """As spaces know them: a layer has its columns where a channel group has its channels."""

    def slices(self) -> list[ColumnSlices]:
        """Say which parts of the weights belong to which columns.

        Returns:
            One entry per layer.
        """
        entries = torch.arange(self.valid.numel(), device=self.valid.device).view_as(self.valid)
        rows = zip(self.weights.values(), entries, self.sizes, strict=True)
        return [ColumnSlices(weight, row[:size]) for weight, row, size in rows]

    def l1(self) -> Tensor:
        """Sum the absolute weights of each column.

        Returns:
            ``[layers, widest]``; 0 where there is no column.
        """
        with torch.no_grad():
            norms = [weight.abs().sum(0).flatten() for weight in self.weights.values()]
            return nn.utils.rnn.pad_sequence(norms, batch_first=True)

    def flops(self, kept: Mapping[str, int]) -> int:
        """Count multiply–accumulates as if columns that are gone cost nothing.

        Args:
            kept: Kept columns by layer; layers that are not named are whole.

        Returns:
            Theoretical multiply–accumulates for one input.
        """
        sizes = dict(zip(self.names, self.sizes, strict=True))
        return sum(
            macs * kept.get(name, sizes[name]) // sizes[name] if name in sizes else macs
            for name, macs in self._flops.items()
        )

    def counts(self, removed: Tensor) -> dict[str, int]:
        """Count what is left of each layer; waits for the device.

        Args:
            removed: Which columns are gone, ``[layers, widest]``.

        Returns:
            Kept columns by layer.
        """
        return dict(zip(self.names, (self.valid & ~removed).sum(1).tolist(), strict=True))


@dataclass(frozen=True)
class ColumnSlices:
    """One weight whose columns are units.

    Attributes:
        parameter: The weight, ``[out, in, ...]``.
        units: For each column, where it is in the flattened table.
    """

    parameter: Tensor
    units: Tensor

    @property
    def broadcast(self) -> tuple[int, ...]:
        """Shape in which one number per column meets the weight."""
        return (1, *self.parameter.shape[1:])


class ZerosStay:
    """A hook that holds columns at zero which are zero when training begins.

    Args:
        model: The network.
    """

    def __init__(self, model: nn.Module) -> None:
        weights = (_matrix(module) for module in model.modules())
        self._weights: list[Tensor] = [weight for weight in weights if weight is not None]
        self._alive = [weight.detach().ne(0).any(0, keepdim=True).to(weight.dtype) for weight in self._weights]

    def before_step(self, step: int, lr: float) -> None:
        """Do nothing.

        Args:
            step: Index of the step.
            lr: Learning rate of the step.
        """

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Undo what the step did to zeros.

        Args:
            step: Index of the step.
        """
        torch._foreach_mul_(self._weights, self._alive)

    def epoch_end(self) -> Record:
        """Add nothing to the record.

        Returns:
            An empty record.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return which columns live.

        Returns:
            One tensor per layer.
        """
        return {"alive": self._alive}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state.

        Args:
            state: What :meth:`state_dict` returned.
        """
        self._alive = state["alive"]


def unread(model: nn.Module, groups: Sequence[ChannelGroup]) -> dict[str, list[int]]:
    """Find the channel units that nothing reads, and list the others; waits for the device.

    Args:
        model: The network; what reads a unit may do so with weights that are all zero.
        groups: Its channel groups.

    Returns:
        Units that are read, ascending, by name of group; at least one of each group. A unit that a shortcut
        carries on without a weight counts as read.
    """
    units = Units(model, groups)
    readers = torch.zeros(units.valid.numel() + 1, dtype=torch.long)
    for slot in units.consumers:
        read = slot.parameter.detach().ne(0).transpose(0, slot.dim).flatten(1).any(1)
        readers.index_add_(0, slot.units.cpu(), read.cpu().long())
    table = readers[:-1].view_as(units.valid)
    kept = {}
    for row, group in zip(table.tolist(), groups, strict=True):
        carried = any(
            member.side == "in" and isinstance(model.get_submodule(member.module), ZeroPadShortcut)
            for member in group.members
        )
        alive = [unit for unit in range(group.channels) if carried or row[unit]]
        kept[group.name] = alive or [0]
    return kept


def cut_and_finetune_columns(
    problem: Problem,
    groups: Sequence[ChannelGroup],
    model: nn.Module,
    history: Sequence[Record],
    extra: Mapping[str, float],
) -> Pruned:
    """Cut channels that nothing reads, estimate batch norm anew and fine-tune; other zero columns stay zero.

    Args:
        problem: The dense network (the teacher, where the recipe distils), the data and the budget.
        groups: Channel groups of the dense network.
        model: The trained network with columns at zero.
        history: Records so far; the last one says how many epochs and steps were used.
        extra: Results of the method so far.

    Returns:
        The smaller network; ``extra`` also holds ``accuracy_cut``, on validation before fine-tuning, and
        ``flops_without_columns``, the theoretical multiply–accumulates if zero columns cost nothing.
    """
    recipe = problem.recipe
    kept = unread(model, groups)
    smaller = cut(model, groups, kept)
    seed = drawn_seed(problem.generator)
    recalibrate(smaller, problem.train, recipe.recalibrate, recipe.batch_size, derived(seed, 0))
    before = evaluate(smaller, problem.validation, bf16=recipe.bf16)
    used = int(history[-1]["step"])
    trainer = Trainer(
        smaller,
        problem.train,
        recipe,
        problem.steps - used,
        derived(seed, 1),
        validation=problem.validation,
        hook=ZerosStay(smaller),
        teacher=problem.model,
        report=problem.report,
        epochs_before=int(history[-1]["epoch"]),
        steps_before=used,
    )
    records = trainer.run()
    theoretical = flops_without_columns(smaller, problem.example, groups)
    return Pruned(
        model=smaller,
        kept=kept,
        history=[*history, *records],
        steps=problem.steps,
        extra={**extra, "accuracy_cut": before.accuracy, "flops_without_columns": theoretical},
    )


def flops_without_columns(model: nn.Module, example: Tensor, groups: Sequence[ChannelGroup]) -> float:
    """Count multiply–accumulates as if columns of zeros cost nothing; no dense kernel delivers that.

    Args:
        model: The network.
        example: One input, ``[1, ...]``.
        groups: Its channel groups.

    Returns:
        Theoretical multiply–accumulates for one input.
    """
    columns = Columns(model, example, groups)
    return float(columns.flops(columns.counts(columns.l1() == 0)))


def _matrix(module: nn.Module) -> Tensor | None:
    """Return a layer's weight if its rows are filters and its columns are shared by them."""
    if isinstance(module, nn.modules.conv._ConvNd):
        depthwise = module.groups == module.in_channels > 1
        return None if module.transposed or depthwise else module.weight
    return module.weight if isinstance(module, nn.Linear) else None
