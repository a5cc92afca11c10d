"""The modules of a network one by one: what each is called on, and what versions of it take.

All that the time of a module depends on is its settings, the shapes of its tensors and the shape of its input, so one
version is timed once, however often the network calls it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs, call, first_tensor, move, take
from search.speed.conditions import Conditions
from search.speed.interleaved import Effort, Samples, time_until_steady
from search.speed.targets import Untimed, prepare, threads_of, watch

EFFORT = Effort(seconds=0.6, block=0.002, most_rounds=15, attempts=2)
"""For one module with all its narrower versions; there are dozens of them."""


@dataclass(frozen=True)
class Piece:
    """A module and the shape of its input: all that its time depends on.

    Attributes:
        module: The module.
        shape: Shape of its input, ``[1, ...]``.
    """

    module: nn.Module
    shape: tuple[int, ...]

    @property
    def key(self) -> str:
        """The same for two pieces that take equally long."""
        # A module writes its settings; of a layer of ours that writes none, the shapes of its tensors tell.
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return f"{self.module}{[tuple(tensor.shape) for tensor in tensors]}{self.shape}"


Sample = Callable[[str, Sequence[Piece]], Samples | None]
"""Times versions of one module in turns, ``[versions][rounds]``; ``None`` if one cannot be timed."""


def time_versions(setting: Conditions, example: Inputs, name: str, pieces: Sequence[Piece]) -> Samples | None:
    """Time versions of a module in turns on the first target.

    Args:
        setting: Where and how.
        example: One input of the network, whose type of number counts.
        name: Name of the module, not used.
        pieces: The versions.

    Returns:
        Seconds, ``[versions][rounds]``; ``None`` if the target cannot time this module alone.
    """
    target = setting.targets[0]
    try:
        with threads_of(setting):
            runs = [
                prepare(target, p.module, torch.zeros(p.shape, dtype=first_tensor(example).dtype), setting)
                for p in pieces
            ]
            return time_until_steady(watch(target, setting.threads), runs, EFFORT)
    except Untimed:
        return None


def module_calls(model: nn.Module, example: Inputs) -> list[tuple[str, Piece]]:
    """Run a network on shapes alone, and note every call of a module without submodules.

    Args:
        model: The network.
        example: One input, ``[1, ...]``.

    Returns:
        Name and piece in order of execution; the pieces hold modules of ``model`` itself.
    """
    calls: list[tuple[str, Piece]] = []
    shapes = copy.deepcopy(model).to("meta").eval()

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                calls.append((name, Piece(model.get_submodule(name), tuple(inputs[0].shape))))

        return hook

    for name, module in shapes.named_modules():
        if not list(module.children()):
            module.register_forward_hook(note(name))
    with torch.no_grad():
        call(shapes, move(take(example, slice(1)), "meta"))
    return calls
