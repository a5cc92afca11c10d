"""A training loop of one's own: a detector that says where a square is in a small image.

Loss, metric and data are code of this file alone; the search calls :meth:`Detector.fit` and :meth:`Detector.evaluate`.
Methods that prune while training act through the hooks that the loop calls around its steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.contract.loop import LoopHooks, LoopTask
from methods.contract.task import Metric

SIDE, BATCH = 24, 32


def network() -> nn.Module:
    """Build a detector.

    Returns:
        A network that gives boxes ``[batch, 4]``: centre and size, in shares of the image's side.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 9, 4), nn.Sigmoid())


def draw(examples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw noisy images with one square each.

    Args:
        examples: How many.
        seed: Decides them.

    Returns:
        Images ``[examples, 1, 24, 24]`` and boxes ``[examples, 4]``.
    """
    generator = torch.Generator().manual_seed(seed)
    size = 0.2 + 0.3 * torch.rand(examples, generator=generator)
    centre = size[:, None] / 2 + (1 - size[:, None]) * torch.rand(examples, 2, generator=generator)
    grid = (torch.arange(SIDE) + 0.5) / SIDE
    inside = [(grid[None] - centre[:, axis, None]).abs() <= size[:, None] / 2 for axis in (0, 1)]
    square = (inside[0][:, :, None] & inside[1][:, None, :]).float()
    images = square + 0.3 * torch.randn(square.shape, generator=generator)
    return images[:, None], torch.cat([centre, size[:, None], size[:, None]], dim=1)


class Detector(LoopTask):
    """Finds a square: mean overlap of the predicted with the true box."""

    metrics = (Metric("box_iou", "overlap of boxes", format=".4f", ideal=1.0, worst=0.0),)
    steps_per_epoch = 20

    def example(self) -> Tensor:
        """Return one image.

        Returns:
            ``[1, 1, 24, 24]``.
        """
        return draw(1, seed=0)[0]

    def fit(self, model: nn.Module, budget: int, hooks: LoopHooks) -> None:
        """Train with Adam on squares that are drawn as they are needed.

        Args:
            model: The network.
            budget: Steps to take.
            hooks: Called around every step.
        """
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        hooks.begin(optimizer)
        device, total = next(model.parameters()).device, 0.0
        for step in range(budget):
            images, boxes = (each.to(device) for each in draw(BATCH, seed=hooks.seed % 2**31 + step))
            hooks.before_batch()
            loss = F.smooth_l1_loss(model(images), boxes, beta=0.05)
            loss.backward()
            hooks.before_step()
            optimizer.step()
            hooks.after_step()
            optimizer.zero_grad()
            total += float(loss.detach())
            if (step + 1) % self.steps_per_epoch == 0:
                hooks.epoch_end({"loss": total / self.steps_per_epoch})
                total = 0.0

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """Measure the mean overlap on squares of their own seed.

        Args:
            model: The network, in eval mode.

        Returns:
            ``box_iou``.
        """
        return {"box_iou": _overlap(model, seed=1)}

    def evaluate_test(self, model: nn.Module) -> Mapping[str, float]:
        """Measure the same on other squares.

        Args:
            model: The network, in eval mode.

        Returns:
            ``box_iou``.
        """
        return {"box_iou": _overlap(model, seed=2)}

    def inputs(self, batch_size: int, seed: int) -> Iterator[Tensor]:
        """Show images for batch-norm statistics.

        Args:
            batch_size: Images per batch.
            seed: Decides them.

        Yields:
            ``[batch, 1, 24, 24]``.
        """
        for step in range(self.steps_per_epoch):
            yield draw(batch_size, seed % 2**31 + step)[0]


def _overlap(model: nn.Module, seed: int) -> float:
    """Mean intersection over union of predicted and true boxes."""
    device = next(model.parameters()).device
    images, boxes = (each.to(device) for each in draw(200, seed))
    found = model(images)
    low = torch.maximum(found[:, :2] - found[:, 2:] / 2, boxes[:, :2] - boxes[:, 2:] / 2)
    high = torch.minimum(found[:, :2] + found[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2)
    common = (high - low).clamp_min(0).prod(dim=1)
    union = found[:, 2:].prod(dim=1) + boxes[:, 2:].prod(dim=1) - common
    return float((common / union).mean())
