"""Where numbers that are not finite come from: the first layer, in order of execution, that makes them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs, call
from methods.training.evaluation import evaluation_mode


def origin(model: nn.Module, inputs: Inputs) -> str | None:
    """Run a network and find where values stop being finite.

    Args:
        model: The network; not changed.
        inputs: A batch.

    Returns:
        What it is, such as "the outputs of layer 'stem.1' (BatchNorm2d)", or the inputs of the first layer if they
        came so; ``None`` if every layer gives finite values.
    """
    first: list[str] = []

    def look(name: str, layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        if first:
            return
        for side, values in (("inputs", (*args, *named.values())), ("outputs", (output,))):
            if any(is_not_finite(value) for value in values):
                first.append(f"the {side} of layer {name!r} ({type(layer).__name__})")
                return

    handles = [
        layer.register_forward_hook(partial(look, name), with_kwargs=True)
        for name, layer in model.named_modules()
        if next(layer.children(), None) is None
    ]
    try:
        with evaluation_mode(model), torch.no_grad():
            call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return first[0] if first else None


def is_not_finite(value: object) -> bool:
    """Tell whether something is a tensor with infinities or NaN; waits for the device.

    Args:
        value: Anything.

    Returns:
        Whether it is.
    """
    return isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all())
