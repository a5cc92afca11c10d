"""Orderings of the units of every layer of a dense network: the analysis that all trials of a sweep share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor, nn

from methods.contract.analyses import Progress
from methods.contract.method import Problem
from methods.greedy.forward_selection import RULES, Ordering
from methods.greedy.masked_network import Replay
from methods.greedy.selection import Judge, Search, layers_of, order
from methods.network.channels import ChannelGroup


@dataclass(frozen=True)
class Ordered:
    """What the selection of one layer found.

    Attributes:
        ordering: In which order units are chosen.
        qualities: The task's first metric on the subset with 1, 2, ... units, all other layers whole, ``[units]``;
            negated where less is better.
        replayed: Whether only what lies behind the layer had to be run.
    """

    ordering: Ordering
    qualities: Tensor
    replayed: bool


def order_layers(
    problem: Problem,
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    judge: Judge,
    search: Search,
    seed: int,
    start: str,
) -> dict[str, Ordered]:
    """Ask the problem's analyses for the orderings by one objective; compute them where they are not known.

    Args:
        problem: The dense network and the data.
        model: The network that units are selected from.
        groups: The layers.
        judge: The objective.
        search: How units are selected.
        seed: Decides images and candidates.
        start: What the weights of ``model`` are, beside the dense network's and the seed.

    Returns:
        What was found, by name of group.
    """

    def compute() -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        before, total = 0, sum(group.channels for group in groups)
        for place, layer in enumerate(layers_of(model, groups, problem.train, search, seed, problem.task), 1):
            name = layer.group.name
            what = f"channels of {name} (layer {place} of {len(groups)}), by {judge}"
            ordering = order(layer, judge, search, partial(_report_progress, problem.progress, what, before, total))
            before += layer.group.channels
            masks = torch.stack([ordering.mask(width) for width in range(1, layer.group.channels + 1)])
            tensors |= {
                f"{name}.chosen": ordering.chosen,
                f"{name}.etas": ordering.etas,
                f"{name}.accuracies": layer.qualities(masks),
                f"{name}.replayed": torch.tensor(isinstance(layer.network, Replay)),
            }
        return tensors

    settings = {
        **asdict(search),
        # Only what decides the result: trials that differ in nothing else share it.
        "screen": search.screen if judge == "global_taylor_screen" else None,
        "judge": judge,
        "seed": seed,
        "start": start,
        "groups": ",".join(group.name for group in groups),
    }
    tensors = problem.analyses.get("greedy_selection", settings, compute)
    return {
        group.name: Ordered(
            Ordering(
                tensors[f"{group.name}.chosen"], tensors[f"{group.name}.etas"], group.channels, RULES[search.rule]
            ),
            tensors[f"{group.name}.accuracies"],
            bool(tensors[f"{group.name}.replayed"]),
        )
        for group in groups
    }


def _report_progress(progress: Progress, what: str, before: int, total: int, chosen: int) -> None:
    """Tell how many units of all layers are chosen."""
    progress(what, before + chosen, total)
