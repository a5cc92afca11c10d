"""Networks by name: ours in their published shapes, torchvision's, and the user's own.

Needs no torch until a network is built.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.contract.named import call_named, is_reference, list_known_names, load_named
from spaces import InputError, explain_unknown_name
from spaces.errors import shorten_error

if TYPE_CHECKING:
    from torch import Tensor, nn

    from methods.contract.inputs import Inputs
    from methods.contract.task import Task
    from search.tasks.models.weights import Fit

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
TIMM = "timm:"
HF = "hf:"

PRETRAINED = "pretrained"
"""Trained weights as they come with a network of timm or Hugging Face."""


def build_model(
    name: str,
    outputs: int,
    example: Inputs | Sequence[int],
    seed: int,
    weights: str | None = None,
    task: Task | None = None,
    check_outputs: bool = True,
) -> nn.Module:
    """Build a network and check that it takes such inputs and gives such outputs (see :func:`build_with_fit`).

    Args:
        name: Name of the network.
        outputs: Number of classes, or of numbers to predict.
        example: One input, or the shape of one tensor.
        seed: Decides the initial weights.
        weights: A weight file, or the name of a set of weights; ``None`` for initial weights.
        task: What the network is for; classification by default.
        check_outputs: Whether outputs must fit the task.

    Returns:
        The network on the CPU, in training mode.
    """
    return build_with_fit(name, outputs, example, seed, weights, task, check_outputs)[0]


def build_with_fit(
    name: str,
    outputs: int,
    example: Inputs | Sequence[int],
    seed: int,
    weights: str | None = None,
    task: Task | None = None,
    check_outputs: bool = True,
) -> tuple[nn.Module, Fit]:
    """Build a network, check that it takes such inputs and gives such outputs, and say how its weights fitted.

    Args:
        name: A name in :data:`MODELS`, ``torchvision:NAME``, ``timm:NAME``, ``hf:FOLDER``, or
            ``package.module:function`` for a function of the user's that returns a network; it is called with
            ``num_classes``, ``classes``, ``num_outputs`` or ``outputs``, whichever it takes.
        outputs: Number of classes, or of numbers to predict.
        example: One input (a tensor, or a tuple or dict of tensors), or the shape of one tensor, such as
            ``(1, 3, 32, 32)``.
        seed: Decides the initial weights; global random state is left alone.
        weights: A weight file (``.safetensors``, ``.pth``, ``.pt``), for torchvision models also the name of
            a set of weights, for those of timm and Hugging Face ``"pretrained"``; ``None`` for initial weights.
            They may be for other outputs: the head is initial then.
        task: What the network is for; classification by default.
        check_outputs: Whether outputs must fit the task; not where a network is rebuilt that once did.

    Returns:
        The network on the CPU, in training mode, and what of the weights fitted.

    Raises:
        InputError: If the name is unknown, the network cannot be built, does not take such inputs, gives
            another number of classes, or the weights do not fit.
    """
    from methods.contract.classification import Classification
    from methods.contract.inputs import is_inputs, zeros
    from search.tasks.models.initialise import seed_defaults
    from search.tasks.models.weight_files import SUFFIXES, is_weight_file
    from search.tasks.models.weights import Fit, fit_weights, load_weights

    task = Classification() if task is None else task
    inputs = example if is_inputs(example) else zeros(example)
    file = Path(weights) if weights is not None and is_weight_file(weights) else None
    named = None if file is not None else weights
    if (
        named is not None
        and not name.startswith(TORCHVISION)
        and (named != PRETRAINED or not name.startswith((TIMM, HF)))
    ):
        raise InputError(
            f"weights {named!r} of model {name!r} must be a file that ends in {', '.join(SUFFIXES)}; names of weights "
            f"exist for torchvision's models, and {PRETRAINED!r} for those of timm and Hugging Face"
        )
    with seed_defaults(seed):
        model = _build(name, outputs, inputs, seed)
        _check(
            model, name, outputs, inputs, task if check_outputs else None
        )  # inside: lazy layers draw their weights now
    if file is not None:
        return model, load_weights(model, file, outputs)
    if named is not None:
        return model, fit_weights(model, _load_trained(name, named), outputs, f"the weights {named} of {name}")
    return model, Fit()


def _load_trained(name: str, weights: str) -> Mapping[str, Tensor]:
    """Get trained weights by name."""
    if name.startswith(TIMM):
        from search.tasks.models.timm_models import timm_weights

        return timm_weights(name.removeprefix(TIMM))
    if name.startswith(HF):
        from search.tasks.models.hf_models import hf_weights

        return hf_weights(name.removeprefix(HF))
    from search.tasks.models.torchvision_models import torchvision_weights

    return torchvision_weights(name.removeprefix(TORCHVISION), weights)


def _build(name: str, outputs: int, example: Inputs, seed: int) -> nn.Module:
    if name in MODELS:
        module, _, function = MODELS[name].partition(":")
        builder: Callable[..., nn.Module] = getattr(import_module(module), function)
        from methods.contract.inputs import get_first_tensor

        return builder(outputs, channels=get_first_tensor(example).shape[1], seed=seed)
    if name.startswith(TORCHVISION):
        from search.tasks.models.torchvision_models import torchvision_model

        return torchvision_model(name.removeprefix(TORCHVISION), outputs)
    if name.startswith(TIMM):
        from search.tasks.models.timm_models import timm_model

        return timm_model(name.removeprefix(TIMM), outputs)
    if name.startswith(HF):
        from search.tasks.models.hf_models import hf_model

        return hf_model(name.removeprefix(HF), outputs)
    if is_reference(name) or name in list_known_names({}, GROUP):
        return _user_model(name, outputs)
    raise InputError(explain_unknown_model(name))


def explain_unknown_model(name: str) -> str:
    """Say that there is no network of a name, and which others there are.

    Args:
        name: A name without a prefix.

    Returns:
        The message of an ``InputError``; a network of torchvision or timm that is called so is named first.
    """
    for prefix, names in ((TORCHVISION, _torchvision_names), (TIMM, _timm_names)):
        if name in names():
            return f"unknown model {name!r}; did you mean {prefix + name!r}? (`paretoprune models` lists ours)"
    known = [*list_known_names(MODELS, GROUP), "torchvision:NAME", "timm:NAME", "hf:FOLDER", "package.module:function"]
    return explain_unknown_name("model", name, known)


def _torchvision_names() -> Sequence[str]:
    from torchvision import models

    names: Sequence[str] = models.list_models(module=models)
    return names


def _timm_names() -> Sequence[str]:
    try:
        names: Sequence[str] = import_module("timm").list_models()
    except ImportError:  # where it is not installed it has no networks
        return ()
    return names


def _user_model(reference: str, outputs: int) -> nn.Module:
    from torch import nn

    function = load_named("model", reference, MODELS, GROUP)
    if isinstance(function, nn.Module):
        raise InputError(
            f"model {reference!r} is a network that is built already; name its class, or a function that builds it "
            "(it may take num_classes)"
        )
    model = call_named(function, reference, "model", **_outputs_argument(function, outputs))
    if not isinstance(model, nn.Module):
        raise InputError(f"model {reference!r} must return a torch.nn.Module, not {type(model).__name__}")
    return model


def _outputs_argument(function: Callable[..., Any], outputs: int) -> dict[str, int]:
    """Name the number of outputs as the function does, if it takes it at all."""
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for name in ("num_classes", "classes", "num_outputs", "outputs"):
        if name in parameters:
            return {name: outputs}
    return {"num_classes": outputs} if takes_any else {}


def _check(model: nn.Module, name: str, outputs: int, example: Inputs, task: Task | None) -> None:
    """Run two inputs through the network, which must come out as it went in."""
    import torch

    from methods.contract.inputs import call, repeat, shapes_of, take
    from methods.contract.loop import LoopTask

    modes = [(module, module.training) for module in model.modules()]
    model.eval()  # batch norms must not learn from this
    try:
        with torch.no_grad():
            answer = call(model, repeat(take(example, slice(1)), 2))
    except Exception as error:  # a network may fail in any way on inputs it is not made for
        shape = shapes_of(example)
        given = shape[1:] if isinstance(example, torch.Tensor) else shape
        said = shorten_error(error)
        raise InputError(f"model {name!r} does not take inputs of shape {given}: {said}{_hint(given, said)}") from error
    finally:
        for module, training in modes:
            module.training = training
    if task is None or isinstance(task, LoopTask):  # a loop's outputs only its own code understands
        return
    try:
        output = task.output(answer)
    except InputError as error:
        raise InputError(f"model {name!r}: {error}") from error
    task.check_network(output, outputs, name)


def _hint(shape: Any, said: str) -> str:
    """Say what images of an unusual shape may lack."""
    if re.search(r"missing \d+ required positional argument", said):
        return " (for a network of several inputs, data give a tuple of arrays, or a dict of them by name)"
    if re.search(r"to have 3 channels, but got 1 channels", said):
        return " (the images are grey, the network is for colour: give it colour, as by images.repeat(1, 3, 1, 1))"
    if isinstance(shape, list) and len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] > 4:
        return " (if these are images with channels last, give [examples, channels, height, width])"
    if isinstance(shape, list) and len(shape) == 2 and min(shape) > 4:
        return " (if these are grey images, give them one channel: images[:, None])"
    return ""
