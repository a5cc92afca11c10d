"""Portions: a layer and what follows it, run on a few images at a time, so that activations stay in the cache.

A layer of an eighth of the multiply-accumulates still reads and writes all of its activations. Where those of a
batch are larger than the cache, as in the first layers of an image network, that is what takes the time. If a layer
and the activations and pooling behind it are run on a part of the batch before the next part is begun, what the one
writes is still near when the other reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from methods.network.folding import UNTRACEABLE, Tracer, read_first
from methods.pivoting.blocks import PivotedConv2d

PORTION = 2 * 2**20
"""Bytes of inputs in a portion: the smallest that costs nothing in calls, on a core with a cache of 1 MiB."""

_IMAGE_BY_IMAGE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardtanh, nn.Sigmoid, nn.Tanh,
    nn.Identity, nn.Dropout, nn.Dropout2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
)  # fmt: skip
"""Modules that, in eval mode, do to an image the same whatever the batch."""


class InPortions(nn.Module):
    """A layer and what follows it, on a few images at a time.

    Args:
        layer: The layer.
        tail: What follows it; treats every image by itself.
    """

    def __init__(self, layer: nn.Module, tail: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.steps = nn.Sequential(layer, *tail)

    def forward(self, x: Tensor) -> Tensor:
        """Run.

        Args:
            x: ``[batch, in_channels, height, width]``.

        Returns:
            What the layer and its tail make of it.
        """
        images = portion(x)
        if images >= len(x):
            whole: Tensor = self.steps(x)
            return whole
        return torch.cat([self.steps(part) for part in x.split(images)])


def portion(x: Tensor) -> int:
    """Return how many images make a portion.

    Args:
        x: ``[batch, ...]``.

    Returns:
        As many as have :data:`PORTION` bytes, one at least.
    """
    return max(1, PORTION * len(x) // max(1, x.numel() * x.element_size()))


def tails(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Find what follows each convolution of blocks and can be run with it.

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
        if node.op == "call_module" and isinstance(model.get_submodule(str(node.target)), PivotedConv2d):
            found[str(node.target)] = _behind(model, node, calls) if calls[str(node.target)] == 1 else ()
    return found


def _behind(model: nn.Module, node: fx.Node, calls: Counter[str]) -> tuple[str, ...]:
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
