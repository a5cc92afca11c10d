"""Whether half precision is slower where a network is trained: not every processor has instructions for it."""

from __future__ import annotations

import torch

from methods.training.precision import choose_half_type, measure_half
from search.study.config import StudyConfig
from search.tasks.recipes import resolve_recipe

WORTH_SAYING = 2.0
"""Half precision that takes so many times as long as float32 is spoken of; a busy machine alone does not reach it."""


def precision_warnings(config: StudyConfig, device: str) -> list[str]:
    """Measure the half precisions that networks are to be trained in, where that is a CPU.

    On a GPU so small a convolution is over before the next one is launched, and tells nothing.

    Args:
        config: Says how the dense network and the trials are trained.
        device: Where, ``"cpu"`` or ``"cuda"``.

    Returns:
        A sentence for each precision that is slower there than float32.
    """
    if device != "cpu":
        return []
    recipes = [resolve_recipe(config.finetune, "finetune", config.data)[0]]
    if config.weights is None:
        recipes.append(resolve_recipe(config.dense, "dense", config.data)[0])
    found = []
    for half in {half: None for recipe in recipes if (half := choose_half_type(recipe))}:
        times = measure_half(half)
        if times >= WORTH_SAYING:
            field = "bf16" if half is torch.bfloat16 else "fp16"
            found.append(
                f"recipe.{field} makes training slower here: a convolution takes {times:.2g} times as long as in "
                f"float32, because this processor only imitates that precision; leave {field} out"
            )
    return found
