"""The channel groups of a network, for spaces that are looked at before there is a study."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from search.tasks.models import HF, MODELS, TIMM, TORCHVISION, build_model
from spaces import InputError, LayerGroup

if TYPE_CHECKING:
    from torch import nn

    from methods.contract.inputs import Inputs
    from methods.contract.task import Task
    from search.tasks.data.parts import Data

DEFAULT_MODEL = "digits_resnet"

PUBLISHED: dict[str, tuple[int, tuple[int, ...]]] = {
    **dict.fromkeys(MODELS, (10, (1, 3, 32, 32))),
    DEFAULT_MODEL: (10, (1, 1, 8, 8)),
}
"""Classes and input shape that each of our networks was published for."""

IMAGENET = (1000, (1, 3, 224, 224))
"""Classes and input shape of torchvision's classification models."""


def layer_groups(model: str | None, data: str | None, data_root: Path) -> list[LayerGroup]:
    """Build a network and say what can be pruned in it.

    Args:
        model: Name of the network; ``None`` for that of the digits.
        data: Name of the data whose inputs it gets; ``None`` for inputs as the network was published for.
        data_root: Where data sets lie or are downloaded to.

    Returns:
        The prunable groups, in order of depth.
    """
    from methods.network.channels import channel_groups

    network, example = network_and_example(model or DEFAULT_MODEL, data, data_root)
    return [group.layer for group in channel_groups(network, example, frozenset())]


def network_and_example(
    name: str, data: str | None, data_root: Path, task: Task | None = None
) -> tuple[nn.Module, Inputs]:
    """Build a network, and an input of the kind it takes.

    Args:
        name: Name of the network.
        data: Name of the data whose inputs it gets; ``None`` for inputs as the network was published for.
        data_root: Where data sets lie or are downloaded to.
        task: What the network is for; classification by default.

    Returns:
        The network with initial weights, and one input, ``[1, ...]``.

    Raises:
        InputError: If the network is the user's own and no data is named.
    """
    if data is None and ":" in name and not name.startswith((TORCHVISION, TIMM, HF)):
        raise InputError(f"what inputs does {name!r} take? Name its data as well (example: --data cifar10)")
    outputs, example = _read_data(data, data_root, task, name) if data is not None else _find_published(name)
    return build_model(name, outputs, example, seed=0, task=task), example


def network_and_steps(name: str, data: str | None, data_root: Path) -> tuple[nn.Module, Inputs, tuple[int, int] | None]:
    """Build a network, an input, and say how long a trial on its data would be.

    Args:
        name: Name of the network.
        data: Name of the data; ``None`` for inputs as the network was published for.
        data_root: Where data sets lie or are downloaded to.

    Returns:
        The network, one input, and steps of a trial by the default recipe and examples in each; None without data.
    """
    if data is None:
        return *network_and_example(name, data, data_root), None
    from search.tasks.recipes import default_recipe

    loaded = _load(data, data_root, None, name)
    recipe, epochs = default_recipe(data, "finetune")
    steps = max(1, math.ceil(epochs * loaded.train.steps(recipe.batch_size)))
    model = build_model(name, loaded.outputs, loaded.example, seed=0)
    return model, loaded.example, (steps, recipe.batch_size)


def _find_published(name: str) -> tuple[int, Inputs]:
    import torch

    if name.startswith(TIMM):
        from search.tasks.models.timm_models import timm_input

        return IMAGENET[0], torch.zeros(timm_input(name.removeprefix(TIMM)))
    if name.startswith(HF):
        from search.tasks.models.hf_models import hf_input

        return IMAGENET[0], torch.zeros(hf_input(name.removeprefix(HF)))
    classes, shape = IMAGENET if name.startswith(TORCHVISION) else PUBLISHED.get(name, PUBLISHED[DEFAULT_MODEL])
    return classes, torch.zeros(shape)


def _read_data(name: str, root: Path, task: Task | None, model: str) -> tuple[int, Inputs]:
    data = _load(name, root, task, model)
    return data.outputs, data.example


def _load(name: str, root: Path, task: Task | None, model: str) -> Data:
    from search.tasks.data.sets import load_data
    from search.tasks.data.sizes import SplitSizes
    from search.tasks.models.formats import image_format

    return load_data(name, root, SplitSizes(), task, form=image_format(model))
