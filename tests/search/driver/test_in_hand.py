"""Networks in hand: pruned and searched without files or names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import paretoprune
from methods.contract.method import Problem
from methods.contract.recipe import Recipe
from methods.network.cost import count
from search.driver.in_hand import _method
from search.records.listener import NullListener
from search.tasks.data.arrays import user_data
from search.tasks.data.sizes import SplitSizes
from search.tasks.models import build_model
from search.tasks.named_tasks import load_task
from spaces import InputError

EXAMPLE = torch.zeros(1, 1, 8, 8)


def network(classes: int = 4) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    made = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, classes),
    )
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return made


def dataset(examples: int = 240) -> TensorDataset:
    """A bright quadrant tells the class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(examples) % 4
    images = 0.3 * torch.randn(examples, 1, 8, 8, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[0, row : row + 4, column : column + 4] += 1
    return TensorDataset(images, labels)


def test_one_line_prunes_a_network_without_data() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pruned = paretoprune.prune(model, EXAMPLE, method="magnitude", flops=0.5)
    share = count(pruned.model, EXAMPLE).flops / count(model, EXAMPLE).flops
    assert 0.35 < share <= 0.5 and pruned.steps == 0 and not pruned.model.training
    assert pruned.model(torch.zeros(3, 1, 8, 8)).shape == (3, 4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("form", ["dataset", "loader", "arrays"])
def test_data_in_any_form_fine_tune(form: str) -> None:
    whole = dataset()
    forms: dict[str, Any] = {
        "dataset": whole,
        "loader": DataLoader(whole, batch_size=16),
        "arrays": tuple(np.asarray(tensor) for tensor in whole.tensors),
    }
    recipe = {"batch_size": 24, "recalibrate": 2}
    pruned = paretoprune.prune(
        network(), EXAMPLE, flops=0.4, train=forms[form], validation=forms[form], steps=7, recipe=recipe
    )
    assert pruned.steps == 7 and pruned.history
    again = paretoprune.prune(
        network(), EXAMPLE, flops=0.4, train=forms[form], validation=forms[form], steps=7, recipe=recipe
    )
    for one, other in zip(pruned.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other), "the same seed, the same network"


def test_settings_of_the_method_and_layers_that_stay() -> None:
    pruned = paretoprune.prune(network(), EXAMPLE, flops=0.6, settings={"round_to": 8}, ignored=["0"])
    first, second = pruned.model[0], pruned.model[3]  # type: ignore[index]
    assert isinstance(first, nn.Conv2d) and first.out_channels == 16
    assert isinstance(second, nn.Conv2d) and second.out_channels == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "resnet20"}, "prune needs a torch.nn.Module, not str"),
        ({"method": "magnitud"}, "did you mean 'magnitude'"),
        ({"flops": 1.5}, "flops = 1.5 is not a share between 0 and 1"),
        ({"epochs": 1, "steps": 3}, "give epochs or steps, not both"),
        ({"epochs": 1}, "epochs and steps need training data: hand in train="),
        ({"method": "increg"}, "train="),
        ({"train": [1, 2, 3]}, "a torch Dataset or DataLoader"),
        ({"settings": {"rond_to": 8}}, "did you mean 'round_to'"),
        ({"seed": 2**63}, r"seed = 9223372036854775808 is not allowed: give a number from 0 to 2\^63 - 1"),
    ],
)
def test_what_cannot_be_done_is_said(change: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"model": network(), "example": EXAMPLE} | change
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        paretoprune.prune(given.pop("model"), given.pop("example"), **given)


def test_a_network_in_hand_is_searched(tmp_path: Path) -> None:
    model = network()
    front = paretoprune.search(
        model,
        dataset(),
        trials=2,
        methods=("magnitude", "random"),
        directory=tmp_path,
        name="mine",
        overrides=["finetune.epochs=1", "finetune.recipe.batch_size=24", "exports=['safetensors']"],
        listener=NullListener(),
    )
    assert len(front.outcomes) == 2 and front.dense.flops == count(model, EXAMPLE).flops
    small = front.knee().model()
    assert count(small, EXAMPLE).flops == front.knee().flops
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with pytest.raises(
        InputError, match=r"made from a network in hand; hand it in: load_front\('mine', network=model\)"
    ):
        paretoprune.load_front("mine", tmp_path).knee().model()
    again = paretoprune.load_front("mine", tmp_path, network=network()).knee().model()
    folder = tmp_path / "studies" / "mine" / "networks" / f"{front.knee().trial:04d}"
    with pytest.raises(InputError, match="made from a network in hand"):
        paretoprune.rebuild(folder)
    exported = paretoprune.rebuild(folder, network=network())
    with torch.no_grad():
        answers: list[Tensor] = [each(x) for each in (small, again, exported)]
    assert torch.equal(answers[0], answers[1]) and torch.equal(answers[0], answers[2])
    with pytest.raises(InputError, match="which no file holds"):
        paretoprune.Sweep.resume("mine", tmp_path, NullListener(), trials=3).run()
    with pytest.raises(InputError, match="'data' is handed in as an object"):
        paretoprune.search(model, dataset(), data="digits")


def test_settings_of_another_mode_take_the_place_of_the_usual_one() -> None:
    """Ratios by layer as ``allocate`` writes them, a block that goes, and widths by damage."""
    model = build_model("resnet20", 10, EXAMPLE, seed=0)
    settings = {"sparsity.mode": "layer", "sparsity.level": 0.7, "sparsity.without[layer1.1]": True}
    pruned = paretoprune.prune(model, EXAMPLE, settings=settings)
    assert isinstance(pruned.model.get_submodule("layer1.1"), nn.Identity) and pruned.extra["blocks_removed"] == 1
    assert len(pruned.kept["layer2.0.conv1"]) == 22  # ceil(0.3 * 32) go
    with pytest.raises(InputError, match="unknown residual block 'layer2.0'"):
        paretoprune.prune(model, EXAMPLE, settings={**settings, "sparsity.without[layer2.0]": True})
    halved = paretoprune.prune(
        network(), EXAMPLE, flops=0.4, train=dataset(), steps=1, settings={"sparsity.mode": "damage"}
    )
    assert count(halved.model, EXAMPLE).flops <= 0.4 * count(network(), EXAMPLE).flops


@pytest.mark.parametrize("method", ["magnitude", "increg", "greedy"])
def test_widths_follow_from_damage_where_measuring_it_pays(method: str) -> None:
    data = dataset()
    split = user_data(lambda: data, "mine", SplitSizes(), load_task("classification"))
    problem = Problem(network(), EXAMPLE, split.train, split.validation, Recipe(), 10_000, torch.Generator())

    def mode(problem: Problem, **settings: Any) -> str:
        made = _method(method, problem, 0.4, {key.replace("__", "."): value for key, value in settings.items()})
        return str(made.model_dump()["sparsity"]["mode"])

    assert mode(problem) == mode(problem, round_to=2) == "damage"
    assert mode(replace(problem, steps=2)) == "flops"
    assert mode(problem, sparsity__tilt=0.1) == mode(problem, sparsity__mode="flops") == "flops"
    with pytest.raises(InputError, match="sparsity.tilt"):
        mode(problem, sparsity__tilt="much")
