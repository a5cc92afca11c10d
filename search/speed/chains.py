"""Networks of chains on a target: each chain in the equal form that is measured to be fastest there.

A layer that was rewritten into a chain of small ones has up to four forms that answer the same. The trial's network
has the one with the fewest multiply-accumulates, which is counted; what runs fastest is another question: three
small layers may take longer than the one they replace. Every chain is decided by itself, on the inputs that it gets,
and the network of the chosen forms is compared, as a whole, with the network as it was built: what runs is never
slower than that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from methods.eigendamage.equal_forms import chains, forms, in_form
from methods.network.cost import count
from methods.network.folding import fold_norms
from search.speed.conditions import Conditions
from search.speed.interleaved import Effort, Run, Watch, time_in_turns

EFFORT = Effort(seconds=0.2, block=2e-3, least_rounds=5, most_rounds=15)
"""How long the forms of one chain are timed, in turns; the shortest time of each counts."""

BUILT, CHOSEN = "as_built", "chosen"

Prepare = Callable[[nn.Module, Tensor], Run]
"""Makes one forward pass of a module on inputs."""


@dataclass(frozen=True)
class Choice:
    """How one chain runs.

    Attributes:
        built: Name of the form that the network has.
        chosen: Name of the form that is run.
        seconds: Shortest time of each form, by name.
        flops: Multiply-accumulates of each form for one input, by name.
    """

    built: str
    chosen: str
    seconds: dict[str, float]
    flops: dict[str, int]


def fastest_forms(network: nn.Module, inputs: Tensor, prepare: Prepare, watch: Watch) -> dict[str, Choice]:
    """Find out in which form each chain of a network runs fastest.

    Args:
        network: A network, in eval mode; not changed.
        inputs: Its inputs.
        prepare: Makes a forward pass of one form.
        watch: Tells the time.

    Returns:
        The decision and the measurements by name of chain; chains that are alike are measured once.
    """
    known: dict[str, Choice] = {}
    found = {}
    for name, (chain, x) in _seen(network, inputs).items():
        key = repr((chain, x.shape, x.stride(), x.dtype))
        if key not in known:
            known[key] = _choice(chain, x, prepare, watch)
        found[name] = known[key]
    return found


def faster(network: nn.Module, inputs: Tensor, one: Prepare, whole: Callable[[nn.Module], Run], watch: Watch) -> Run:
    """Prepare a network, and the same network in the forms that are fastest one by one, and keep what is faster.

    Args:
        network: A network, in eval mode; not changed.
        inputs: Its inputs.
        one: Makes a forward pass of one form of one chain.
        whole: Makes a forward pass of a network.
        watch: Tells the time.

    Returns:
        A forward pass.
    """
    run = whole(network)
    if not chains(network):
        return run
    ways = _changed(fastest_forms(network, inputs, one, watch))
    if not ways:
        return run
    other = whole(_laid_out(in_form(network, ways), inputs))
    seconds = _shortest(watch, [run, other])
    return other if seconds[1] < seconds[0] else run


def deployment(
    network: nn.Module, inputs: Tensor, prepare: Prepare, watch: Watch, setting: Conditions
) -> dict[str, Any] | None:
    """Decide in which forms the chains of an exported network run on this machine, as plain data.

    Args:
        network: The network, in eval mode.
        inputs: A batch of its inputs.
        prepare: Makes a forward pass.
        watch: Tells the time.
        setting: Under which conditions it is decided.

    Returns:
        In JSON's types: ``ways`` (the form of each chain that does not run as it was built, for :func:`deploy`),
        ``layers`` (of each chain the form chosen, the times and the multiply-accumulates of all), ``networks``
        (seconds of the whole as built and as chosen), ``flops`` (multiply-accumulates for one input as it runs),
        and the conditions. ``None`` if there are no chains.
    """
    if not chains(network):
        return None
    still = fold_norms(network)
    found = fastest_forms(still, inputs, prepare, watch)
    ways = _changed(found)
    seconds = _shortest(watch, [prepare(still, inputs), prepare(in_form(still, ways), inputs)])
    if not seconds[1] < seconds[0]:
        ways, found = {}, {name: _as_built(choice) for name, choice in found.items()}
    return {
        "device": inputs.device.type,
        "precision": str(inputs.dtype).removeprefix("torch."),
        "batch_size": setting.batch_size,
        "threads": setting.threads,
        "ways": ways,
        "layers": {name: asdict(choice) for name, choice in found.items()},
        "networks": dict(zip((BUILT, CHOSEN), (seconds[0], min(seconds)), strict=True)),
        "flops": count(in_form(network, ways), inputs[:1]).flops,
    }


def deploy(network: nn.Module, decision: Mapping[str, Any] | None) -> nn.Module:
    """Give the chains of a network the forms that were decided.

    Args:
        network: The network; not changed.
        decision: What :func:`deployment` gave.

    Returns:
        A copy, or the network itself if nothing was decided.
    """
    return network if decision is None else in_form(network, decision["ways"])


def eager(module: nn.Module, inputs: Tensor) -> Run:
    """Make a forward pass of a module as it is.

    Args:
        module: The module.
        inputs: Its inputs.

    Returns:
        The pass.
    """
    return torch.inference_mode()(partial(module, inputs))


def _seen(network: nn.Module, inputs: Tensor) -> dict[str, tuple[nn.Sequential, Tensor]]:
    """Run a network and note what its chains get."""
    seen: dict[str, tuple[nn.Sequential, Tensor]] = {}

    def note(name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Sequential)
        seen.setdefault(name, (module, args[0].detach().clone(memory_format=torch.preserve_format)))

    handles = [chain.register_forward_pre_hook(partial(note, name)) for name, chain in chains(network).items()]
    try:
        with torch.no_grad():
            network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _choice(chain: nn.Sequential, x: Tensor, prepare: Prepare, watch: Watch) -> Choice:
    """Time the forms of one chain."""
    candidates = {name: _laid_out(form.eval().requires_grad_(False), x) for name, form in forms(chain).items()}
    runs = [prepare(form, x) for form in candidates.values()]
    seconds = dict(zip(candidates, _shortest(watch, runs), strict=True))
    flops = {name: count(nn.Sequential(form), x[:1]).flops for name, form in candidates.items()}
    chosen = min(seconds, key=lambda name: seconds[name])  # of equals the first: the chain as it is
    return Choice(next(iter(candidates)), chosen, seconds, flops)


def _laid_out(module: nn.Module, inputs: Tensor) -> nn.Module:
    """Give the weights the layout that images have in memory."""
    images_last = inputs.ndim == 4 and not inputs.is_contiguous()
    return module.to(memory_format=torch.channels_last) if images_last else module


def _shortest(watch: Watch, runs: list[Run]) -> list[float]:
    return [min(seconds) for seconds in time_in_turns(watch, runs, EFFORT)]


def _changed(found: Mapping[str, Choice]) -> dict[str, str]:
    return {name: choice.chosen for name, choice in found.items() if choice.chosen != choice.built}


def _as_built(choice: Choice) -> Choice:
    return Choice(choice.built, choice.built, choice.seconds, choice.flops)
