"""Round widths are part of every method's decision: a FLOPs target holds for the widths that are left."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods import load_method, method_names
from methods.contract.method import Problem
from methods.network.channels import channel_groups
from methods.network.cost import count
from methods.training.trainer import Recipe
from tests.methods import cases

EXAMPLE = torch.zeros(1, *cases.IMAGE)
TARGET = 0.4
STEP = 4


def network() -> nn.Module:
    layers = [cases.conv_bn(3, 16), cases.conv_bn(16, 32), nn.MaxPool2d(2), cases.conv_bn(32, 32)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, cases.CLASSES))


@pytest.mark.parametrize("name", [name for name in method_names() if load_method(name).rounds_widths])
def test_targets_are_met_after_rounding(name: str) -> None:
    cls = load_method(name)
    model = cases.seeded(network, trained=True)
    groups = channel_groups(model, EXAMPLE)
    point = cls.space([group.layer for group in groups]).defaults()
    assert point is not None
    if cls.flops_parameter is not None:
        point[cls.flops_parameter] = TARGET
    problem = Problem(
        model=model,
        example=EXAMPLE,
        train=cases.blobs(cases.IMAGE, 64),
        validation=cases.blobs(cases.IMAGE, 40, seed=1, noise=0),
        recipe=Recipe(lr=0.05, batch_size=32, recalibrate=2),
        steps=16,
        generator=torch.Generator().manual_seed(0),
    )
    pruned = cls.from_point(point | {"round_to": STEP}).prune(problem)
    assert all(len(units) % STEP == 0 for units in pruned.kept.values())
    share = count(pruned.model, EXAMPLE).flops / count(model, EXAMPLE).flops
    assert 0.7 * TARGET <= share <= TARGET, "at most the target, and near it"  # numbers of blocks are powers of two
