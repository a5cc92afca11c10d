"""Distillation of features: attention maps of networks of different widths."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods.contract.recipe import Recipe
from methods.training.features import FeatureMatch, attention
from methods.training.trainer import Trainer
from spaces import InputError
from tests.methods import cases


def net(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU()),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.Conv2d(2 * width, width, 1)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, cases.CLASSES),
    )


def test_attention_is_the_normalised_sum_of_squares() -> None:
    features = torch.randn(3, 5, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = attention(features)
    for example, row in zip(features, found, strict=True):
        slow = [sum(float(example[c, i, j]) ** 2 for c in range(5)) for i in range(2) for j in range(4)]
        length = sum(x * x for x in slow) ** 0.5
        torch.testing.assert_close(row, torch.tensor([x / length for x in slow], dtype=torch.float64))


def test_maps_are_compared_at_the_last_module_of_each_size() -> None:
    match = FeatureMatch(net(8), net(4), torch.randn(2, 3, 8, 8))
    assert match.places == ("0", "2")  # the whole stages, not the layers within; a map of one pixel says nothing


def test_distance_is_none_to_a_scaled_copy_and_whole_where_nothing_overlaps() -> None:
    match = FeatureMatch(net(8), net(4), torch.randn(2, 3, 8, 8))
    there = torch.zeros(2, 8, 4, 4)
    there[:, 3, 0, 1] = 2.0
    elsewhere = torch.zeros(2, 4, 4, 4)
    elsewhere[:, 0, 3, 3] = 5.0
    match.places = ("0",)
    assert match.distance({"0": there[:, 2:4] * 3}, {"0": there}).item() == pytest.approx(0, abs=1e-7)
    assert match.distance({"0": elsewhere}, {"0": there}).item() == pytest.approx(1)


def test_a_student_comes_to_look_where_its_teacher_looks() -> None:
    torch.manual_seed(0)
    teacher, student = net(8), net(4)
    data = cases.blobs(cases.IMAGE, 80)
    inputs = torch.randn(16, 3, *cases.IMAGE[-2:])
    match = FeatureMatch(teacher.eval(), student, inputs)

    def measure_distance() -> float:
        _, theirs = match.ask_teacher(inputs)
        with match.watch(student) as ours, torch.no_grad():
            student(inputs)
        return match.distance(ours, theirs).item()

    before = measure_distance()
    recipe = Recipe(lr=0.05, batch_size=20, distill_features=100.0)
    Trainer(student, data, recipe, 40, 0, teacher=teacher).run()
    assert measure_distance() < 0.5 * before
    assert not any(module._forward_hooks for module in (*student.modules(), *teacher.modules()))


def test_networks_without_maps_are_refused() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    with pytest.raises(InputError, match="distill_features compares maps"):
        FeatureMatch(flat, flat, torch.randn(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"distill_features = 1\.0 needs a teacher"):
        Trainer(flat, cases.blobs(cases.IMAGE, 8), Recipe(distill_features=1.0), 1, 0)
