from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from search.driver import training_step
from search.driver.training_step import LARGE_BATCH, MEASURED_BATCH, Training, measure_training


def test_a_fast_step_is_split_into_a_fixed_part_and_one_for_each_example(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {MEASURED_BATCH: 0.014, LARGE_BATCH: 0.042}  # 10 ms and 1 ms for each example

    def take_time(model: nn.Module, batch: Tensor) -> float:
        return times[len(batch)]

    monkeypatch.setattr(training_step, "_step_seconds", take_time)
    found = measure_training(nn.Linear(3, 2), torch.zeros(1, 3))
    assert found is not None
    assert found.seconds == pytest.approx(0.001) and found.fixed_seconds == pytest.approx(0.010)
    assert found.step_seconds(64) == pytest.approx(0.074)
    assert found.to_json()["seconds_per_step"] == pytest.approx(0.014)


def test_a_slow_step_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def take_time(model: nn.Module, batch: Tensor) -> float:
        sizes.append(len(batch))
        return 2.0

    monkeypatch.setattr(training_step, "_step_seconds", take_time)
    found = measure_training(nn.Linear(3, 2), torch.zeros(1, 3))
    assert found == Training(0.5, 0.0, 3 * 8 * 4) and sizes == [MEASURED_BATCH]


def test_a_network_without_anything_to_train_has_no_step() -> None:
    assert measure_training(nn.Flatten(), torch.zeros(1, 3)) is None


def test_activations_are_counted_and_the_network_stays() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Sigmoid(), nn.Linear(5, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = measure_training(model, torch.zeros(1, 3))
    assert found is not None and found.bytes >= 5 * 4
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
