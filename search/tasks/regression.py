"""Regression: one or several numbers per example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.contract.inputs import Target
from methods.contract.task import Metric, Sums, Task
from spaces import InputError


class Regression(Task):
    """Numbers per example: squared error, coefficient of determination, targets drawn from a Gaussian.

    Outputs and targets are ``[batch, outputs]`` (float32); targets ``[batch]`` are one output, and a network may give
    ``[batch]`` for it.

    ``R2 = 1 - sum (y - f)^2 / sum (y - mean(y))^2`` is taken for each output over the whole split, then averaged over
    outputs, as scikit-learn's ``r2_score`` does; an output whose targets are all the same counts 1 if it is met
    exactly and 0 if not. It is 1 for a perfect network, 0 for one that always gives the mean, and negative below.

    Args:
        output_key: Which entry of a returned mapping is the output; ``None`` for ``out`` or ``prediction``.
    """

    name: ClassVar[str] = "regression"
    metrics: tuple[Metric, ...] = (
        Metric("r2", "R²", format=".4f", ideal=1.0, worst=0.0),
        Metric("mse", "MSE", "minimize", format=".4g", ideal=0.0),
        Metric("mae", "MAE", "minimize", format=".4g", ideal=0.0),
    )

    def __init__(self, output_key: str | int | None = None) -> None:
        self.output_key = output_key

    def output(self, answer: Any) -> Tensor:
        """Take the output, ``[batch, outputs]``, also where a network gives ``[batch]``.

        Args:
            answer: What the network returned.

        Returns:
            ``[batch, outputs]``.
        """
        found = super().output(answer)
        return found[:, None] if found.ndim == 1 else found

    def loss(self, output: Tensor, target: Target, label_smoothing: float = 0.0) -> Tensor:
        """Compute the mean squared error over examples and outputs.

        Args:
            output: ``[batch, outputs]``.
            target: ``[batch, outputs]``.
            label_smoothing: Must be 0: there are no classes.

        Returns:
            The mean, a scalar.

        Raises:
            InputError: If label smoothing is asked for.
        """
        if label_smoothing > 0:
            raise InputError(
                f"regression has no classes to smooth: set recipe.label_smoothing = 0, not {label_smoothing}"
            )
        return F.mse_loss(output, target)

    def sample_losses(self, output: Tensor, target: Target) -> Tensor:
        """Compute the mean squared error of each example.

        Args:
            output: ``[batch, outputs]``.
            target: ``[batch, outputs]``.

        Returns:
            ``[batch]``.
        """
        return F.mse_loss(output, target, reduction="none").mean(1)

    def sums(self, output: Tensor, target: Target) -> Sums:
        """Add up squares, in float64: a variance is a difference of large numbers.

        Args:
            output: ``[batch, outputs]``.
            target: ``[batch, outputs]``.

        Returns:
            ``loss`` and ``count`` (numbers), ``examples``, and for each output ``squared`` and ``absolute`` errors,
            ``targets`` and ``target_squares``.
        """
        y, error = target.double(), output.double() - target.double()
        return {
            "loss": error.square().sum(),
            "count": torch.full((), target.numel(), device=output.device),
            "examples": torch.full((), len(target), device=output.device),
            "squared": error.square().sum(0),
            "absolute": error.abs().sum(0),
            "targets": y.sum(0),
            "target_squares": y.square().sum(0),
        }

    def metrics_from(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Compute ``r2``, ``mse`` and ``mae``.

        Args:
            sums: Of a whole split.

        Returns:
            The metrics.
        """
        squared, mean_square = sums["squared"], sums["target_squares"]
        # sum (y - mean)^2 = sum y^2 - (sum y)^2 / n
        spread = mean_square - sums["targets"].square() / sums["examples"]
        constant = spread <= 1e-14 * mean_square  # what is left by rounding
        met = (squared <= 1e-14 * mean_square).double()
        r2 = torch.where(constant, met, 1 - squared / spread.where(~constant, torch.ones_like(spread)))
        count = float(sums["count"])
        return {
            "r2": float(r2.mean()),
            "mse": float(squared.sum()) / count,
            "mae": float(sums["absolute"].sum()) / count,
        }

    def check(self, output: Tensor, target: Target) -> None:
        """Refuse outputs and targets of different shapes.

        Args:
            output: ``[batch, outputs]``.
            target: ``[batch, outputs]``.

        Raises:
            InputError: If shapes do not fit.
        """
        given = list(target.shape) if isinstance(target, Tensor) else type(target).__name__
        if output.ndim != 2 or not isinstance(target, Tensor) or target.shape != output.shape:
            raise InputError(
                f"regression needs outputs and targets [batch, outputs], not outputs {list(output.shape)} and targets "
                f"{given}"
            )

    def describe_output(self, outputs: int) -> tuple[tuple[int | str, ...], str]:
        """Say that there is one number per output.

        Args:
            outputs: Numbers that the data hold for an example.

        Returns:
            The shape for two inputs, and why.
        """
        return (2, outputs), f"the data has {outputs} number{'s' * (outputs > 1)} per example"

    def convert_target(self, target: Any, where: str) -> Tensor:
        """Bring targets into float32 ``[examples, outputs]``.

        Args:
            target: Numbers ``[examples]`` or ``[examples, outputs]``.
            where: Where they come from, for messages.

        Returns:
            ``[examples, outputs]``.

        Raises:
            InputError: If they are anything else, or not finite.
        """
        numbers = self.as_tensor(target, f"{where}: targets")
        if numbers.ndim not in (1, 2) or numbers.is_complex():
            raise InputError(
                f"{where}: targets of regression must be numbers [examples] or [examples, outputs], not "
                f"{numbers.dtype} {list(numbers.shape)}"
            )
        numbers = numbers.to(torch.float32)
        if not bool(torch.isfinite(numbers).all()):
            raise InputError(f"{where}: targets hold NaN or infinite values; remove these examples")
        return numbers[:, None] if numbers.ndim == 1 else numbers

    def count_outputs(self, target: Target, where: str) -> int:
        """Count the numbers per example.

        Args:
            target: ``[examples, outputs]``.
            where: Where they come from, for messages.

        Returns:
            Outputs.
        """
        return int(target.shape[1])

    def draw_target(self, output: Tensor, generator: torch.Generator, like: Target = None) -> Tensor:
        """Draw from the Gaussian whose negative log-likelihood the loss is.

        With ``K`` outputs the loss of an example is ``L = 1/K |f - y|^2 = |f - y|^2 / (2 s^2)`` with ``s^2 = K / 2``:
        up to a constant, ``-log N(y; f, s^2 I)``. So ``y = f + sqrt(K / 2) e`` with ``e ~ N(0, I)``. Another variance
        would scale the whole Fisher matrix, and predicted damages would no longer have the unit of the loss (Martens,
        2020, arXiv 1412.1193, section 9.2).

        Args:
            output: ``[batch, outputs]``.
            generator: Where random numbers come from.
            like: Not used.

        Returns:
            ``[batch, outputs]``.
        """
        noise = torch.randn(output.shape, generator=generator, device=generator.device, dtype=torch.float64)
        spread: float = (output.shape[1] / 2) ** 0.5
        return output.detach() + spread * noise.to(output.device, output.dtype)

    def exact_gradients(self, output: Tensor, target: Target) -> Iterator[Tensor]:
        """Go through the outputs: the Hessian of the loss is ``2/K I``, whatever the targets.

        Args:
            output: ``[batch, outputs]``.
            target: Not looked at.

        Yields:
            ``sqrt(2/K) e_k`` for each output ``k``, ``[batch, outputs]``.
        """
        outputs = output.shape[1]
        for k in range(outputs):
            gradient = torch.zeros_like(output)
            gradient[:, k] = (2 / outputs) ** 0.5
            yield gradient

    def distill(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Measure the squared distance from a teacher; the temperature has no meaning without classes.

        Args:
            output: The student's output ``[batch, outputs]``.
            teacher: The teacher's, likewise.
            temperature: Not used.

        Returns:
            The mean, a scalar.
        """
        return F.mse_loss(output, teacher)
