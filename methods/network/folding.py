"""Batch norms folded into the layers before them, for networks that are only run.

In eval mode a batch norm is one multiplication and one addition per channel, ``y = s x + t``. Both go into the
weights of the layer that makes ``x``, and a pass over the activations is saved: one of those that fewer
multiply-accumulates do not make cheaper.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter

import torch
from torch import fx, nn

from methods.contract.forms import EqualForms, ScalesOutputs
from methods.network.layers import ZeroPadShortcut

Foldable = nn.Conv2d | nn.Linear | ScalesOutputs

UNTRACEABLE = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, NameError)
"""What ``torch.fx`` raises at networks it cannot follow."""


class Tracer(fx.Tracer):
    """Does not look into layers that are more than what they are made of."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell whether a module is one node of the graph.

        Args:
            m: The module.
            module_qualified_name: Its name.

        Returns:
            Whether it is.
        """
        leaves = (ZeroPadShortcut, EqualForms, ScalesOutputs)
        return isinstance(m, leaves) or super().is_leaf_module(m, module_qualified_name)


def fold_norms(model: nn.Module) -> nn.Module:
    """Fold every batch norm that follows a convolution or linear layer, and nothing else, into it.

    Activations (``nn.ReLU``) then work in place where nothing else reads what they read.

    Args:
        model: The network; not changed.

    Returns:
        A copy in eval mode, for inference only, in which folded norms are ``nn.Identity``. Where the graph cannot
        be followed nothing is changed.
    """
    still = copy.deepcopy(model).eval()
    try:
        graph = Tracer().trace(still)
    except UNTRACEABLE:
        return still
    for layer, norm in _pairs(still, graph):
        _fold(still.get_submodule(layer), still.get_submodule(norm))
        still.set_submodule(norm, nn.Identity())
    for name in _find_sole_readers(still, graph):
        still.set_submodule(name, nn.ReLU(inplace=True))
    return still


def _pairs(model: nn.Module, graph: fx.Graph) -> list[tuple[str, str]]:
    """Name layers with the norm that is alone in reading them."""
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    found = []
    for node in graph.nodes:
        before = read_first(node)
        if node.op != "call_module" or before is None or before.op != "call_module" or len(before.users) > 1:
            continue
        names = str(before.target), str(node.target)
        norm = model.get_submodule(names[1])
        if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) or norm.running_mean is None:
            continue
        if isinstance(model.get_submodule(names[0]), Foldable) and all(calls[name] == 1 for name in names):
            found.append(names)
    return found


def _find_sole_readers(model: nn.Module, graph: fx.Graph) -> set[str]:
    """Name the activations that are alone, in every call, in reading a tensor that was made just before."""
    alone: dict[str, bool] = {}
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(model.get_submodule(str(node.target)), nn.ReLU):
            name = str(node.target)
            alone[name] = alone.get(name, True) and _is_read_once(model, node)
    return {name for name, only in alone.items() if only}


def _is_read_once(model: nn.Module, node: fx.Node) -> bool:
    """Whether what a node reads is a new tensor that nothing else reads; what was folded hands tensors on."""
    before = read_first(node)
    if before is None or len(before.users) > 1:
        return False
    if before.op == "call_function":
        return before.target is operator.add
    if before.op != "call_module":
        return False
    module = model.get_submodule(str(before.target))
    if isinstance(module, nn.Identity):
        return _is_read_once(model, before)
    return isinstance(module, Foldable | nn.BatchNorm1d | nn.BatchNorm2d)


def read_first(node: fx.Node) -> fx.Node | None:
    """Return the node that a module or function reads first.

    Args:
        node: Of a graph.

    Returns:
        The node; None if the first argument is not one.
    """
    calls = node.op in ("call_module", "call_function")
    return node.args[0] if calls and node.args and isinstance(node.args[0], fx.Node) else None


def _fold(layer: nn.Module, norm: nn.Module) -> None:
    """Multiply rows by what the norm multiplies with, and move the bias."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        scale = (norm.running_var + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight
        shift = -norm.running_mean * scale
        if norm.bias is not None:
            shift = shift + norm.bias
        if isinstance(layer, ScalesOutputs):
            layer.scale_outputs(scale, shift)
            return
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        weight = layer.weight.detach()
        layer.weight = nn.Parameter((weight.reshape(len(weight), -1) * scale[:, None]).reshape(weight.shape))
        bias = shift if layer.bias is None else layer.bias.detach() * scale + shift
        layer.bias = nn.Parameter(bias.to(weight.dtype))
