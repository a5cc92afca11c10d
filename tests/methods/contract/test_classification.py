"""Classification against slow, obvious versions in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from methods.contract.classification import Classification
from methods.contract.inputs import Target
from methods.contract.task import Task
from spaces import InputError


def logits_of(rows: int = 6, classes: int = 4) -> Tensor:
    return torch.randn(rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([0, 3, 1, 2, 2, 0])


def test_classification_computes_cross_entropy_and_accuracy() -> None:
    task, logits = Classification(), logits_of()
    by_hand = [-float(torch.log(row.exp()[label] / row.exp().sum())) for row, label in zip(logits, LABELS, strict=True)]
    assert float(task.loss(logits, LABELS)) == pytest.approx(sum(by_hand) / 6)
    assert task.sample_losses(logits, LABELS).tolist() == pytest.approx(by_hand)
    sums = task.sums(logits, LABELS)
    assert float(sums["loss"] / sums["count"]) == pytest.approx(sum(by_hand) / 6)
    right = sum(int(row.argmax()) == int(label) for row, label in zip(logits, LABELS, strict=True))
    assert task.metrics_from(sums) == {"accuracy": right / 6}


def test_exact_gradients_of_classification_square_to_the_hessian() -> None:
    task, logits = Classification(), logits_of(1)
    gradients = torch.stack(list(task.exact_gradients(logits, LABELS[:1])))[:, 0]
    hessian = torch.autograd.functional.hessian(lambda z: F.cross_entropy(z[None], LABELS[:1]), logits[0])
    assert torch.allclose(gradients.T @ gradients, hessian, atol=1e-12)


def test_drawn_labels_square_to_the_hessian_in_the_mean() -> None:
    task, draws = Classification(), 200_000
    logits = logits_of(1).expand(draws, -1)
    drawn = task.draw_target(logits, torch.Generator().manual_seed(1))
    gradient = task.fisher_gradient(logits, drawn)
    hessian = torch.autograd.functional.hessian(lambda z: F.cross_entropy(z[None], LABELS[:1]), logits[0])
    assert torch.allclose(gradient.T @ gradient / draws, hessian, atol=4e-3)  # 4 standard errors of 0.5 / sqrt(draws)


def test_the_gradient_of_classification_is_the_derivative_of_the_loss() -> None:
    task, logits = Classification(), logits_of()
    assert torch.allclose(task.fisher_gradient(logits, LABELS), Task.fisher_gradient(task, logits, LABELS), atol=1e-12)


@pytest.mark.parametrize(
    ("output", "target", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2), r"not outputs \[2, 3, 4, 4\] and targets \[2\]"),
        (torch.zeros(2, 3), torch.zeros(2, 4), r"not outputs \[2, 3\] and targets \[2, 4\]"),
        (torch.zeros(2, 3), {"a": torch.zeros(2)}, "targets dict"),
    ],
)
def test_shapes_that_do_not_fit_classification(output: Tensor, target: Target, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Classification().check(output, target)


@pytest.mark.parametrize("largest", [5, 2**40, 2**62])
def test_classes_are_counted_without_room_for_each_that_is_missing(largest: int) -> None:
    assert Classification().count_outputs(LABELS, "here") == 4
    labels = torch.tensor([0, 3, 1, 2, 2, largest])
    with pytest.raises(InputError, match=f"here: labels go up to {largest}, but no example has label 4"):
        Classification().count_outputs(labels, "here")
