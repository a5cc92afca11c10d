"""Networks of timm, by name, with its trained weights or without; timm is asked for only here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from search.tasks.image_format import INTERPOLATIONS, ImageFormat
from spaces import InputError, explain_unknown_name
from spaces.errors import shorten_error


def timm_model(name: str, classes: int) -> nn.Module:
    """Build a network of timm with initial weights.

    Args:
        name: Its name there, such as ``"vit_tiny_patch16_224"``, perhaps with the tag of its weights after a dot.
        classes: Number of classes.

    Returns:
        The network.
    """
    timm = _timm(name)
    _check_name(timm, name)
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
    return model


def timm_weights(name: str) -> Mapping[str, Tensor]:
    """Get the trained weights of timm, downloaded where they are not there.

    Args:
        name: Its name there; a tag after a dot picks one of several sets of weights.

    Returns:
        The state dictionary, for timm's number of classes.

    Raises:
        InputError: If timm has no weights for the network, or they cannot be downloaded.
    """
    timm = _timm(name)
    _check_name(timm, name)
    try:
        with redirect_stdout(sys.stderr):
            trained: nn.Module = timm.create_model(name, pretrained=True)
    except Exception as error:  # of the library that downloads: no connection, no such file, no permission
        raise InputError(
            f"the trained weights of timm:{name} cannot be loaded ({shorten_error(error)}); download "
            f"{_source(timm, name)} where there is a connection and give the file as weights"
        ) from error
    return trained.state_dict()


def _source(timm: Any, name: str) -> str:
    """Say where the trained weights of a network lie."""
    known = timm.models.get_pretrained_cfg(name)
    if known is not None and known.hf_hub_id:
        repository = known.hf_hub_id if "/" in known.hf_hub_id else f"timm/{known.hf_hub_id}"
        return f"{known.hf_hub_filename or 'model.safetensors'} of https://huggingface.co/{repository}"
    return str(known.url) if known is not None and known.url else "them"


def timm_format(name: str) -> ImageFormat:
    """Say how timm makes images ready for a network.

    Args:
        name: Its name there.

    Returns:
        Size, mean, standard deviation, interpolation and crop of its weights.
    """
    timm = _timm(name)
    _check_name(timm, name)
    known = timm.models.get_pretrained_cfg(name)
    cfg = import_module("timm.data").resolve_data_config(pretrained_cfg={} if known is None else known.to_dict())
    interpolation = str(cfg["interpolation"])
    return ImageFormat(
        side=int(cfg["input_size"][-1]),
        mean=tuple(map(float, cfg["mean"])),
        std=tuple(map(float, cfg["std"])),
        interpolation=interpolation if interpolation in INTERPOLATIONS else "bilinear",  # "random": any of them
        crop=float(cfg["crop_pct"]),
    )


def timm_input(name: str) -> tuple[int, ...]:
    """Say which input a network of timm was made for.

    Args:
        name: Its name there.

    Returns:
        Shape of one input, ``(1, channels, height, width)``.
    """
    usual: Any = timm_model(name, 2).default_cfg
    return (1, *usual["input_size"])


def _check_name(timm: Any, name: str) -> None:
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise InputError(explain_unknown_name("timm model", name, known))
    base, _, tag = name.partition(".")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise InputError(explain_unknown_name(f"weights of timm:{base}:", tag, tags))


def _timm(name: str) -> Any:
    try:
        return import_module("timm")
    except ImportError as error:
        raise InputError(f"timm:{name} needs the package timm; install it (pip install timm)") from error
