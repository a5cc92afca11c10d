"""A cut network as data: JSON beside its weights, never a pickled module.

The description lists every module whose tensors differ in shape from those of the dense network, with the
numbers that define it. To rebuild, build the dense network as usual, resize those modules, load the weights.
The description holds no code: only attributes named in :data:`WIDTHS` are set, only tensors are replaced.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spaces import InputError

FORMAT = 1

WIDTHS = (
    "in_channels",
    "out_channels",
    "groups",
    "in_features",
    "out_features",
    "num_features",
    "num_channels",
    "normalized_shape",
    "num_parameters",
    "embedding_dim",
)
"""Attributes of modules that follow their tensors' shapes."""


def describe(dense: nn.Module, cut: nn.Module) -> dict[str, Any]:
    """Describe how a cut network differs in shape from the dense one.

    Args:
        dense: The network before cutting.
        cut: The network after cutting; it has modules of the same names.

    Returns:
        A mapping that ``json.dumps`` accepts, for :func:`rebuild`.

    Raises:
        ValueError: If the two networks differ in more than shapes.
    """
    before, after = dict(dense.named_modules()), dict(cut.named_modules())
    if before.keys() != after.keys():
        raise ValueError(f"modules differ by name: {sorted(before.keys() ^ after.keys())[:5]}")
    modules = {}
    for name, module in after.items():
        widths, shapes = _widths(module), _shapes(module)
        if (widths, shapes) != (_widths(before[name]), _shapes(before[name])):
            modules[name] = {"class": type(module).__name__, "widths": widths, "shapes": shapes}
    return {"format": FORMAT, "modules": modules}


def rebuild(dense: nn.Module, description: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """Rebuild a cut network from the dense one's code, the description and the weights.

    Args:
        dense: The network as its builder makes it (its weights do not matter); not changed.
        description: What :func:`describe` gave.
        weights: State dictionary of the cut network.

    Returns:
        The cut network in eval mode.

    Raises:
        InputError: If the description is of another format or does not fit the network, or the weights do not
            fit the description.
    """
    if description.get("format") != FORMAT:
        raise InputError(f"architecture format {description.get('format')!r} is not supported (known: {FORMAT})")
    model = copy.deepcopy(dense)
    names = dict(model.named_modules())
    for name, change in description["modules"].items():
        module = names.get(name)
        if module is None or type(module).__name__ != change["class"]:
            raise InputError(
                f"the architecture describes a {change['class']} {name!r}, which {type(model).__name__} does not "
                "have; was it made from another network?"
            )
        _resize(module, change)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"the weights do not fit the architecture: {str(error).splitlines()[-1].strip()}") from error
    return model.eval()


def _widths(module: nn.Module) -> dict[str, Any]:
    """Read the numbers that define a module's shape."""
    found = {name: getattr(module, name) for name in WIDTHS if hasattr(module, name)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    """Read the shapes of a module's own tensors."""
    own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
    return {name: list(tensor.shape) for name, tensor in own.items()}


def _resize(module: nn.Module, change: Mapping[str, Any]) -> None:
    """Set the widths of one module and give it empty tensors of the described shapes."""
    for attribute, value in change["widths"].items():
        if attribute not in WIDTHS or not hasattr(module, attribute):
            raise InputError(f"{attribute!r} is not a width of {change['class']}")
        setattr(module, attribute, tuple(value) if isinstance(value, list) else value)
    tensors = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
    for name, shape in change["shapes"].items():
        if name not in tensors:
            raise InputError(f"{change['class']} has no tensor {name!r}")
        empty = torch.zeros(shape, dtype=tensors[name].dtype, device=tensors[name].device)
        if isinstance(tensors[name], nn.Parameter):
            setattr(module, name, nn.Parameter(empty))
        else:
            module.register_buffer(name, empty)
