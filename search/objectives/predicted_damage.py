"""Predicted damage: by how much a method says the training loss rises, before anything is trained.

It tells good networks from small ones as accuracy does, but needs no fine-tuning: the analysis of the dense network is
shared by all trials, and a trial then only decides and cuts. A study whose objectives fine-tuning does not change (say
``predicted_damage,flops``) therefore has a budget of no steps, unless ``finetune.epochs`` is given. Its accuracies are
those after the cut, batch norm estimated again. Such a study is a sketch: fast enough for hundreds of trials, whose
front says what is worth a study with accuracy.

A quadratic form predicts well as long as little is removed, and ranks beyond that. Damages of different methods, or of
variants that estimate different Fisher matrices, are not the same quantity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.objectives.base import Objective

if TYPE_CHECKING:
    from methods.contract.method import Method

WORST = 1.0
"""Counts 0 in the hypervolume: with a loss higher by 1, right answers are ``e`` times less probable."""


def is_predicted_by(method: type[Method]) -> bool:
    """Tell whether a method predicts damage.

    Args:
        method: The method.

    Returns:
        What the method declares.
    """
    return method.predicts_damage


PREDICTED_DAMAGE = Objective(
    name="predicted_damage",
    title="predicted damage",
    direction="minimise",
    unit="increase of the loss",
    style=".3g",
    heading="damage",
    worst=WORST,
    reported_by=is_predicted_by,
    quality=True,
)
