"""What enters a network: a tensor, a tuple of tensors or a dict of tensors, treated alike.

A tensor is passed as the only argument, a tuple as positional arguments, a dict as keyword arguments. The first
dimension of every tensor is the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from spaces import InputError

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
"""The inputs of one call: one tensor, positional arguments, or keyword arguments."""

Target = Any
"""What a batch is compared with: most often a tensor, else a tuple or dict of tensors; only the task looks at it."""


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Run a network.

    Args:
        model: The network.
        inputs: One tensor, positional arguments, or keyword arguments.

    Returns:
        Whatever the network returns.

    Example:
        >>> call(nn.Bilinear(2, 3, 1), (torch.ones(4, 2), torch.ones(4, 3))).shape
        torch.Size([4, 1])
    """
    if isinstance(inputs, Tensor):
        return model(inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs)


def tensors(inputs: Inputs) -> list[Tensor]:
    """List the tensors.

    Args:
        inputs: One tensor, a tuple or a dict.

    Returns:
        The tensors in their order.
    """
    if isinstance(inputs, Tensor):
        return [inputs]
    return list(inputs.values() if isinstance(inputs, Mapping) else inputs)


def arguments(inputs: Inputs, names: Sequence[str]) -> list[Tensor]:
    """Put the tensors into the order of a function's parameters.

    Args:
        inputs: One tensor, a tuple or a dict.
        names: Names of the parameters, in order; those behind the last input have defaults.

    Returns:
        The tensors; those of a dict in the order of the names (a ``KeyError`` if they are not the first ones).

    Example:
        >>> arguments({"b": torch.ones(1), "a": torch.zeros(1)}, ["a", "b", "c"])
        [tensor([0.]), tensor([1.])]
    """
    return [inputs[name] for name in names[: len(inputs)]] if isinstance(inputs, dict) else tensors(inputs)


def get_first_tensor(inputs: Inputs) -> Tensor:
    """Return the first tensor.

    Args:
        inputs: One tensor, a tuple or a dict.

    Returns:
        The tensor, ``[batch, ...]``.
    """
    return tensors(inputs)[0]


def batch_size(inputs: Inputs) -> int:
    """Count the examples.

    Args:
        inputs: One tensor, a tuple or a dict.

    Returns:
        Length of the first dimension of the first tensor.
    """
    return len(get_first_tensor(inputs))


def map_tensors(inputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change every tensor and keep the structure; a target of tensors is treated in the same way.

    Args:
        inputs: One tensor, a tuple or list, or a dict.
        change: What happens to each tensor.

    Returns:
        The same structure of changed tensors.
    """
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, Mapping):
        return {name: map_tensors(each, change) for name, each in inputs.items()}
    return type(inputs)(map_tensors(each, change) for each in inputs)


def move(inputs: Any, device: str | torch.device) -> Any:
    """Move every tensor to a device.

    Args:
        inputs: One tensor, a tuple or a dict; or a target.
        device: Where to.

    Returns:
        The same structure there; tensors that are there already are shared.
    """
    return map_tensors(inputs, lambda tensor: tensor.to(device, non_blocking=True))


def take(inputs: Any, index: slice | Tensor) -> Any:
    """Select examples.

    Args:
        inputs: One tensor, a tuple or a dict; or a target.
        index: Which examples.

    Returns:
        The same structure with these examples.

    Example:
        >>> take({"a": torch.arange(4)}, slice(1, 3))
        {'a': tensor([1, 2])}
    """
    return map_tensors(inputs, lambda tensor: tensor[index])


def pieces(inputs: Any, count: int) -> list[Any]:
    """Split a batch into nearly equal pieces.

    Args:
        inputs: One tensor, a tuple or a dict; or a target.
        count: How many pieces; those that would be empty are empty.

    Returns:
        ``count`` batches, the first ones one example longer where they are not equal (as ``Tensor.tensor_split``).
    """

    def part(at: int) -> Any:
        return map_tensors(inputs, lambda tensor: tensor.tensor_split(count)[at])

    return [part(at) for at in range(count)]


def repeat(inputs: Inputs, times: int) -> Inputs:
    """Stack copies of a batch along the first dimension.

    Args:
        inputs: One tensor, a tuple or a dict.
        times: How many copies.

    Returns:
        The same structure, ``times`` as many examples.
    """
    repeated: Inputs = map_tensors(inputs, lambda tensor: tensor.repeat(times, *[1] * (tensor.ndim - 1)))
    return repeated


def outputs_in(answer: Any) -> list[Tensor]:
    """Find all floating-point tensors in what a network returned.

    Args:
        answer: A tensor, or tuples, lists and mappings of whatever depth; anything else is passed over.

    Returns:
        The tensors, in order.
    """
    return [tensor for tensor in leaves(answer) if tensor.is_floating_point()]


def leaves(value: Any) -> list[Tensor]:
    """Find all tensors in inputs or targets.

    Args:
        value: A tensor, or tuples, lists and mappings of whatever depth; anything else is passed over.

    Returns:
        The tensors, in order.
    """
    if isinstance(value, Tensor):
        return [value]
    several = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [tensor for each in several for tensor in leaves(each)]


def shapes_of(inputs: Inputs) -> Any:
    """Describe inputs in JSON's types.

    Args:
        inputs: One tensor, a tuple or a dict.

    Returns:
        A list of whole numbers for a tensor; a list of such lists for a tuple; a mapping of such lists for a dict.

    Example:
        >>> shapes_of((torch.zeros(1, 3), torch.zeros(1, 2)))
        [[1, 3], [1, 2]]
    """
    if isinstance(inputs, Tensor):
        return list(inputs.shape)
    if isinstance(inputs, Mapping):
        return {name: list(each.shape) for name, each in inputs.items()}
    return [list(each.shape) for each in inputs]


def is_inputs(value: Any) -> TypeGuard[Inputs]:
    """Tell whether something is one of the three forms of inputs.

    Args:
        value: Anything.

    Returns:
        Whether it is a tensor, or a non-empty tuple or dict of tensors.
    """
    several = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
    return len(several) > 0 and all(isinstance(each, Tensor) for each in several)


def dtypes_of(inputs: Inputs) -> Any:
    """Describe the types of inputs in JSON's types.

    Args:
        inputs: One tensor, a tuple or a dict.

    Returns:
        A name such as ``"float32"`` for a tensor; a list or a mapping of such names for several.
    """
    if isinstance(inputs, Tensor):
        return str(inputs.dtype).removeprefix("torch.")
    if isinstance(inputs, Mapping):
        return {name: dtypes_of(each) for name, each in inputs.items()}
    return [dtypes_of(each) for each in inputs]


def zeros(shapes: Any, dtypes: Any = None) -> Inputs:
    """Make inputs of zeros.

    Args:
        shapes: What :func:`shapes_of` gave: a list of whole numbers, a list of such lists, or a mapping of them.
        dtypes: What :func:`dtypes_of` gave; ``None`` for float32.

    Returns:
        The inputs, on the CPU.

    Example:
        >>> zeros({"ids": [1, 2]}, {"ids": "int64"})
        {'ids': tensor([[0, 0]])}
    """
    if isinstance(shapes, Mapping):
        return {name: _zeros(shape, dtypes and dtypes[name]) for name, shape in shapes.items()}
    if shapes and not isinstance(shapes[0], int):
        return tuple(_zeros(shape, dtypes and dtypes[place]) for place, shape in enumerate(shapes))
    return _zeros(shapes, dtypes)


def _zeros(shape: Sequence[int], dtype: str | None) -> Tensor:
    return torch.zeros(tuple(shape), dtype=torch.float32 if dtype is None else getattr(torch, dtype))


def check_inputs(inputs: Any, what: str) -> Inputs:
    """Bring inputs into one of the three forms.

    Args:
        inputs: What was given; a list becomes a tuple.
        what: What it is, for messages.

    Returns:
        A tensor, a non-empty tuple of tensors, or a non-empty dict of tensors by name, all of equally many examples.

    Raises:
        InputError: If it is anything else.
    """
    if isinstance(inputs, Mapping) and inputs and all(isinstance(name, str) for name in inputs):
        found: Any = dict(inputs)
    else:
        found = tuple(inputs) if isinstance(inputs, list | tuple) else inputs
    several = found.values() if isinstance(found, dict) else found if isinstance(found, tuple) else (found,)
    if not several or not all(isinstance(each, Tensor) for each in several):
        raise InputError(f"{what} must be a tensor, a tuple of tensors or a dict of tensors, not {_kind(inputs)}")
    counts = {len(each) if each.ndim else -1 for each in several}
    if len(counts) > 1 or -1 in counts:
        raise InputError(f"{what}: all tensors must have the batch as their first dimension, not {shapes_of(found)}")
    checked: Inputs = found
    return checked


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(sorted({type(each).__name__ for each in value.values()})) or 'nothing'}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {', '.join(sorted({type(each).__name__ for each in value})) or 'nothing'}"
    return type(value).__name__
