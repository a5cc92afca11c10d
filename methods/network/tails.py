"""What follows a layer and can be run together with it, image by image."""

from __future__ import annotations

from collections import Counter

from torch import fx, nn

from methods.contract.forms import FormsWithTail
from methods.network.folding import UNTRACEABLE, Tracer, read_first

_IMAGE_BY_IMAGE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardtanh, nn.Sigmoid, nn.Tanh,
    nn.Identity, nn.Dropout, nn.Dropout2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
)  # fmt: skip
"""Modules that, in eval mode, do to an image the same whatever the batch."""


def tails(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Find what follows each layer that has forms with a tail, and can be run with it.

    Args:
        model: A network in eval mode.

    Returns:
        By name of layer the names of modules that follow one after the other, each alone in reading the one before,
        and that treat every image by itself; nothing where the graph cannot be followed.
    """
    try:
        graph = Tracer().trace(model)
    except UNTRACEABLE:
        return {}
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    found: dict[str, tuple[str, ...]] = {}
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(model.get_submodule(str(node.target)), FormsWithTail):
            found[str(node.target)] = _follow_tail(model, node, calls) if calls[str(node.target)] == 1 else ()
    return found


def _follow_tail(model: nn.Module, node: fx.Node, calls: Counter[str]) -> tuple[str, ...]:
    """Go on from a layer as long as what follows treats images one by one, and nothing else reads along."""
    names: list[str] = []
    while len(node.users) == 1:
        (node,) = node.users
        if node.op != "call_module" or read_first(node) is None or calls[str(node.target)] > 1:
            break
        if not isinstance(model.get_submodule(str(node.target)), _IMAGE_BY_IMAGE):
            break
        names.append(str(node.target))
    return tuple(names)
