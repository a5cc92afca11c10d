"""Classification models of torchvision, by name, with its trained weights or without."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Any

from torch import Tensor, nn

from spaces import InputError, explain_unknown_name


def torchvision_model(name: str, classes: int) -> nn.Module:
    """Build a classification model of torchvision with initial weights.

    Auxiliary classifiers (GoogLeNet, Inception) are left out: a network gives one tensor of logits.

    Args:
        name: Name in ``torchvision.models``, such as ``"resnet50"``.
        classes: Number of classes.

    Returns:
        The network.

    Raises:
        InputError: If there is no such model.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise InputError(explain_unknown_name("torchvision model", name, known))
    options = dict(_ONE_OUTPUT.get(name, {}))
    if options:
        options["init_weights"] = True  # torchvision warns of a changing default if it is not named
    model: nn.Module = models.get_model(name, num_classes=classes, **options)
    return model


def torchvision_weights(name: str, weights: str) -> dict[str, Tensor]:
    """Get trained weights of torchvision, downloaded where they are not there.

    Args:
        name: Name in ``torchvision.models``.
        weights: Name of a set of weights of this model (``"DEFAULT"``, ``"IMAGENET1K_V2"``).

    Returns:
        The state dictionary, for torchvision's number of classes.

    Raises:
        InputError: If there is no such set of weights, or they cannot be downloaded.
    """
    from torchvision import models

    sets = models.get_model_weights(name)
    if weights not in sets.__members__:
        raise InputError(explain_unknown_name(f"weights of torchvision:{name}:", weights, sets.__members__))
    chosen = sets[weights]
    try:
        with redirect_stdout(sys.stderr):  # torch prints what it downloads, but stdout is for results
            return dict(chosen.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:  # no connection, or a damaged download
        raise InputError(
            f"weights {weights} of torchvision:{name} cannot be loaded ({error}); "
            f"download {chosen.url} where there is a connection and give the file as weights"
        ) from error


_ONE_OUTPUT: dict[str, dict[str, Any]] = {
    # transform_input as with trained weights: the same network then, whatever weights it starts from.
    "googlenet": {"aux_logits": False, "transform_input": True},
    "inception_v3": {"aux_logits": False, "transform_input": True},
}
"""Arguments of networks that have auxiliary classifiers unless told otherwise."""
