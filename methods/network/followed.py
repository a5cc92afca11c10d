"""A network that was run in both modes and written down, with labels on all of its channels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from methods.contract.inputs import move
from methods.network.copying import copy_network
from methods.network.propagation import Propagation, reads_input
from methods.network.rules import products
from methods.network.rules.following import follow
from methods.network.survival import repeat_examples
from methods.network.tape import Tape, record, tensor_names

SECONDS = 120.0
"""Longest time that one pass of a network may be followed."""


@dataclass(frozen=True)
class Followed:
    """A network's passes and their labels.

    Attributes:
        model: A copy of the network.
        state: What is known of every channel.
        tapes: The passes, in eval and in training mode.
    """

    model: nn.Module
    state: Propagation
    tapes: list[Tape]

    @property
    def order(self) -> dict[str, int]:
        """When each module first ran."""
        order: dict[str, int] = {}
        for tape in self.tapes:
            for run in tape.modules:
                order.setdefault(run.name, len(order))
        return order


def follow_network(model: nn.Module, example: Any) -> Followed:
    """Run a network in both modes, and carry labels through both passes.

    Args:
        model: The network; not changed.
        example: One input, or a tuple or mapping of inputs.

    Returns:
        The passes and their labels.
    """
    copied = copy_network(model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    one = move(example, device)
    tapes = [record(copied, repeat_examples(one, 2), training, SECONDS) for training in (False, True)]
    grows = _find_growing(copied, one, tapes[0])
    names = tensor_names(copied)
    state = Propagation(names, dict(copied.named_modules()), grows=grows)
    for tape in tapes:
        follow(state, tape)
    if state.seen_heads or state.seen_positions:  # once more, now that it is known what heads and images are
        heads, positions = state.seen_heads, frozenset(state.seen_positions)
        state = Propagation(names, dict(copied.named_modules()), heads=heads, positions=positions, grows=grows)
        for tape in tapes:
            follow(state, tape)
    return Followed(copied, state, tapes)


def _find_growing(model: nn.Module, example: Any, tape: Tape) -> frozenset[int]:
    """List the products of the pass that do not look at the input and yet are made once for every example."""

    def sizes(each: Tape) -> dict[int, Any]:
        ops = enumerate(each.ops)
        return {k: [v.shape for v in op.outputs] for k, op in ops if op.name in products.RULES and not reads_input(op)}

    two = sizes(tape)
    if not two:
        return frozenset()
    three = sizes(record(model, repeat_examples(example, 3), False, SECONDS))
    return frozenset(k for k, shapes in two.items() if three.get(k, shapes) != shapes)


def pin_fixed(followed: Followed, model: nn.Module, ignored: Collection[str], frozen: Collection[str]) -> None:
    """Pin what the user wants to keep, and what is frozen.

    Args:
        followed: The passes; what is pinned is noted in their labels.
        model: The network they are of.
        ignored: Names of modules whose output channels must all stay.
        frozen: Names of modules that may be pruned although their parameters are frozen.
    """
    state = followed.state
    allowed = {name for name in frozen}
    saved = model.state_dict().keys()
    buffers = dict(model.named_buffers())
    for name in buffers.keys() - set(saved):
        buffer = buffers[name]
        for k, dim in enumerate(state.tensors.get(name, ())):
            # Where it is the same for every channel, the first of them say all; else only a file could.
            if not bool((buffer == buffer.narrow(k, 0, 1)).all()):
                state.classes.pin(dim.labels, f"{name} is a buffer that is not saved")
    for name, parameter in model.named_parameters():
        labels = state.tensors.get(name)
        if labels is None:
            continue
        owner = name.rpartition(".")[0]
        made = [dim for k, dim in enumerate(labels) if (name, k) not in state.reads]
        if any(_is_within(owner, above) for above in ignored):
            for dim in made:
                state.classes.pin(dim.labels, f"{owner} is to be ignored")
        if (
            not parameter.requires_grad
            and parameter.ndim > 1
            and not any(_is_within(owner, above) for above in allowed)
        ):
            for dim in made:
                state.classes.pin(dim.labels, f"{owner or name} is frozen")


def _is_within(name: str, above: str) -> bool:
    return name == above or not above or name.startswith(f"{above}.")


def classes_of_data(followed: Followed) -> set[int]:
    """List the classes of channels that carry something of the input.

    Args:
        followed: The passes.

    Returns:
        The classes.
    """
    state, found = followed.state, set()
    for value, dims in state.dims.items():
        if value.from_input:
            for dim in dims:
                if dim.labels is not None:
                    found.update(np.unique(state.classes.find(dim.labels)).tolist())
    for widths in state.widths:  # heads and states live inside a layer
        for labels in (widths.inputs, widths.outputs, widths.groups):
            if labels is not None:
                found.update(np.unique(state.classes.find(labels)).tolist())
    return found


def owners_of(followed: Followed) -> dict[tuple[str, int], str]:
    """Say which module each dimension of a parameter belongs to: the layer, also where it is computed from parts.

    Args:
        followed: The passes.

    Returns:
        Names of modules by name of the parameter and dimension.
    """
    modules = dict(followed.model.named_modules())
    owners = {}
    for name, dims in followed.state.tensors.items():
        owner = name.rpartition(".")[0]
        while ".parametrizations" in f".{owner}" or (owner and isinstance(modules.get(owner), nn.ParameterList)):
            owner = owner.rpartition(".")[0]
        parent = owner.rpartition(".")[0]
        if isinstance(modules.get(parent), nn.MultiheadAttention):
            owner = parent
        for k in range(len(dims)):
            owners[name, k] = owner
    return owners


def resolutions_of(tape: Tape) -> dict[str, str]:
    """Say at which resolution each module works.

    Args:
        tape: A pass.

    Returns:
        Height and width, such as ``"16x16"``, by name of the module; ``"1x1"`` for vectors.
    """
    sizes: dict[str, str] = {}
    for run in tape.modules:
        if run.outputs:
            shape = run.outputs[0].shape
            sizes.setdefault(run.name, "x".join(map(str, shape[2:] if len(shape) == 4 else (1, 1))))
    return sizes
