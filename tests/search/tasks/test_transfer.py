"""Weights for other classes: the head is new and trained, with all else or alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from search.driver.dense_setting import dense_setting
from search.driver.prepare import plan
from search.study.config_file import load_config
from search.tasks.dense import HeadOnly
from search.tasks.models import build_model
from search.tasks.recipes import default_recipe
from spaces import InputError


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The digits' network for 7 classes."""
    torch.save({"state_dict": build_model("digits_resnet", 7, (1, 1, 8, 8), 5).state_dict()}, tmp_path / "w.ckpt")
    return tmp_path / "w.ckpt"


def train_dense(tmp_path: Path, weights: Path, *overrides: str) -> tuple[list[str], dict[str, Tensor], int]:
    """Warnings of the plan, the dense network's tensors, and how many epochs were trained."""
    epochs: list[int] = []
    config = load_config(
        None, ["dense.epochs=1", *overrides], weights=str(weights), directory=tmp_path / "runs", executor="inline"
    )
    planned = plan(config)
    setting, row = dense_setting(planned, lambda record, total: epochs.append(total))
    assert row.metrics["accuracy"] > 0.2, "something was learned"
    return planned.warnings, setting.model.state_dict(), len(epochs)


def test_a_new_head_is_trained_with_all_else(tmp_path: Path, weights: Path) -> None:
    before = torch.load(weights)["state_dict"]
    warnings, after, epochs = train_dense(tmp_path, weights)
    assert warnings[0].startswith("the head is new (fc.weight, fc.bias): weights are for other outputs")
    assert epochs == 1
    assert not torch.equal(after["conv1.weight"], before["conv1.weight"])


def test_a_frozen_backbone_keeps_weights_and_statistics(tmp_path: Path, weights: Path) -> None:
    before = torch.load(weights)["state_dict"]
    warnings, after, _ = train_dense(tmp_path, weights, "freeze_backbone=true", "dense.recipe.lr=0.1")
    assert "its backbone being frozen" in warnings[0]
    for name, tensor in before.items():
        assert name.startswith("fc.") or torch.equal(after[name], tensor), name
    initial = build_model("digits_resnet", 10, (1, 1, 8, 8), 0).state_dict()
    assert not torch.equal(after["fc.weight"], initial["fc.weight"])


def test_the_recipe_is_that_of_fine_tuning(tmp_path: Path, weights: Path) -> None:
    assert default_recipe("cifar10", "transfer")[1] == default_recipe("cifar10", "finetune")[1]
    assert default_recipe("cifar10", "transfer")[0].lr < default_recipe("cifar10", "dense")[0].lr
    assert default_recipe("mine:data", "transfer")[0].warmup > 0


def test_freezing_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="freeze_backbone = true needs weights"):
        plan(load_config(None, ["freeze_backbone=true"], directory=tmp_path))


def test_only_the_head_trains() -> None:
    model = build_model("digits_resnet", 10, (1, 1, 8, 8), 0)
    wrapped = HeadOnly(model, ("fc.weight", "fc.bias"))
    wrapped.train()
    assert [name for name, module in model.named_modules() if module.training] == ["fc"]
    assert [name for name, each in model.named_parameters() if each.requires_grad] == ["fc.weight", "fc.bias"]
    assert not any(module.training for module in wrapped.eval().modules())
