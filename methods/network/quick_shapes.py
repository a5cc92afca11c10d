"""Shapes of norms and activations at once: on the meta device torch works some out in Python, for milliseconds each.

More than half of the time of a convolutional network's pass on that device are its batch norms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class QuickShapes(TorchFunctionMode):
    """While it is entered, norms and activations of tensors on the meta device only make a tensor like their input.

    What torch might refuse is left to torch, and so is everything else.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        is_sure = ALIKE.get(func)
        if is_sure is not None and args and _is_plain(args[0]) and is_sure(*args, **given):
            return torch.empty_like(args[0])
        return func(*args, **given)


def _is_plain(tensor: object) -> bool:
    """Whether a tensor holds no numbers, needs no gradients, and results have its strides."""
    if not isinstance(tensor, Tensor) or tensor.device.type != "meta" or torch.is_grad_enabled():
        return False
    images = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor.is_floating_point() and (tensor.is_contiguous() or images)


def _activation(*args: Any, **given: Any) -> bool:
    return True


def _batch_norm(inputs: Tensor, *args: Any, **given: Any) -> bool:
    """Whether every vector has an element for each channel, and there is a variance in training mode."""
    vectors = [each for each in (*args, *given.values()) if isinstance(each, Tensor)]
    fit = inputs.ndim >= 2 and all(v.shape == inputs.shape[1:2] and v.dtype == inputs.dtype for v in vectors)
    return fit and inputs.numel() > inputs.shape[1] > 0


def _layer_norm(inputs: Tensor, normalized_shape: Any, *args: Any, **given: Any) -> bool:
    """Whether the last dimensions are those that are normalised, with an element for each in every tensor."""
    normed = torch.Size(normalized_shape)
    tensors = [each for each in (*args, *given.values()) if isinstance(each, Tensor)]
    fit = all(each.shape == normed and each.dtype == inputs.dtype for each in tensors)
    return fit and len(normed) > 0 and inputs.shape[-len(normed) :] == normed


ALIKE: Mapping[Callable[..., Any], Callable[..., bool]] = {
    **dict.fromkeys((torch.relu, F.relu, F.hardtanh, F.hardswish, F.hardsigmoid, F.silu, F.gelu), _activation),
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
}
"""Functions whose result is like their first argument, and whether that is sure for these arguments."""
