"""Columns of unrolled convolutions: what SPP and IncReg prune in their papers.

A convolution is the product of its weights ``[out, in * height * width]`` and its unrolled input (im2col); a
*column* is one position of one input channel in all filters. A dense kernel runs no faster for zero columns: what
they save is theoretical, but for input channels whose every column is gone, which are cut (in 1x1 convolutions and
linear layers each column is such a channel). Columns can be bundled: all of one input channel, or all of one
position (*offset*) of the kernel, whatever the channel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs
from methods.contract.method import Problem, Pruned, Record
from methods.network.channels import ChannelGroup
from methods.network.cost import layer_flops
from methods.network.layers import ZeroPadShortcut
from methods.network.spectra import energies
from methods.network.units import Units
from methods.training.one_shot import cut_and_finetune
from methods.training.trainer import Hook
from spaces import ByDamage, ByEnergy, InputError, LayerGroup, PerLayer, PerStage, Sparsity, explain_unknown_name

Bundle = Literal["column", "in_channel", "offset"]
"""What a unit is: one column, all columns of an input channel, or all columns of one position of the kernel."""


class Columns:
    """The columns of all layers that have some, as a padded table ``[layers, widest]``.

    Convolutions and linear layers have columns; depthwise convolutions, which read one channel per filter, are left
    alone. In grouped convolutions a column is one position in all groups. Bundles of offsets are those of all
    convolutions of images with kernels larger than one pixel that pad with zeros, depthwise ones included.

    Args:
        model: The network; its weights are referred to, not copied.
        example: One input, ``[1, ...]``.
        groups: The network's channel groups.
        bundle: What a unit is. In what follows, "column" stands for it.

    Attributes:
        names: Names of the layers, one per row.
        weights: Their weights.
        sizes: How many columns they have.
        valid: Which entries of the table are columns.

    Raises:
        InputError: If there is no such layer.
    """

    def __init__(
        self, model: nn.Module, example: Inputs, groups: Sequence[ChannelGroup], bundle: Bundle = "column"
    ) -> None:
        self._flops, self._bundle = layer_flops(model, example), bundle
        modules = {name: model.get_submodule(name) for name in self._flops}
        weight_of = _kernel if bundle == "offset" else _matrix
        self.weights = {name: weight for name, module in modules.items() if (weight := weight_of(module)) is not None}
        if not self.weights:
            wanted = (
                "convolution with zero padding has a kernel larger than 1x1"
                if bundle == "offset"
                else "convolution or linear layer has columns"
            )
            raise InputError(f"nothing to prune in {type(model).__name__}: no {wanted}")
        self.names = list(self.weights)
        self.sizes = [self._size(weight) for weight in self.weights.values()]
        device = next(model.parameters()).device
        self.valid = torch.arange(max(self.sizes), device=device) < torch.tensor(self.sizes, device=device)[:, None]
        stages = {m.module: group.stage for group in groups for m in group.members if m.side == "out"}
        self.layers = [
            LayerGroup(name, size, stages.get(name, "1x1"), row / max(1, len(self.names) - 1))
            for row, (name, size) in enumerate(zip(self.names, self.sizes, strict=True))
        ]
        """As spaces know them: a layer has its columns where a channel group has its channels."""

    def _size(self, weight: Tensor) -> int:
        channels, offsets = weight.shape[1], weight[0, 0].numel()
        return {"column": channels * offsets, "in_channel": channels, "offset": offsets}[self._bundle]

    def list_slices(self) -> list[ColumnSlices]:
        """Say which parts of the weights belong to which columns.

        Returns:
            One entry per layer.
        """
        entries = torch.arange(self.valid.numel(), device=self.valid.device).view_as(self.valid)
        slices = []
        for row, (weight, size) in enumerate(zip(self.weights.values(), self.sizes, strict=True)):
            own, channels, offsets = entries[row, :size], weight.shape[1], weight[0, 0].numel()
            units = {"column": own, "in_channel": own.repeat_interleave(offsets), "offset": own.repeat(channels)}
            slices.append(ColumnSlices(weight, units[self._bundle]))
        return slices

    def l1(self) -> Tensor:
        """Sum the absolute weights of each column.

        Returns:
            ``[layers, widest]``; 0 where there is no column.
        """
        with torch.no_grad():
            norms = [weight.abs().sum(0).reshape(weight.shape[1], -1) for weight in self.weights.values()]
            if self._bundle == "column":
                bundled = [norm.flatten() for norm in norms]
            else:
                bundled = [norm.sum(1 if self._bundle == "in_channel" else 0) for norm in norms]
            return nn.utils.rnn.pad_sequence(bundled, batch_first=True)

    def importance(self) -> Tensor:
        """Return what columns are ranked by: their L1 norms, for each row is one layer.

        Returns:
            ``[layers, widest]``; 0 where there is no column.
        """
        return self.l1()

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


def makers(groups: Sequence[ChannelGroup]) -> dict[str, ChannelGroup]:
    """Say which group's channels a layer produces.

    Args:
        groups: The network's channel groups.

    Returns:
        The group by name of layer.
    """
    return {member.module: group for group in groups for member in group.members if member.side == "out"}


def allot_columns(
    columns: Columns,
    groups: Sequence[ChannelGroup],
    sparsity: Sparsity,
    round_to: int,
    cost: Callable[[Mapping[str, int]], int] | None = None,
) -> dict[str, int]:
    """Find how many columns of each layer are to be kept.

    Ratios have the names of channel groups, so that a point of a search space means the same whatever a unit is:
    a layer has the ratio of the group whose channels it produces, unless it is named itself. The classifier, whose
    outputs are in no group, stays whole unless it is named.

    Args:
        columns: The columns.
        groups: The network's channel groups.
        sparsity: How many are kept; a FLOPs target is met in theory.
        round_to: Numbers of columns are multiples of this.
        cost: FLOPs of a choice of columns; by default the theoretical ones.

    Returns:
        Kept columns by name of layer; layers that are not named are whole.

    Raises:
        InputError: If nothing may be pruned, or a name is unknown or missing.
    """
    made, cost = makers(groups), cost or columns.flops
    layers = [layer for layer in columns.layers if layer.name in made]
    if not layers:
        raise InputError("nothing to prune: no layer with columns produces channels of a group")
    if isinstance(sparsity, PerStage):
        by_stage = sparsity.ratios([group.stage for group in groups])
        ratios = {layer.name: by_stage[made[layer.name].stage] for layer in layers}
    elif isinstance(sparsity, ByEnergy):
        looked_at = [replace(layer, energies=energies(columns.weights[layer.name].flatten(1))) for layer in layers]
        ratios = {layer.name: sparsity.ratio(layer) for layer in looked_at}
    elif isinstance(sparsity, PerLayer) and any(sparsity.without.values()):
        raise InputError("sparsity.without takes out whole blocks of channels: give granularity = 'filter'")
    elif isinstance(sparsity, PerLayer):
        given = sparsity.ratios([group.name for group in groups])
        for name in given:
            if name not in (known := {*columns.names, *(group.name for group in groups)}):
                raise InputError(explain_unknown_name("layer", name, known))
        layers = [layer for layer in columns.layers if layer.name in made or layer.name in given]
        ratios = {
            layer.name: given[name]
            for layer in layers
            for name in (made[layer.name].name if layer.name in made else layer.name, layer.name)  # its own name wins
            if name in given
        }
    elif isinstance(sparsity, ByDamage):
        raise InputError(
            "sparsity.mode = 'damage' is measured for channels: give granularity = 'filter' or another mode"
        )
    else:
        return sparsity.keep(layers, cost, round_to)
    return PerLayer(layers=ratios).keep(layers, cost, round_to)


def rates_by_layer(
    given: Mapping[str, float], layers: Sequence[LayerGroup], groups: Sequence[ChannelGroup]
) -> list[float]:
    """Say how fast layers lose what they are to lose, relative to each other.

    Args:
        given: Factors by name of channel group or layer.
        layers: What is pruned.
        groups: The network's channel groups; a layer that is not named has the rate of the group whose channels it
            produces.

    Returns:
        One factor per layer, 1 where nothing is given.

    Raises:
        InputError: If a name is unknown.
    """
    made, own = makers(groups), [layer.name for layer in layers]
    for name in given:
        if name not in (known := {*own, *(group.name for group in groups)}):
            raise InputError(explain_unknown_name("layer in layer_rates:", name, known))
    of_groups = [given.get(made[name].name, 1.0) if name in made else 1.0 for name in own]
    return [given.get(name, rate) for name, rate in zip(own, of_groups, strict=True)]


@dataclass(frozen=True)
class ColumnSlices:
    """One weight whose columns are units.

    Attributes:
        parameter: The weight, ``[out, in, ...]``.
        units: For each column, where it, or its bundle, is in the flattened table.
    """

    parameter: Tensor
    units: Tensor

    @property
    def broadcast(self) -> tuple[int, ...]:
        """Shape in which one number per column meets the weight."""
        return (1, *self.parameter.shape[1:])


class ZerosStay(Hook):
    """A hook that holds columns at zero which are zero when training begins.

    Args:
        model: The network.
    """

    def __init__(self, model: nn.Module) -> None:
        weights = (_matrix(module) for module in model.modules())
        self._weights: list[Tensor] = [weight for weight in weights if weight is not None]
        self._alive = [weight.detach().ne(0).any(0, keepdim=True).to(weight.dtype) for weight in self._weights]

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Undo what the step did to zeros.

        Args:
            step: Index of the step.
        """
        torch._foreach_mul_(self._weights, self._alive)

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


def find_unread(model: nn.Module, groups: Sequence[ChannelGroup]) -> dict[str, list[int]]:
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
    """Cut channels that nothing reads, re-estimate batch norm and fine-tune; other zero columns stay zero.

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
    kept = find_unread(model, groups)
    pruned = cut_and_finetune(problem, groups, kept, model=model, history=history, extra=extra, hook=ZerosStay)
    theoretical = flops_without_columns(pruned.model, problem.example, groups)
    return replace(pruned, extra={**pruned.extra, "flops_without_columns": theoretical})


def flops_without_columns(model: nn.Module, example: Inputs, groups: Sequence[ChannelGroup]) -> float:
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


def _kernel(module: nn.Module) -> Tensor | None:
    """Return a convolution's weight if its kernel can be made smaller."""
    if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or module.weight[0, 0].numel() == 1:
        return None
    return module.weight
