"""Networks of blocks on a target: each layer in the way that is measured to be fastest there, never slower than dense.

Where layers run one after the other as they are (``cpu``, ``cuda``), every layer is decided by itself. A compiler
rearranges whole networks, so there the network of blocks is compared, as a whole, with the dense one that has zeros
outside the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from methods.network.folding import fold_norms
from methods.pivoting.arrangement import Arrangement
from methods.pivoting.dispatch import MASKED, dispatch, execute_as_decided, undecided_layers
from search.speed.conditions import Conditions
from search.speed.interleaved import Run, Watch

LOOKS = 3
"""How often each of two compiled networks is timed; the shortest time counts."""


def decide_blocks(network: nn.Module, inputs: Tensor) -> nn.Module:
    """Decide how the layers of blocks run, in the memory layout that the inputs have.

    Args:
        network: A network, in eval mode.
        inputs: Its inputs.

    Returns:
        The network as decided; the network itself if it has no such layers.
    """
    if not undecided_layers(network):
        return network
    channels_last = inputs.ndim == 4 and not inputs.is_contiguous()
    return dispatch(network, inputs, layouts=(channels_last,))[0]


def faster(network: nn.Module, prepare: Callable[[nn.Module], Run], watch: Watch) -> Run:
    """Compile a network of blocks, and its dense twin, and keep what is faster.

    Args:
        network: A network, in eval mode.
        prepare: Compiles a network.
        watch: Tells the time.

    Returns:
        A forward pass.
    """
    run = prepare(network)
    layers = undecided_layers(network)
    if not layers:
        return run
    twin = prepare(execute_as_decided(network, dict.fromkeys(layers, MASKED)).network)
    seconds = [min(watch.seconds(each, 1) for _ in range(LOOKS)) for each in (run, twin)]
    return run if seconds[0] <= seconds[1] else twin


def deployment(network: nn.Module, inputs: Tensor, setting: Conditions) -> dict[str, Any]:
    """Decide how an exported network of blocks runs on this machine, as plain data.

    Args:
        network: The network, in eval mode.
        inputs: A batch of its inputs.
        setting: Under which conditions it is decided.

    Returns:
        Decision, measurements and conditions in JSON's types, for :func:`deploy`; and ``gathers``, how many orders of
        channels could not be folded into neighbouring layers and are made when the network runs.
    """
    _, decision = dispatch(fold_norms(network), inputs)
    conditions: dict[str, Any] = {"device": inputs.device.type, "precision": str(inputs.dtype).removeprefix("torch.")}
    conditions |= {"batch_size": setting.batch_size, "threads": setting.threads}
    gathers = sum(module.gathers for module in network.modules() if isinstance(module, Arrangement))
    return conditions | {"gathers": gathers} | decision.to_json()


def deploy(network: nn.Module, decision: Mapping[str, Any] | None) -> nn.Module:
    """Make a network that is only run: batch norms folded, layers of blocks as decided.

    Args:
        network: The network; not changed.
        decision: What :func:`deployment` gave; ``None`` for a network without layers of blocks.

    Returns:
        A copy in eval mode.
    """
    still = fold_norms(network)
    return still if decision is None else execute_as_decided(still, decision["ways"], decision["channels_last"])
