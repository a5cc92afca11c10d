"""Fresh initial weights for a network that exists."""

from __future__ import annotations

import copy

import torch
from torch import nn

from spaces import InputError


def reinitialise(model: nn.Module, seed: int) -> nn.Module:
    """Copy a network with new initial weights, as its modules reset themselves.

    Args:
        model: The network; not changed.
        seed: Decides the weights; the global generator is left as it was.

    Returns:
        The copy, on the same device and in the same mode.

    Raises:
        InputError: If a module with weights of its own cannot reset them.
    """
    new = copy.deepcopy(model).to("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in new.named_modules():
            if reset := getattr(module, "reset_parameters", None):
                reset()
            elif next(module.parameters(recurse=False), None) is not None:
                raise InputError(f"new weights need a method reset_parameters in {type(module).__name__} ({name!r})")
    return new.to(next(model.parameters()).device)
