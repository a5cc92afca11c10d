"""Real inputs of a study, kept beside it: what exported networks are checked with."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from methods.contract.data import Split
from methods.contract.inputs import Inputs, take, tensors
from search.store.weights import load_weights, save_weights

MOST = 64
LEAST = 2
"""A batch of one could not show that the batch size is free."""

BYTES = 4 << 20
"""About how much is kept."""


def take_inputs(split: Split) -> Inputs:
    """Take the first examples of a split.

    Args:
        split: The split.

    Returns:
        2 to 64 inputs, fewer the larger they are.
    """
    first, _ = next(iter(split.batches(LEAST)))
    each = sum(tensor[0].numel() * tensor.element_size() for tensor in tensors(first))
    count = max(LEAST, min(MOST, BYTES // max(1, each)))
    inputs, _ = next(iter(split.batches(count)))
    taken: Inputs = take(inputs, slice(0, count))
    return taken


def write_inputs(path: Path, inputs: Inputs) -> None:
    """Keep inputs, atomically.

    Args:
        path: The file, ending in ``.safetensors``.
        inputs: A tensor, a tuple or a dict.
    """
    if isinstance(inputs, Tensor):
        named = {"tensor": inputs}
    elif isinstance(inputs, dict):
        named = {f"dict.{name}": tensor for name, tensor in inputs.items()}
    else:
        named = {f"tuple.{place}": tensor for place, tensor in enumerate(inputs)}
    save_weights(named, path)


def read_inputs(path: Path) -> Inputs:
    """Read what :func:`write_inputs` wrote.

    Args:
        path: The file.

    Returns:
        The inputs in their form.
    """
    named = load_weights(path)
    if "tensor" in named:
        return named["tensor"]
    if any(key.startswith("dict.") for key in named):
        return {key.removeprefix("dict."): tensor for key, tensor in named.items()}
    return tuple(named[f"tuple.{place}"] for place in range(len(named)))
