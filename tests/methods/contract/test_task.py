"""The contract of tasks: what follows from the members that must be written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from methods.contract.classification import Classification
from methods.contract.inputs import Target
from methods.contract.task import Metric, Sums, Task, check_metrics
from spaces import InputError


class Absolute(Task):
    """Mean absolute error: only what must be written is written."""

    name: ClassVar[str] = "absolute"
    metrics: tuple[Metric, ...] = (Metric("mae", "mean absolute error", "minimize", unit="m", ideal=0.0),)

    def loss(self, output: Tensor, target: Target, label_smoothing: float = 0.0) -> Tensor:
        error: Tensor = (output - target).abs()
        return error.mean()

    def sums(self, output: Tensor, target: Target) -> Sums:
        error = (output - target).abs()
        return {"loss": error.sum(), "count": torch.tensor(error.numel())}

    def metrics_from(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        return {"mae": float(sums["loss"] / sums["count"])}


def test_defaults_follow_from_the_loss() -> None:
    task = Absolute()
    output, target = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [5.0]])
    assert task.sample_losses(output, target).tolist() == [1.0, 2.0]
    assert task.fisher_gradient(output, target).tolist() == [[1.0], [-1.0]]
    assert not task.draws
    assert Classification().draws
    assert task.training_loss({"out": output, "aux": target}, target) == task.loss(output, target)
    assert task.quality.text(1.5) == "1.5 m"
    assert task.quality.is_better(1.0, 2.0)


def test_what_a_task_cannot_do_is_said() -> None:
    task, output = Absolute(), torch.zeros(2, 1)
    with pytest.raises(InputError, match="absolute task draws no targets .* no Fisher matrix"):
        task.draw_target(output, torch.Generator())
    with pytest.raises(InputError, match="no exact Fisher matrix.*fisher_type = 'mc'"):
        next(iter(task.exact_gradients(output, output)))
    with pytest.raises(InputError, match="no distillation .* recipe.distill = 0"):
        task.distill(output, output, 1.0)
    with pytest.raises(InputError, match="2 outputs for 3 targets"):
        task.check(output, torch.zeros(3, 1))


@pytest.mark.parametrize(
    "answer",
    [torch.ones(1), {"aux": torch.zeros(1), "out": torch.ones(1)}, {"logits": torch.ones(1)}, {"mine": torch.ones(1)}],
)
def test_the_output_is_found_in_what_networks_return(answer: Any) -> None:
    assert float(Classification().output(answer)) == 1
    assert float(Classification(output_key=0).output((torch.ones(1), torch.zeros(1)))) == 1


def test_the_output_can_be_named() -> None:
    task = Classification()
    task.output_key = "boxes"
    assert float(task.output({"out": torch.zeros(1), "boxes": torch.ones(1)})) == 1
    with pytest.raises(InputError, match="a dict with 'out'; the classification task looks for a tensor under 'boxes'"):
        task.output({"out": torch.zeros(1)})


def test_networks_without_a_tensor_are_refused() -> None:
    with pytest.raises(InputError, match="a dict with 'one', 'two'; .* 'out' or 'logits' or 'prediction'"):
        Classification().output({"one": torch.zeros(1), "two": torch.zeros(1)})
    with pytest.raises(InputError, match=r"returns a tuple of 2; set output_key .* output_key = 0 \} for the first\)"):
        Classification().output((torch.zeros(1), torch.zeros(1)))
    with pytest.raises(InputError, match="returns a tensor, not NoneType"):
        Classification().output(None)


def test_metrics_have_names_of_their_own() -> None:
    check_metrics(Classification())
    task = Absolute()
    for names in (("flops",), ("a", "a"), ("two words",)):
        task.metrics = tuple(Metric(name, name) for name in names)
        with pytest.raises(InputError, match=f"cannot call a metric '{names[0]}'"):
            check_metrics(task)
    task.metrics = ()
    with pytest.raises(InputError, match="has no metrics"):
        check_metrics(task)
