"""How networks are trained and fine-tuned unless the user says otherwise. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from methods.contract.recipe import Recipe
from spaces import InputError
from spaces.errors import explain


class Training(BaseModel):
    """How long and by which recipe to train; what is left out comes from the data set's defaults.

    Attributes:
        epochs: Passes over the training data.
        recipe: Overrides of the default recipe, by field of :class:`methods.contract.recipe.Recipe`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: float | None = Field(None, gt=0)
    recipe: Mapping[str, Any] = Field(default_factory=dict)

    @field_validator("recipe")
    @classmethod
    def _check_recipe(cls, recipe: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            Recipe.model_validate(recipe)
        except ValidationError as error:
            raise InputError(explain(error, Recipe, "recipe")) from error
        return recipe


Phase = Literal["dense", "finetune", "transfer"]
Default = tuple[Recipe, float]
"""Recipe and epochs."""

_SGD = Recipe(optimizer="sgd", lr=0.1, momentum=0.9, nesterov=True, schedule="cosine")

DENSE: dict[str, Default] = {
    "digits": (_SGD.with_changes(batch_size=64, warmup=0.1), 20),
    "mnist": (_SGD.with_changes(warmup=0.1), 5),
    "fashion_mnist": (_SGD.with_changes(warmup=0.1), 15),
    "cifar10": (_SGD, 30),
    "cifar100": (_SGD, 30),
    "imagefolder": (_SGD.with_changes(batch_size=256, weight_decay=1e-4, label_smoothing=0.1, warmup=0.05), 90),
}
"""How dense networks are trained, by name of the data set."""

FINETUNE: dict[str, Default] = {
    "digits": (_SGD.with_changes(lr=0.05, batch_size=64), 20),
    "mnist": (_SGD.with_changes(lr=0.02), 3),
    "fashion_mnist": (_SGD.with_changes(lr=0.02), 5),
    "cifar10": (_SGD.with_changes(lr=0.02), 10),
    "cifar100": (_SGD.with_changes(lr=0.02), 10),
    "imagefolder": (_SGD.with_changes(lr=0.01, batch_size=256, weight_decay=1e-4), 10),
}
"""How every trial prunes and fine-tunes, by name of the data set."""

OTHERS: dict[Phase, Default] = {
    "dense": (_SGD.with_changes(lr=0.05, warmup=0.1), 30),
    "finetune": (_SGD.with_changes(lr=0.01), 10),
    "transfer": (_SGD.with_changes(lr=0.01, warmup=0.1), 10),
}
"""The same for the user's own data."""


def default_recipe(data: str, phase: Phase = "dense") -> Default:
    """Return how networks are trained on a data set if nothing else is said.

    Args:
        data: Name of the data set, as in :data:`search.tasks.data.sets.DATA`, or ``package.module:function``.
        phase: ``"dense"`` for the dense network, ``"finetune"`` for every trial, ``"transfer"`` for a dense network
            that comes with trained weights but for its head: a tenth of the learning rate, fewer epochs.

    Returns:
        The recipe and the number of epochs.

    Example:
        >>> default_recipe("cifar10")[1]
        30
    """
    if phase == "transfer":
        recipe, epochs = FINETUNE.get(data, OTHERS[phase])
        return recipe.with_changes(warmup=OTHERS[phase][0].warmup), epochs
    table = DENSE if phase == "dense" else FINETUNE
    return table.get(data, OTHERS[phase])


def resolve_recipe(training: Training, phase: Phase, data: str) -> Default:
    """Fill in what the user left out.

    Args:
        training: Epochs and fields of the recipe that the user named.
        phase: What is trained, as in :func:`default_recipe`.
        data: Name of the data set.

    Returns:
        The whole recipe and the number of epochs.

    Raises:
        InputError: If the user's fields do not go together with the defaults.
    """
    recipe, epochs = default_recipe(data, phase)
    try:
        recipe = recipe.with_changes(**training.recipe)
    except ValidationError as error:
        raise InputError(
            explain(error, Recipe, "finetune.recipe" if phase == "finetune" else "dense.recipe")
        ) from error
    return recipe, epochs if training.epochs is None else training.epochs
