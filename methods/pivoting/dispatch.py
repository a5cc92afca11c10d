"""Local optimisation of a network of blocks for one machine: each layer runs in the way that is measured to be fastest.

The ways give the same output (``methods.pivoting.executions``); which is fastest depends on shape, batch, precision and
device, and on how the inputs lie in memory. So layers are decided one after the other, each on the inputs that the
layers before it, run as decided, give it; once for a network whose channels come first in memory and once for channels
last. The two are compared as wholes, also with the dense network that has zeros outside the blocks: what is
chosen is never slower than dense.

A decision is plain data: names of ways by name of layer. It belongs to a machine, a batch size and a precision, not to
the network.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from methods.pivoting.blocks import PivotedConv2d, PivotedLinear
from methods.pivoting.executions import PORTIONS, executions
from methods.pivoting.portions import portion, tails

MASKED = "masked"
"""The dense layer with zeros outside the blocks."""

FAR = 4.0
"""A way that takes so many times longer than the best at first sight is not timed again."""

BLOCK = 2e-3
"""A way is repeated until it takes so many seconds: clocks have ticks."""


@dataclass(frozen=True)
class Timing:
    """How long the executions of one layer took.

    Attributes:
        chosen: Name of the fastest.
        seconds: Shortest time of each, by name; with the activations and pooling that follow a convolution.
    """

    chosen: str
    seconds: dict[str, float]


@dataclass(frozen=True)
class Dispatch:
    """How a network of blocks runs on one machine.

    Attributes:
        channels_last: Whether images go through the network with channels last in memory.
        ways: Name of the execution of each layer of blocks.
        layers: Times of all executions of each layer, in the layout that was chosen.
        networks: Shortest time of the whole network, by what was compared: ``"blocks"`` and ``"masked"``, each also
            with ``"_nhwc"`` for channels last.
    """

    channels_last: bool
    ways: dict[str, str]
    layers: dict[str, Timing]
    networks: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the decision and the measurements in JSON's types.

        Returns:
            A mapping; times in seconds. ``channels_last`` and ``ways`` of it are what :func:`execute_as_decided` needs.
        """
        return asdict(self)


class Decided(nn.Module):
    """A network whose layers run as decided: for inference only.

    Args:
        network: The network.
        channels_last: Whether images go through it with channels last in memory.
    """

    def __init__(self, network: nn.Module, channels_last: bool) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last) if channels_last else network
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> Tensor:
        """Run.

        Args:
            x: Inputs in any memory format.

        Returns:
            What the network answers.
        """
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        answer: Tensor = self.network(x)
        return answer


def undecided_layers(model: nn.Module) -> list[str]:
    """Name the layers of blocks that may run in several ways.

    Args:
        model: A network.

    Returns:
        Names of layers; none where it was decided how they run.
    """
    if isinstance(model, Decided):
        return []
    return [name for name, module in model.named_modules() if isinstance(module, PivotedConv2d | PivotedLinear)]


def execute_as_decided(model: nn.Module, ways: Mapping[str, str], channels_last: bool = False) -> Decided:
    """Build a network that runs as decided.

    Args:
        model: A network with layers of blocks; not changed.
        ways: Name of an execution by name of layer; other layers stay as they are.
        channels_last: Whether images go through it with channels last in memory.

    Returns:
        A copy in eval mode, for inference only.

    Raises:
        ValueError: If a layer has no such execution, or is not one of blocks.
    """
    quick = copy.deepcopy(model).eval()
    behind = tails(quick) if PORTIONS in ways.values() else {}
    for name, way in ways.items():
        layer = quick.get_submodule(name)
        if not isinstance(layer, PivotedConv2d | PivotedLinear):
            raise ValueError(f"{name} is a {type(layer).__name__}, not a layer of blocks")
        tail = _take_modules(quick, behind.get(name, ())) if way == PORTIONS else ()
        known = executions(layer, tail)
        if way not in known:
            raise ValueError(f"{name} cannot be run as {way!r}; known: {', '.join(known)}")
        quick.set_submodule(name, known[way].eval())
    return Decided(quick, channels_last)


def dispatch(
    model: nn.Module, example: Tensor, rounds: int = 5, layouts: Sequence[bool] = (False, True)
) -> tuple[Decided, Dispatch]:
    """Find out how a network of blocks runs fastest.

    Args:
        model: A network; not changed.
        example: A batch of inputs like those that it will run with.
        rounds: How often each candidate is timed, in turn with the others; the shortest time counts.
        layouts: Whether the network may run with channels last, with channels first, or either; what is not an
            image has no such choice.

    Returns:
        A copy in eval mode, for inference only, and the decision.
    """
    choices = layouts if example.ndim == 4 else (False,)
    decided = {last: _decide_layers(model, example, last, rounds) for last in choices}
    plans = {}
    for last, timings in decided.items():
        suffix = "_nhwc" if last else ""
        plans[f"blocks{suffix}"] = last, {name: timing.chosen for name, timing in timings.items()}
        plans[f"masked{suffix}"] = last, dict.fromkeys(timings, MASKED)
    networks = {name: execute_as_decided(model, ways, last) for name, (last, ways) in plans.items()}
    seconds = shortest(networks, example, rounds)
    best = min(seconds, key=lambda name: seconds[name])
    last, ways = plans[best]
    return networks[best], Dispatch(last, ways, decided[last], seconds)


def fastest(
    layer: PivotedConv2d | PivotedLinear, example: Tensor, rounds: int = 5, tail: Sequence[nn.Module] = ()
) -> tuple[nn.Module, Timing]:
    """Choose the execution of a layer that is fastest for inputs like the example.

    Args:
        layer: The layer.
        example: One input of the shape, precision, memory format and device that it will run with.
        rounds: How often each candidate is timed.
        tail: What follows the layer.

    Returns:
        The execution, in eval mode, its tail included, and the times of all.
    """
    candidates = {}
    for name, module in executions(layer, tail).items():
        if name != PORTIONS:
            candidates[name] = nn.Sequential(module, *tail).eval() if tail else module.eval()
        elif not example.is_cuda and portion(example) < len(example):
            candidates[name] = module.eval()
    seconds = shortest(candidates, example, rounds)
    chosen = min(seconds, key=lambda name: seconds[name])
    return candidates[chosen], Timing(chosen, seconds)


def shortest(candidates: Mapping[str, nn.Module], example: Tensor, rounds: int) -> dict[str, float]:
    """Time modules in turns on the same input.

    Args:
        candidates: Modules by name.
        example: The input.
        rounds: How often each is timed; those that are far slower than the best are timed once.

    Returns:
        Shortest seconds by name.
    """
    with torch.no_grad():
        for module in candidates.values():
            module(example)  # the first run may choose kernels
        best = {name: _seconds(module, example, 1) for name, module in candidates.items()}
        close = [name for name, seconds in best.items() if seconds <= FAR * min(best.values()) or name == MASKED]
        repeats = {name: max(1, min(100, int(BLOCK / max(best[name], 1e-7)))) for name in close}
        for _ in range(rounds):
            for name in close:
                best[name] = min(best[name], _seconds(candidates[name], example, repeats[name]))
    return best


class _Undecided(nn.Module):
    """A layer of blocks that decides how it runs when it first sees an input.

    Args:
        layer: The layer.
        known: Decisions by settings and input, shared by the layers of a network.
        rounds: How often each candidate is timed.
        tail: What follows the layer; run with it.
    """

    def __init__(
        self,
        layer: PivotedConv2d | PivotedLinear,
        known: dict[str, Timing],
        rounds: int,
        tail: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.layer, self.tail = layer, nn.Sequential(*tail)
        self.timing: Timing | None = None
        self._known, self._rounds = known, rounds

    def forward(self, x: Tensor) -> Tensor:
        """Decide, and run as decided."""
        key = repr((self.layer.settings(), tuple(x.shape), x.dtype, x.stride(), self.tail))
        if key not in self._known:
            self._known[key] = fastest(self.layer, x, self._rounds, tuple(self.tail))[1]
        self.timing = self._known[key]
        way = executions(self.layer, tuple(self.tail))[self.timing.chosen].eval()
        result: Tensor = way(x)
        return result if self.timing.chosen == PORTIONS else self.tail(result)


def _decide_layers(model: nn.Module, example: Tensor, channels_last: bool, rounds: int) -> dict[str, Timing]:
    """Decide layer after layer; layers of the same shape and input once."""
    network = execute_as_decided(model, {}, channels_last)
    known: dict[str, Timing] = {}
    layers = {}
    behind = tails(network.network)
    for name in undecided_layers(model):
        layer = network.network.get_submodule(name)
        assert isinstance(layer, PivotedConv2d | PivotedLinear)
        layers[name] = _Undecided(layer, known, rounds, _take_modules(network.network, behind.get(name, ())))
        network.network.set_submodule(name, layers[name])
    with torch.no_grad():
        network(example)
    return {name: layer.timing for name, layer in layers.items() if layer.timing is not None}


def _take_modules(network: nn.Module, names: Sequence[str]) -> tuple[nn.Module, ...]:
    """Take modules out of a network: what runs them now is the layer before them."""
    modules = tuple(network.get_submodule(name) for name in names)
    for name in names:
        network.set_submodule(name, nn.Identity())
    return tuple(module for module in modules if not isinstance(module, nn.Identity))


def _seconds(module: nn.Module, example: Tensor, repeats: int) -> float:
    """Time some runs in a row, per run."""
    if example.is_cuda:
        torch.cuda.synchronize(example.device)
    # One thread's own time: what neighbours take of its core is not counted.
    clock = time.thread_time if not example.is_cuda and torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    for _ in range(repeats):
        module(example)
    if example.is_cuda:
        torch.cuda.synchronize(example.device)
    return (clock() - start) / repeats
