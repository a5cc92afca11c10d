"""A network with numbers that hide nothing, on which what is claimed of its structure is tried."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs, call, map_tensors, outputs_in, repeat
from methods.network.copying import copy_network

EXACT_UP_TO = 150_000_000
"""Networks with more parameters are proven in their own precision: in float64 they would take too much memory."""

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-3}
"""Largest difference between the cut and the silenced network, relative to the largest output."""


class Shaken:
    """A copy of a network in which no norm is the identity and no layer scale is zero, and a batch of two examples.

    Args:
        model: The network; not changed.
        example: One input, ``[1, ...]``.

    Attributes:
        network: The copy in eval mode, in float64 where that is possible.
        inputs: Two examples that differ, of the same precision.
        tolerance: Largest difference that rounding makes, relative to the largest output.
    """

    def __init__(self, model: nn.Module, example: Inputs) -> None:
        size = sum(parameter.numel() for parameter in model.parameters())
        floats = [p.dtype for p in model.parameters() if p.is_floating_point()]
        dtype = torch.float64 if size <= EXACT_UP_TO and set(floats) == {torch.float32} else None
        self.network = _shake(model).eval()
        if dtype is not None and not _runs_in_double(self.network, vary_inputs(example, dtype)):
            dtype = None  # its code makes numbers of a fixed kind
        if dtype is not None:
            self.network = self.network.double()
        self.inputs = vary_inputs(example, dtype)
        self.tolerance = TOLERANCE[dtype or torch.float32]


def vary_inputs(example: Inputs, dtype: torch.dtype | None) -> Inputs:
    """Make two examples that differ, of the example's kind.

    Args:
        example: One input, ``[1, ...]``.
        dtype: The kind of real numbers; that of the example for None.

    Returns:
        The batch of two.
    """
    generator = torch.Generator().manual_seed(1)

    def vary(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        noise = torch.randn(tensor.shape, generator=generator).to(tensor)
        varied = tensor + noise * (tensor.std() if tensor.numel() > 1 and tensor.std() > 0 else 1)
        return varied if dtype is None else varied.to(dtype)

    found: Inputs = map_tensors(repeat(example, 2), vary)
    return found


def _runs_in_double(model: nn.Module, inputs: Inputs) -> bool:
    """Whether a network can be run in float64."""
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            with torch.no_grad():
                answers = outputs_in(call(copy_network(model).double().eval(), inputs))
    except Exception:  # noqa: BLE001  (a network may fail in any way)
        return False
    return all(answer.dtype == torch.float64 for answer in answers if answer.is_floating_point())


def _shake(model: nn.Module) -> nn.Module:
    """Copy a network with numbers that hide nothing: no norm is the identity, no layer scale is zero."""
    copied: nn.Module = copy_network(model)
    generator = torch.Generator().manual_seed(0)

    def noise(tensor: Tensor) -> Any:
        return torch.rand(tensor.shape, generator=generator).to(tensor)

    with torch.no_grad():
        for name, parameter in copied.named_parameters():
            if not parameter.is_floating_point() or not parameter.numel():
                continue
            alike = parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all())
            if parameter.ndim == 1 and not name.endswith("bias"):
                parameter.copy_(noise(parameter) + 0.5)
            elif parameter.ndim <= 1 or alike:
                parameter.add_(0.6 * noise(parameter) - 0.3)
        for name, buffer in copied.named_buffers():
            if name.endswith("running_mean") and buffer.is_floating_point():
                buffer.copy_(0.6 * noise(buffer) - 0.3)
            elif name.endswith("running_var") and buffer.is_floating_point():
                buffer.copy_(noise(buffer) + 0.5)
    return copied
