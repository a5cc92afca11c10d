"""Where a network spends its time, and what cutting each of its channel groups would buy, before any training.

Cuts are the real ones: the group loses its first units, and with them every coupled tensor (norms, consumers,
shortcuts). Each module whose shape changes is then timed alone, in turns with what it was before, on inputs of the
shapes that the cut network gives it; the differences add up to what the cut buys. Timing whole networks instead would
drown a small layer in the noise of all the others. What no module does by itself (additions between modules,
the interpreter) is therefore not in these numbers; the whole network's time is given beside the sum.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from methods.contract.inputs import Inputs
from methods.network.channels import ChannelGroup, channel_groups, cut
from methods.network.cost import CostModel, layer_flops
from search.speed.conditions import Conditions
from search.speed.measure import measure_dense, turn
from search.speed.modules import ModuleTimes, Piece, Sample, module_calls, time_versions
from spaces import Uniform

CUTS = (0.25, 0.5, 0.75)
"""Shares of a group's units that are cut."""


@dataclass(frozen=True)
class Saving:
    """What cutting a share of a group's units buys.

    Attributes:
        cut: Share of the units that was asked for.
        units: Units that are left.
        flops: Multiply–accumulates saved for one input, over all layers that change.
        seconds: Seconds of one forward pass saved; negative if the narrower modules are slower. ``None`` if one
            of them cannot be timed alone.
    """

    cut: float
    units: int
    flops: int
    seconds: float | None


@dataclass(frozen=True)
class Layer:
    """A module that multiplies.

    Attributes:
        name: Name in the network.
        shape: Channels, kernel and output resolution, such as ``"16→32 3x3, 16x16"``.
        flops: Multiply–accumulates for one input.
        seconds: Seconds of the module alone in one forward pass; ``None`` if it cannot be timed alone.
        group: The channel group of its outputs; ``None`` if they must all stay.
    """

    name: str
    shape: str
    flops: int
    seconds: float | None
    group: str | None


@dataclass(frozen=True)
class Profile:
    """A network layer by layer.

    Attributes:
        target: Where it was timed.
        batch_size: Inputs in one forward pass.
        threads: Threads on the CPU.
        flops: Multiply–accumulates of the whole network for one input.
        seconds: Median seconds of one forward pass of the whole network.
        modules: Sum of the seconds of its modules, each timed alone.
        layers: The modules that multiply, in order of execution.
        savings: What cuts buy, by group.
        noisy: Modules whose measurement scattered more than it should.
        untimed: Modules that cannot be timed alone.
    """

    target: str
    batch_size: int
    threads: int
    flops: int
    seconds: float
    modules: float
    layers: tuple[Layer, ...]
    savings: dict[str, tuple[Saving, ...]]
    noisy: tuple[str, ...]
    untimed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the profile in JSON's types.

        Returns:
            A mapping; times in seconds.
        """
        return asdict(self)


def profile(
    model: nn.Module, example: Inputs, setting: Conditions, round_to: int = 1, ignored: Sequence[str] = ()
) -> Profile:
    """Time a network layer by layer, and what cuts of its groups buy.

    Args:
        model: The network; not changed. Its weights do not matter.
        example: One input, ``[1, ...]``.
        setting: Where and how; the first target counts.
        round_to: Widths that are left are multiples of this.
        ignored: Modules whose output channels must all stay.

    Returns:
        The profile.
    """
    whole = measure_dense(setting, model, example).median
    with turn():
        return build_profile(
            model, example, setting, whole, partial(time_versions, setting, example), round_to, ignored
        )


def build_profile(
    model: nn.Module,
    example: Inputs,
    setting: Conditions,
    whole: float,
    sample: Sample,
    round_to: int = 1,
    ignored: Sequence[str] = (),
) -> Profile:
    """Build a profile from a way to time modules.

    Args:
        model: The network; not changed.
        example: One input, ``[1, ...]``.
        setting: Where and how.
        whole: Seconds of one forward pass of the whole network.
        sample: Times versions of a module.
        round_to: Widths that are left are multiples of this.
        ignored: Modules whose output channels must all stay.

    Returns:
        The profile.
    """
    groups = channel_groups(model, example, ignored)
    cost = CostModel(model, example, groups)
    dense = module_calls(model, example)
    cuts = [
        (group.name, share, units, module_calls(cut(model, groups, {group.name: range(units)}), example))
        for group in groups
        for share, units in _widths(group, round_to)
    ]
    times = ModuleTimes(dense, [calls for *_, calls in cuts], sample)
    savings: dict[str, list[Saving]] = defaultdict(list)
    for name, share, units, calls in cuts:
        saved_flops = cost.dense - cost.flops({name: units})
        savings[name].append(Saving(share, units, saved_flops, times.sum_saved_seconds(calls)))
    flops = layer_flops(model, example)
    owners = {member.module: group.name for group in groups for member in group.producers(model)}
    return Profile(
        target=setting.targets[0],
        batch_size=setting.batch_size,
        threads=setting.threads,
        flops=cost.dense,
        seconds=whole,
        modules=sum(times.dense(name) or 0.0 for name in dict.fromkeys(name for name, _ in dense)),
        layers=tuple(
            Layer(name, _shape(model.get_submodule(name), size), flops[name], times.dense(name), owners.get(name))
            for name, size in _resolutions(dense)
            if name in flops
        ),
        savings={name: tuple(rows) for name, rows in savings.items()},
        noisy=times.noisy,
        untimed=times.untimed,
    )


def _widths(group: ChannelGroup, round_to: int) -> list[tuple[float, int]]:
    """Units that each cut leaves; a narrow group may not come down to all of them."""
    return [(share, Uniform(ratio=share).keep([group.layer], len, round_to)[group.name]) for share in CUTS]


def _resolutions(calls: list[tuple[str, Piece]]) -> list[tuple[str, tuple[int, ...]]]:
    """Name of every called module with the shape of its first input."""
    first: dict[str, tuple[int, ...]] = {}
    for name, piece in calls:
        first.setdefault(name, piece.shape)
    return list(first.items())


def _shape(module: nn.Module, inputs: tuple[int, ...]) -> str:
    """Write channels, kernel and output resolution of a layer."""
    if isinstance(module, nn.modules.conv._ConvNd):
        with torch.no_grad():
            outputs = copy.deepcopy(module).to("meta")(torch.zeros(inputs, device="meta")).shape
        kernel = "x".join(map(str, module.kernel_size))
        grouped = f"/{module.groups}" if module.groups > 1 else ""
        return f"{module.in_channels}→{module.out_channels} {kernel}{grouped}, {'x'.join(map(str, outputs[2:]))}"
    if isinstance(module, nn.Linear):
        return f"{module.in_features}→{module.out_features}"
    return type(module).__name__
