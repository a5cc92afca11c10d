"""How redundant filters are."""

from __future__ import annotations

import pytest
import torch

from methods.contract.method import Problem
from methods.magnitude import Magnitude
from methods.network.channels import channel_groups
from methods.network.spectra import energies, filters
from methods.training.trainer import Recipe
from tests.methods import cases

EXAMPLE = torch.zeros(1, *cases.IMAGE)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_matrix_of_few_directions_has_few_components(rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(8, rank, generator=generator) @ torch.randn(rank, 20, generator=generator)
    found = energies(matrix)
    assert len(found) == 8 and sum(found) == pytest.approx(1)
    assert sum(found[:rank]) == pytest.approx(1) and all(a >= b for a, b in zip(found, found[1:], strict=False))
    slow = torch.linalg.eigvalsh(matrix.double() @ matrix.double().T).flip(0)
    assert found == pytest.approx((slow / slow.sum()).tolist(), abs=1e-12)
    assert energies(torch.zeros(2, 5)) == (0.5, 0.5)


@pytest.mark.parametrize("net", list(cases.NETS))
def test_filters_are_those_of_the_units(net: str) -> None:
    model = cases.seeded(cases.NETS[net], trained=True)
    for group in channel_groups(model, EXAMPLE):
        rows = filters(model, group)
        assert len(rows) == group.channels
        for unit in range(group.channels):
            own = [
                model.get_parameter(f"{member.module}.weight")[member.index[unit]].detach().flatten()
                for member in group.producers(model)
            ]
            assert rows[unit].square().sum().item() == pytest.approx(torch.cat(own).square().sum().item(), rel=1e-5)


def test_layers_whose_filters_resemble_each_other_lose_more() -> None:
    model = cases.seeded(cases.NETS["vgg"], trained=True)
    with torch.no_grad():
        first = model.get_parameter("0.0.weight")
        first.copy_(first[:1] * torch.linspace(0.5, 1.5, len(first)).view(-1, 1, 1, 1))
    problem = Problem(
        model=model,
        example=EXAMPLE,
        train=cases.blobs(cases.IMAGE, 64),
        validation=cases.blobs(cases.IMAGE, 40, seed=1, noise=0),
        recipe=Recipe(lr=0.05, batch_size=32, recalibrate=2),
        steps=4,
        generator=torch.Generator().manual_seed(0),
    )
    kept = Magnitude.from_point({"sparsity.mode": "energy", "sparsity.energy": 0.9}).prune(problem).kept
    groups = {group.name: group.channels for group in channel_groups(model, EXAMPLE)}
    shares = {name: len(units) / groups[name] for name, units in kept.items()}
    assert shares["0.0"] < 0.5 * min(share for name, share in shares.items() if name != "0.0")
