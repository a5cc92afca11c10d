"""Classification models of torchvision, by name, with its trained weights or without."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Any

from torch import nn

from spaces import InputError, unknown_name


def torchvision_model(name: str, classes: int, weights: str | None) -> nn.Module:
    """Build a classification model of torchvision.

    Auxiliary classifiers (GoogLeNet, Inception) are left out: a network gives one tensor of logits.

    Args:
        name: Name in ``torchvision.models``, such as ``"resnet50"``.
        classes: Number of classes.
        weights: Name of a set of weights of this model (``"DEFAULT"``, ``"IMAGENET1K_V2"``), or ``None``.

    Returns:
        The network.

    Raises:
        InputError: If there is no such model or set of weights, the weights are for another number of
            classes, or they cannot be downloaded.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise InputError(unknown_name("torchvision model", name, known))
    options = dict(_ONE_OUTPUT.get(name, {}))
    if weights is None:
        if options:
            options["init_weights"] = True  # torchvision warns of a changing default if it is not named
        plain: nn.Module = models.get_model(name, num_classes=classes, **options)
        return plain
    sets = models.get_model_weights(name)
    if weights not in sets.__members__:
        raise InputError(unknown_name(f"weights of torchvision:{name}:", weights, sets.__members__))
    chosen = sets[weights]
    trained = len(chosen.meta["categories"])
    if trained != classes:
        raise InputError(
            f"weights {weights} of torchvision:{name} are for {trained} classes, but the data has {classes}; "
            "leave the weights out to train, or give a file of weights for these classes"
        )
    try:
        with redirect_stdout(sys.stderr):  # torch prints what it downloads, but stdout is for results
            model: nn.Module = models.get_model(name, weights=chosen, **options)
    except (OSError, RuntimeError) as error:  # no connection, or a damaged download
        raise InputError(
            f"weights {weights} of torchvision:{name} cannot be loaded ({error}); "
            f"download {chosen.url} where there is a connection and give the file as weights"
        ) from error
    return model


_ONE_OUTPUT: dict[str, dict[str, Any]] = {
    # transform_input as with trained weights: the same network then, whatever weights it starts from.
    "googlenet": {"aux_logits": False, "transform_input": True},
    "inception_v3": {"aux_logits": False, "transform_input": True},
}
"""Arguments of networks that have auxiliary classifiers unless told otherwise."""
