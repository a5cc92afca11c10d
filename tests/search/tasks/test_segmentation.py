"""Segmentation against slow, obvious versions, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from methods.contract.task import Task
from search.tasks.segmentation import IGNORED, Segmentation
from spaces import InputError

CLASSES, SIDE = 3, 4


def case(batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, CLASSES, SIDE, SIDE, dtype=torch.float64, generator=generator)
    labels = torch.randint(CLASSES, (batch, SIDE, SIDE), generator=generator)
    labels[0, 0, :2] = IGNORED
    return logits, labels


def entropies(logits: Tensor, labels: Tensor) -> list[list[float]]:
    """The cross-entropy of every pixel that counts, image by image, one pixel after the other."""
    found: list[list[float]] = []
    for image, label in zip(logits, labels, strict=True):
        found.append([])
        for y in range(SIDE):
            for x in range(SIDE):
                if int(label[y, x]) != IGNORED:
                    scores = [math.exp(float(score)) for score in image[:, y, x]]
                    found[-1].append(-math.log(scores[int(label[y, x])] / sum(scores)))
    return found


def test_the_loss_is_the_mean_over_pixels_that_count() -> None:
    logits, labels = case()
    each = entropies(logits, labels)
    task = Segmentation()
    pixels = [loss for image in each for loss in image]
    assert len(pixels) == 2 * SIDE**2 - 2
    assert float(task.loss(logits, labels)) == pytest.approx(sum(pixels) / len(pixels))
    assert task.sample_losses(logits, labels).tolist() == pytest.approx([sum(image) / len(image) for image in each])
    sums = task.sums(logits, labels)
    assert float(sums["loss"] / sums["count"]) == pytest.approx(sum(pixels) / len(pixels))
    assert float(task.loss(logits, torch.full_like(labels, IGNORED))) == 0


def test_mean_iou_of_a_split_equals_counting_sets_of_pixels() -> None:
    task, batches = Segmentation(), [case(3, seed) for seed in range(4)]
    parts = [task.sums(logits, labels) for logits, labels in batches]
    total = {name: sum((part[name] for part in parts[1:]), parts[0][name]) for name in parts[0]}
    predicted, true = set(), set()
    for place, (logits, labels) in enumerate(batches):
        for image, label in enumerate(labels):
            for y in range(SIDE):
                for x in range(SIDE):
                    if int(label[y, x]) != IGNORED:
                        true.add((place, image, y, x, int(label[y, x])))
                        predicted.add((place, image, y, x, int(logits[image, :, y, x].argmax())))
    shares = []
    for kind in range(CLASSES):
        ours, theirs = ({each for each in pixels if each[-1] == kind} for pixels in (predicted, true))
        if ours | theirs:
            shares.append(len(ours & theirs) / len(ours | theirs))
    found = task.metrics_from(total)
    assert found["mean_iou"] == pytest.approx(sum(shares) / len(shares))
    assert found["pixel_accuracy"] == pytest.approx(len(predicted & true) / len(true))


def test_classes_that_are_nowhere_do_not_count() -> None:
    task, labels = Segmentation(), torch.zeros(1, 2, 2, dtype=torch.int64)
    logits = torch.zeros(1, 5, 2, 2)
    logits[:, 0] = 1
    assert task.metrics_from(task.sums(logits, labels)) == {"mean_iou": 1.0, "pixel_accuracy": 1.0}
    nothing = task.sums(logits, torch.full_like(labels, IGNORED))
    assert task.metrics_from(nothing) == {"mean_iou": 0.0, "pixel_accuracy": 0.0}


def hessian(logits: Tensor, labels: Tensor) -> Tensor:
    """Second derivatives of the mean loss of one image by its logits, ``[numbers, numbers]``."""

    def loss(flat: Tensor) -> Tensor:
        return F.cross_entropy(flat.view_as(logits), labels, ignore_index=IGNORED)

    found: Tensor = torch.autograd.functional.hessian(loss, logits.flatten())
    return found


def test_drawn_labels_square_to_the_hessian_of_the_loss() -> None:
    logits, labels = case(1)
    logits, labels = logits[:, :, :2, :3], labels[:, :2, :3]  # two of six pixels do not count
    task, draws = Segmentation(), 100_000
    many, like = logits.expand(draws, -1, -1, -1), labels.expand(draws, -1, -1)
    drawn = task.draw_target(many, torch.Generator().manual_seed(1), like=like)
    assert torch.equal(drawn == IGNORED, like == IGNORED)
    gradients = task.fisher_gradient(many, drawn).flatten(1)
    # Entries of g g^T are at most 1/4 in size: four standard errors are 1 / sqrt(draws).
    assert torch.allclose(gradients.T @ gradients / draws, hessian(logits, labels), atol=1 / draws**0.5)


def test_the_fisher_gradient_is_that_of_the_loss_up_to_the_root_of_the_pixels() -> None:
    logits, labels = case()
    task = Segmentation()
    counting = (labels != IGNORED).flatten(1).sum(1).double()
    plain = Task.fisher_gradient(task, logits, labels)
    scaled = task.fisher_gradient(logits, labels) / counting.sqrt()[:, None, None, None]
    assert torch.allclose(scaled, plain, atol=1e-12)


def test_auxiliary_outputs_count_while_training() -> None:
    logits, labels = case()
    other, task = logits.flip(1), Segmentation(aux_weight=0.25)
    answer = {"out": logits, "aux": other, "features": torch.zeros(2, 7)}
    expected = task.loss(logits, labels) + 0.25 * task.loss(other, labels)
    assert float(task.training_loss(answer, labels)) == pytest.approx(float(expected))
    assert float(task.training_loss(logits, labels)) == float(task.loss(logits, labels))
    assert float(Segmentation(aux_weight=0).training_loss(answer, labels)) == float(task.loss(logits, labels))


def test_distillation_is_the_mean_over_pixels() -> None:
    logits, _ = case()
    teacher, task = logits.roll(1, 0), Segmentation()
    pixels = []
    for image, wanted in zip(logits, teacher, strict=True):
        for y in range(SIDE):
            for x in range(SIDE):
                q, p = (each[:, y, x].div(2).softmax(0) for each in (image, wanted))
                pixels.append(float((p * (p / q).log()).sum()) * 4)
    assert float(task.distill(logits, teacher, 2.0)) == pytest.approx(sum(pixels) / len(pixels))


def test_what_does_not_fit_is_said() -> None:
    task = Segmentation()
    with pytest.raises(
        InputError, match=r"of the same height and width, not outputs \[2, 3, 4, 4\] and labels \[2, 8, 8\]"
    ):
        task.check(torch.zeros(2, 3, 4, 4), torch.zeros(2, 8, 8))
    with pytest.raises(InputError, match=r"gives \[2, 3\] for 2 inputs instead of \[2, 3, height, width\]"):
        task.check_network(torch.zeros(2, 3), 3, "mine:net")
    with pytest.raises(InputError, match=r"whole numbers \[examples, height, width\], not torch.float32 \[2, 4, 4\]"):
        task.convert_target(torch.zeros(2, 4, 4), "data 'd'")
    with pytest.raises(InputError, match="label -1 is no class; .* ignore_index = 255"):
        task.convert_target(torch.full((2, 4, 4), -1), "data 'd'")
    with pytest.raises(InputError, match="at least 2 classes, the largest label is 0"):
        task.count_outputs(torch.zeros(1, 2, 2, dtype=torch.int64), "data 'd'")
    with pytest.raises(InputError, match="takes 48 backward passes.*fisher_type = 'mc'"):
        task.exact_gradients(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(InputError, match="ignore_index must be a whole number, not 'x'"):
        Segmentation(ignore_index="x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="aux_weight must be 0 or more, not -1"):
        Segmentation(aux_weight=-1)


def test_masks_with_a_channel_lose_it() -> None:
    task = Segmentation(ignore_index=9)
    labels = task.convert_target(torch.full((2, 1, 4, 4), 9, dtype=torch.uint8), "data 'd'")
    assert labels.shape == (2, 4, 4) and labels.dtype == torch.int64
