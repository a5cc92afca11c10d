"""Regression against scikit-learn and brute force, in float64."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
from torch import Tensor
from torch.nn import functional as F

from methods.contract.task import Task
from search.tasks.regression import Regression
from spaces import InputError


def numbers(examples: int, outputs: int, seed: int = 0, around: float = 0.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = around + torch.randn(examples, outputs, dtype=torch.float64, generator=generator)
    return target + 0.5 * torch.randn(examples, outputs, dtype=torch.float64, generator=generator), target


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("around", [0.0, 1000.0])
def test_metrics_of_a_split_are_those_of_scikit_learn(outputs: int, around: float) -> None:
    task, batches = Regression(), [numbers(17, outputs, seed, around) for seed in range(3)]
    parts = [task.sums(*batch) for batch in batches]
    total = {name: sum((part[name] for part in parts[1:]), parts[0][name]) for name in parts[0]}
    found = task.metrics_from(total)
    output, target = (torch.cat(each).numpy() for each in zip(*batches, strict=True))
    assert found["r2"] == pytest.approx(r2_score(target, output))
    assert found["mse"] == pytest.approx(mean_squared_error(target, output))
    assert found["mae"] == pytest.approx(mean_absolute_error(target, output))
    assert float(total["loss"] / total["count"]) == pytest.approx(found["mse"])


@pytest.mark.parametrize(("given", "expected"), [(2.0, 1.0), (2.5, 0.0)])
def test_constant_targets_are_met_or_not_as_in_scikit_learn(given: float, expected: float) -> None:
    target = torch.full((5, 1), 2.0)
    output = torch.full((5, 1), given)
    assert Regression().metrics_from(Regression().sums(output, target))["r2"] == expected
    assert r2_score(target.numpy(), output.numpy()) == expected


def test_the_loss_is_the_mean_squared_error() -> None:
    output, target = numbers(6, 2)
    task = Regression()
    by_hand = [
        sum((float(f) - float(y)) ** 2 for f, y in zip(*row, strict=True)) / 2
        for row in zip(output, target, strict=True)
    ]
    assert task.sample_losses(output, target).tolist() == pytest.approx(by_hand)
    assert float(task.loss(output, target)) == pytest.approx(sum(by_hand) / 6)
    assert float(task.distill(output, target, 4.0)) == float(F.mse_loss(output, target))
    with pytest.raises(InputError, match="no classes to smooth: set recipe.label_smoothing = 0, not 0.1"):
        task.loss(output, target, 0.1)


@pytest.mark.parametrize("outputs", [1, 3])
def test_drawn_and_exact_gradients_square_to_the_hessian(outputs: int) -> None:
    task, draws = Regression(), 200_000
    output, target = numbers(1, outputs)
    hessian = torch.autograd.functional.hessian(lambda f: F.mse_loss(f, target[0]), output[0])
    exact = torch.stack(list(task.exact_gradients(output, target)))[:, 0]
    assert torch.allclose(exact.T @ exact, hessian, atol=1e-12)
    many = output.expand(draws, -1)
    gradients = task.fisher_gradient(many, task.draw_target(many, torch.Generator().manual_seed(1)))
    # The square of a Gaussian number spreads by sqrt(2) times its mean, at most 2 here.
    assert torch.allclose(gradients.T @ gradients / draws, hessian, atol=4 * 2 * 2**0.5 / draws**0.5)


def test_the_fisher_gradient_is_the_derivative_of_the_loss() -> None:
    output, target = numbers(4, 3)
    expected = 2 * (output - target) / 3
    assert torch.allclose(Task.fisher_gradient(Regression(), output, target), expected, atol=1e-12)


def test_networks_may_give_single_numbers() -> None:
    task = Regression()
    assert task.output(torch.zeros(4)).shape == (4, 1)
    assert task.output({"prediction": torch.zeros(4, 2)}).shape == (4, 2)
    assert task.convert_target([1, 2, 3], "data 'd'").tolist() == [[1.0], [2.0], [3.0]]
    assert task.count_outputs(torch.zeros(3, 5), "data 'd'") == 5


def test_what_does_not_fit_is_said() -> None:
    task = Regression()
    with pytest.raises(InputError, match=r"not outputs \[2, 1\] and targets \[2, 3\]"):
        task.check(torch.zeros(2, 1), torch.zeros(2, 3))
    with pytest.raises(InputError, match=r"gives \[2, 1\] for 2 inputs instead of \[2, 3\]: the data has 3 numbers"):
        task.check_network(torch.zeros(2, 1), 3, "mine:net")
    with pytest.raises(
        InputError, match=r"numbers \[examples\] or \[examples, outputs\], not torch.float32 \[2, 2, 2\]"
    ):
        task.convert_target(torch.zeros(2, 2, 2), "data 'd'")
    with pytest.raises(InputError, match="targets hold NaN or infinite values"):
        task.convert_target([1.0, float("nan")], "data 'd'")
