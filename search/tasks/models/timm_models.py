"""Networks of timm, by name, with random weights; timm is asked for only here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import nn

from spaces import InputError, unknown_name


def timm_model(name: str, classes: int) -> nn.Module:
    """Build a network of timm.

    Args:
        name: Its name there, such as ``"vit_tiny_patch16_224"``.
        classes: Number of classes.

    Returns:
        The network.

    Raises:
        InputError: If timm is not installed, or has no such network.
    """
    timm = _timm(name)
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise InputError(unknown_name("timm model", name, known))
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
    return model


def timm_input(name: str) -> tuple[int, ...]:
    """Say which input a network of timm was made for.

    Args:
        name: Its name there.

    Returns:
        Shape of one input, ``(1, channels, height, width)``.
    """
    usual: Any = timm_model(name, 2).default_cfg
    return (1, *usual["input_size"])


def _timm(name: str) -> Any:
    try:
        return import_module("timm")
    except ImportError as error:
        raise InputError(f"timm:{name} needs the package timm; install it (pip install timm)") from error
