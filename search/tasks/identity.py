"""Whether two studies are about the same thing: the network by what it is and what it answers, the data by content.

What a network answers is asked of it directly, for its code may change under the same name and layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs, call
from search.tasks.workload import Workload

ANSWERS = 64
"""Numbers of a network's answer that are kept."""

TOLERANCE = 1e-3
"""Relative difference of answers that other machines and versions may make."""


def answers(model: nn.Module, example: Inputs) -> list[float]:
    """Ask a network what it makes of one input.

    Args:
        model: The network, in whatever mode; it is asked in eval mode and left as it was.
        example: One input, on the network's device.

    Returns:
        The first :data:`ANSWERS` numbers of its output; zero for those that are not numbers.
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            flat = torch.cat([part.detach().flatten().float() for part in _tensors(call(model, example))])
    finally:
        for module, mode in training.items():
            module.training = mode
    return [float(number) for number in flat[:ANSWERS].cpu().nan_to_num()]  # as JSON can hold them


def has_same_answers(one: Sequence[float], other: Sequence[float]) -> bool:
    """Compare what two networks make of one input.

    Args:
        one: The answers of one network.
        other: Those of the other.

    Returns:
        Whether they are equal to within :data:`TOLERANCE` of the largest.
    """
    scale = max((abs(number) for number in (*one, *other) if math.isfinite(number)), default=0.0)
    return len(one) == len(other) and all(
        abs(a - b) <= TOLERANCE * scale or (math.isnan(a) and math.isnan(b)) for a, b in zip(one, other, strict=True)
    )


def study_identity(workload: Workload) -> dict[str, Any]:
    """Collect what a study is about, before anything is trained.

    Args:
        workload: Network and data.

    Returns:
        In JSON's types: ``network`` (hash of layers and shapes), ``answers`` of the network with the weights that it
        comes with, and a hash of each part of the data.
    """
    model = workload.build()
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    return {
        "network": sha256(f"{model}{shapes}".encode()).hexdigest(),
        "answers": answers(model, workload.data.example),
        "training data": workload.data.train.fingerprint(),
        "validation data": workload.data.validation.fingerprint(),
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what differs between two things that studies are about.

    Args:
        then: What :func:`study_identity` returned of the one; empty for a study of an earlier version.
        now: What it returned of the other.

    Returns:
        In words; nothing if they are the same.
    """
    found = []
    if "network" in then and then["network"] != now["network"]:
        found.append("the network has other layers or sizes")
    elif "answers" in then and not has_same_answers(then["answers"], now["answers"]):
        found.append("the network has the same layers, but other weights or another forward pass")
    found += [
        f"the {part} are others"
        for part in ("training data", "validation data")
        if then.get(part, now[part]) != now[part]
    ]
    return found


def _tensors(output: Any) -> Iterator[Tensor]:
    """Walk through all tensors of an output."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for part in output.values():
            yield from _tensors(part)
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _tensors(part)
