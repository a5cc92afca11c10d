"""The modules of a network one by one: what each is called on, and what versions of it take.

All that the time of a module depends on is its settings, the shapes of its tensors and the shape of its input, so one
version is timed once, however often the network calls it.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs, call, get_first_tensor, move, take
from search.records.timing import NOISE
from search.speed.conditions import Conditions
from search.speed.interleaved import Effort, Samples, spread, time_until_steady
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
                prepare(target, p.module, torch.zeros(p.shape, dtype=get_first_tensor(example).dtype), setting)
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


class ModuleTimes:
    """Seconds of every module, and of its narrower versions.

    Args:
        dense: Calls of the dense network in order of execution.
        cuts: Calls of each cut network, in the same order.
        sample: Times versions of a module.

    Attributes:
        noisy: Modules whose measurement scattered more than it should.
        untimed: Modules that cannot be timed alone.
    """

    def __init__(self, dense: list[tuple[str, Piece]], cuts: list[list[tuple[str, Piece]]], sample: Sample) -> None:
        self._calls = dense
        self._keys = [piece.key for _, piece in dense]
        versions: dict[str, dict[str, Piece]] = defaultdict(dict)
        for key, (_, piece) in zip(self._keys, dense, strict=True):
            versions[key].setdefault(key, piece)
        for calls in cuts:
            for key, (_, piece) in zip(self._keys, calls, strict=True):
                versions[key].setdefault(piece.key, piece)
        self._seconds: dict[tuple[str, str], float] = {}
        noisy: set[str] = set()
        names = {key: name for key, (name, _) in reversed(list(zip(self._keys, dense, strict=True)))}
        for key, pieces in versions.items():
            samples = sample(names[key], list(pieces.values()))
            if samples is None:
                continue
            noisy |= {key} if spread(samples) > NOISE else set()
            usual = median(samples[0])
            for version, rounds in zip(pieces, samples, strict=True):
                quotient = median(one / other for one, other in zip(rounds, samples[0], strict=True))
                self._seconds[key, version] = usual * quotient
        self.noisy = tuple(
            dict.fromkeys(name for key, (name, _) in zip(self._keys, dense, strict=True) if key in noisy)
        )
        known = {key for key, _ in self._seconds}
        self.untimed = tuple(
            dict.fromkeys(name for key, (name, _) in zip(self._keys, dense, strict=True) if key not in known)
        )

    def dense(self, name: str) -> float | None:
        """Add up what a module of the dense network takes.

        Args:
            name: Name of the module.

        Returns:
            Seconds in one forward pass, over all its calls; ``None`` if it cannot be timed alone.
        """
        keys = [key for key, (called, _) in zip(self._keys, self._calls, strict=True) if called == name]
        if any((key, key) not in self._seconds for key in keys):
            return None
        return sum(self._seconds[key, key] for key in keys)

    def version(self, place: int, piece: Piece) -> float | None:
        """Look up what a call takes.

        Args:
            place: Which call, in order of execution.
            piece: A version of its module.

        Returns:
            Seconds; ``None`` if the module cannot be timed alone.
        """
        return self._seconds.get((self._keys[place], piece.key))

    def sum_saved_seconds(self, calls: list[tuple[str, Piece]]) -> float | None:
        """Add up what a cut network saves.

        Args:
            calls: Its calls, in order of execution.

        Returns:
            Seconds over all modules that changed; ``None`` if one of them cannot be timed alone.
        """
        saved_seconds = 0.0
        for key, (_, piece) in zip(self._keys, calls, strict=True):
            version = piece.key
            if version == key:
                continue
            if (key, version) not in self._seconds:
                return None
            saved_seconds += self._seconds[key, key] - self._seconds[key, version]
        return saved_seconds
