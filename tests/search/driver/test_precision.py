"""Half precision that a processor only imitates is spoken of before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from search.driver import precision
from search.driver.precision import precision_warnings
from search.driver.prepare import plan
from search.driver.sweep import train_dense
from tests.search.cases import Warned, make_quick_config


def asks(directory: Path, dense: dict[str, Any], finetune: dict[str, Any], **others: Any) -> list[str]:
    phases = {"dense": {"epochs": 1, "recipe": dense}, "finetune": {"epochs": 1, "recipe": finetune}}
    return precision_warnings(make_quick_config(directory, **phases, **others), "cpu")


def test_what_is_slower_is_named_once_and_what_is_faster_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.dtype] = []

    def measure(half: torch.dtype) -> float:
        asked.append(half)
        return 9.4 if half is torch.bfloat16 else 0.6

    monkeypatch.setattr(precision, "measure_half", measure)
    assert asks(tmp_path, {}, {}) == [] and not asked, "float32 is not measured"
    (said,) = asks(tmp_path, {"bf16": True}, {"bf16": True})
    assert said.startswith("recipe.bf16 makes training slower here") and " 9.4 times " in said and "processor" in said
    assert asked == [torch.bfloat16]
    config = make_quick_config(tmp_path, dense={"recipe": {"bf16": True}})
    assert precision_warnings(config, "cuda") == [] and len(asked) == 1, "only a processor is measured"
    assert asks(tmp_path, {}, {"fp16": True}) == []
    assert len(asks(tmp_path, {"bf16": True}, {"fp16": True})) == 1
    assert asks(tmp_path, {"bf16": True}, {}, weights="dense.safetensors") == [], "nobody trains the dense network"


def test_plans_and_dense_training_say_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "measure_half", lambda half: precision.WORTH_SAYING)
    config = make_quick_config(tmp_path, dense={"epochs": 0.1, "recipe": {"bf16": True}})
    (said,) = [each for each in plan(config).warnings if "bf16" in each]
    heard = Warned()
    train_dense(config, heard)
    assert said in heard.warnings
