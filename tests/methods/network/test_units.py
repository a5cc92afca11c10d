"""The table of units against the slow way round."""

from __future__ import annotations

import copy

import pytest
import torch

from methods.network.channels import channel_groups, masked
from methods.network.units import Spread, Units
from tests.methods import cases

EXAMPLE = torch.zeros(1, *cases.IMAGE)


@pytest.mark.parametrize("net", cases.NETS)
def test_spreading_zeros_is_masking(net: str) -> None:
    """Every tensor that belongs to a removed unit, on either side of it, and nothing else."""
    model = cases.seeded(cases.NETS[net], trained=True)
    groups = channel_groups(model, EXAMPLE)
    generator = torch.Generator().manual_seed(0)
    silent = copy.deepcopy(model)
    units = Units(silent, groups)
    removed = (torch.rand(units.valid.shape, generator=generator) < 0.5) & units.valid
    removed[:, 0] = False
    spread = Spread([*units.producers, *units.affine, *units.consumers], default=1.0)
    spread.refresh(~removed)
    with torch.no_grad():
        torch._foreach_mul_(spread.parameters, spread.factors)
    kept = units.kept(removed)
    for index, group in enumerate(groups):
        assert kept[group.name] == [unit for unit in range(group.channels) if not removed[index, unit]]
    expected = dict(masked(model, groups, kept).named_parameters())
    for name, parameter in silent.named_parameters():
        assert torch.equal(parameter, expected[name]), name


def test_slices_of_no_unit_keep_the_default() -> None:
    model = cases.seeded(cases.vgg_net)
    group = next(g for g in channel_groups(model, EXAMPLE) if g.name == "2.0")
    units = Units(model, [group])
    spread = Spread([*units.producers, *units.consumers], default=7.0)
    spread.refresh(torch.arange(12.0)[None])
    producer, consumer = spread.factors
    assert producer.flatten().tolist() == list(range(12)) and producer.shape == (12, 1, 1, 1)
    assert consumer.flatten().tolist() == list(range(12)) and consumer.shape == (1, 12, 1, 1)
    whole = Spread(Units(model, channel_groups(model, EXAMPLE)).affine, default=7.0)
    assert all(factor.tolist() == [7.0] * len(factor) for factor in whole.factors)


def test_l1_of_units_adds_all_their_filters() -> None:
    model = cases.seeded(cases.projection_net)
    groups = channel_groups(model, EXAMPLE)
    units = Units(model, groups)
    table = units.l1()
    for index, group in enumerate(groups):
        for unit in range(group.channels):
            norms = [
                model.get_parameter(f"{member.module}.weight").detach()[member.index[unit]].abs().sum()
                for member in group.producers(model)
            ]
            assert table[index, unit].item() == pytest.approx(float(sum(norms)), rel=1e-5)
        assert not table[index, group.channels :].any()
    assert max(len(group.producers(model)) for group in groups) == 2
