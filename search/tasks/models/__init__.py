"""Networks by name: ours in their published shapes, torchvision's, and the user's own.

Needs no torch until a network is built.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.contract.named import call_named, is_reference, known_names, load_named
from spaces import InputError, unknown_name

if TYPE_CHECKING:
    from torch import nn

MODELS: dict[str, str] = {
    "digits_resnet": "search.tasks.models.resnet:digits_resnet",
    "lenet_300_100": "search.tasks.models.lenet:lenet_300_100",
    "mobilenetv2": "search.tasks.models.mobilenetv2:mobilenetv2",
    "resnet20": "search.tasks.models.resnet:resnet20",
    "resnet32": "search.tasks.models.resnet:resnet32",
    "resnet32_wide": "search.tasks.models.resnet:resnet32_wide",
    "resnet56": "search.tasks.models.resnet:resnet56",
    "resnet110": "search.tasks.models.resnet:resnet110",
    "vgg16": "search.tasks.models.vgg:vgg16",
    "vgg19": "search.tasks.models.vgg:vgg19",
    "wrn28_10": "search.tasks.models.wide_resnet:wrn28_10",
}
"""Where the builder of each of our networks is: ``builder(classes, channels, seed)``."""

GROUP = "paretoprune.models"
"""The entry-point group in which other packages list builders of networks."""

TORCHVISION = "torchvision:"


def build_model(
    name: str, classes: int, example_shape: Sequence[int], seed: int, weights: str | None = None
) -> nn.Module:
    """Build a network and check that it classifies inputs of the given shape.

    Args:
        name: A name in :data:`MODELS`, ``torchvision:NAME``, or ``package.module:function`` for a function of
            the user's that returns a network; it is called with ``num_classes``, or else ``classes``, if it
            takes such an argument.
        classes: Number of classes.
        example_shape: Shape of one input, ``(1, channels, ...)``, such as ``(1, 3, 32, 32)``.
        seed: Decides the initial weights; global random state is left alone.
        weights: A weight file (``.safetensors``, ``.pth``, ``.pt``), for torchvision models also the name of
            a set of weights; ``None`` for initial weights.

    Returns:
        The network on the CPU, in training mode.

    Raises:
        InputError: If the name is unknown, the network cannot be built, does not take such inputs, gives
            another number of classes, or the weights do not fit.
    """
    from search.tasks.models.initialise import seeded_defaults
    from search.tasks.models.weights import is_weight_file, load_weights

    file = Path(weights) if weights is not None and is_weight_file(weights) else None
    named = None if file is not None else weights
    if named is not None and not name.startswith(TORCHVISION):
        raise InputError(
            f"weights {named!r} of model {name!r} must be a .safetensors, .pth or .pt file; "
            "names of weights exist for torchvision models only"
        )
    with seeded_defaults(seed):
        model = _build(name, classes, example_shape, seed, named)
        _check(model, name, classes, example_shape)  # inside: lazy layers draw their weights now
    if file is not None:
        load_weights(model, file)
    return model


def _build(name: str, classes: int, example_shape: Sequence[int], seed: int, weights: str | None) -> nn.Module:
    if name in MODELS:
        module, _, function = MODELS[name].partition(":")
        builder: Callable[..., nn.Module] = getattr(import_module(module), function)
        return builder(classes, channels=example_shape[1], seed=seed)
    if name.startswith(TORCHVISION):
        from search.tasks.models.torchvision_models import torchvision_model

        return torchvision_model(name.removeprefix(TORCHVISION), classes, weights)
    if is_reference(name) or name in known_names({}, GROUP):
        return _user_model(name, classes)
    known = [*known_names(MODELS, GROUP), "torchvision:NAME", "package.module:function"]
    raise InputError(unknown_name("model", name, known))


def _user_model(reference: str, classes: int) -> nn.Module:
    from torch import nn

    function = load_named("model", reference, MODELS, GROUP)
    model = call_named(function, reference, "model", **_classes_argument(function, classes))
    if not isinstance(model, nn.Module):
        raise InputError(f"model {reference!r} must return a torch.nn.Module, not {type(model).__name__}")
    return model


def _classes_argument(function: Callable[..., Any], classes: int) -> dict[str, int]:
    """Name the number of classes as the function does, if it takes it at all."""
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for name in ("num_classes", "classes"):
        if name in parameters:
            return {name: classes}
    return {"num_classes": classes} if takes_any else {}


def _check(model: nn.Module, name: str, classes: int, example_shape: Sequence[int]) -> None:
    """Run two inputs through the network, which must come out as it went in."""
    import torch

    modes = [(module, module.training) for module in model.modules()]
    model.eval()  # batch norms must not learn from this
    try:
        with torch.no_grad():
            logits = model(torch.zeros(2, *example_shape[1:]))
    except Exception as error:  # a network may fail in any way on inputs it is not made for
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"model {name!r} does not take inputs of shape {list(example_shape[1:])}: {said[0]}"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(logits, torch.Tensor):
        raise InputError(f"model {name!r} must give one tensor of logits, not {type(logits).__name__}")
    if logits.shape != (2, classes):
        raise InputError(
            f"model {name!r} gives {list(logits.shape)} for 2 inputs instead of [2, {classes}]: "
            f"the data has {classes} classes"
        )
