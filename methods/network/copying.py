"""Copies of networks, also of those that keep computed tensors as attributes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def copy_network(model: nn.Module) -> nn.Module:
    """Copy a network.

    The older ``weight_norm`` and ``spectral_norm`` of torch keep the weight that they computed last as an attribute,
    which ``copy.deepcopy`` refuses; they compute it again in every pass.

    Args:
        model: The network.

    Returns:
        A deep copy.
    """
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in _list_computed(model)})


def shapes_of(model: nn.Module) -> nn.Module:
    """Copy a network onto the meta device, where only shapes are computed; shared parameters stay shared.

    Args:
        model: The network.

    Returns:
        A copy that takes no memory.
    """
    memo: dict[int, Any] = {id(value): value.detach().to("meta") for value in _list_computed(model)}
    for module in model.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is None or id(tensor) in memo:
                continue
            empty = torch.empty_like(tensor, device="meta", requires_grad=False)
            is_parameter = isinstance(tensor, nn.Parameter)
            memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    return copy.deepcopy(model, memo)


def load_state(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a state dictionary that has lost the versions of its modules, as those from safetensors files have.

    Args:
        model: The network; its own versions are supposed.
        weights: Tensors by name.
    """
    versions = getattr(model.state_dict(), "_metadata", None)
    state = dict(weights)
    if getattr(weights, "_metadata", None) is None and versions is not None:
        state = type(model.state_dict())(state)
        state._metadata = versions  # type: ignore[attr-defined]
    model.load_state_dict(state if getattr(weights, "_metadata", None) is None else weights)


def _list_computed(model: nn.Module) -> list[Tensor]:
    """List the tensors that modules keep as plain attributes although they were computed."""
    return [
        value
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    ]
