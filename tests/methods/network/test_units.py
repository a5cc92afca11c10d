"""The table of units against the slow way round."""

from __future__ import annotations

import copy

import pytest
import torch

from methods.network.channels import channel_groups, mask_units
from methods.network.importance import l1_importance
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
    kept = units.list_kept(removed)
    for index, group in enumerate(groups):
        assert kept[group.name] == [unit for unit in range(group.channels) if not removed[index, unit]]
    expected = dict(mask_units(model, groups, kept).named_parameters())
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


@pytest.mark.parametrize("net", ["projection", "zero_pad", "grouped", "depthwise"])
def test_importance_ranks_all_groups_as_one_group_alone_is_ranked(net: str) -> None:
    """One L1 for all methods: whoever ranks a whole network ranks each group as magnitude does."""
    model = cases.seeded(cases.NETS[net], trained=True)
    groups = channel_groups(model, EXAMPLE)
    table = Units(model, groups).importance()
    for row, group in enumerate(groups):
        torch.testing.assert_close(table[row, : group.channels], l1_importance(model, group))
        assert not table[row, group.channels :].any()


def test_a_layer_with_many_weights_has_no_larger_say() -> None:
    """The sum of L1 norms would follow the layer with the largest weights alone."""
    model = cases.seeded(cases.projection_net, trained=True)
    groups = channel_groups(model, EXAMPLE)
    row = next(n for n, group in enumerate(groups) if len(group.producers(model)) == 2)
    units = Units(model, groups)
    before, raw = units.importance()[row].argsort(), units.l1()[row].argsort()
    with torch.no_grad():
        model.get_parameter(f"{groups[row].producers(model)[0].module}.weight").mul_(100)
    assert torch.equal(units.importance()[row].argsort(), before)
    assert not torch.equal(units.l1()[row].argsort(), raw)
