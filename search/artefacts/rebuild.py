"""An exported network as an ``nn.Module`` again: needs torch and safetensors, neither Ray, Optuna nor MLflow."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaces import InputError

if TYPE_CHECKING:
    from torch import nn

LIBRARIES = ("torchvision", "timm", "hf")
"""Prefixes of networks that installed libraries build; everything else with a colon is the user's own code."""


def rebuild(
    folder: Path | str,
    *,
    network: str | Callable[..., nn.Module] | nn.Module | None = None,
    layers: Sequence[type[nn.Module]] = (),
    inference: bool = False,
) -> nn.Module:
    """Rebuild an exported network from its weights and its architecture.

    No code is taken from the folder, and none is run because the folder names it: where the dense network was made by
    a function of the user's, that function must be handed in.

    Args:
        folder: A folder that ``paretoprune export`` made, with the format ``safetensors``.
        network: The dense network, a function that builds it, or ``package.module:function``. ``None`` builds the
            networks that come with this package, torchvision, timm and transformers.
        layers: Layer classes that a method of somebody else's brought into the network; those of our own methods are
            known.
        inference: Whether the network is only run: then batch norms are folded into the layers before them, and
            layers with equal forms run in the ones that the card names as fastest. It cannot be trained.

    Returns:
        The network in eval mode, on the CPU.

    Raises:
        InputError: If the folder is not such an export, or the network must be handed in.
    """
    from methods import layer_classes
    from methods.network.architecture import needs_layers
    from methods.network.architecture import rebuild as rebuilt
    from search.store.files import read_json
    from search.store.weights import load_weights

    folder = Path(folder)
    if not (folder / "architecture.json").exists():
        raise InputError(f"{folder} is not an exported network: it has no architecture.json")
    architecture = read_json(folder / "architecture.json")
    dense = _dense(folder, architecture["network"], network)
    known = (*layers, *layer_classes()) if needs_layers(architecture) else layers
    model = rebuilt(dense, architecture, load_weights(folder / "weights.safetensors"), known)
    if not inference:
        return model
    from search.speed.tuner import deploy

    card = read_json(folder / "card.json")
    try:
        return deploy(model, card.get("realisation"), card.get("execution"))
    except (ValueError, AttributeError) as error:
        raise InputError(f"{folder}/card.json does not fit the network: {error}") from error


def _dense(folder: Path, described: dict[str, Any], given: str | Callable[..., nn.Module] | nn.Module | None) -> Any:
    """Build the dense network, whose weights do not matter."""
    from torch import nn

    from methods.contract.inputs import zeros
    from search.store.studies import IN_HAND
    from search.tasks.models import build_model

    name, classes = described["model"], described["classes"]
    example = zeros(described["example_shape"], described.get("example_dtypes"))
    if isinstance(given, nn.Module):
        return given
    if isinstance(given, str):
        return build_model(given, classes, example, described["seed"], check_outputs=False)
    if given is not None:
        return _call_builder(given, classes)
    if name.startswith(IN_HAND):
        raise InputError(
            f"{folder} was made from a network in hand; hand it in: rebuild({str(folder)!r}, network=model)"
        )
    library, colon, function = name.partition(":")
    if colon and library not in LIBRARIES:
        raise InputError(
            f"{folder} was made from the network {name!r}, code that does not come with it; hand it in: "
            f"rebuild({str(folder)!r}, network={function}), or network={name!r} to import it by name"
        )
    return build_model(name, classes, example, described["seed"], check_outputs=False)


def _call_builder(function: Callable[..., nn.Module], classes: int) -> Any:
    """Call a user's builder, with the number of classes where it takes that."""
    parameters = inspect.signature(function).parameters
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    named = next((name for name in ("num_classes", "classes") if name in parameters), None)
    named = "num_classes" if named is None and takes_any else named
    return function(**({} if named is None else {named: classes}))
