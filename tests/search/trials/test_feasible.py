"""What is refused before anything is trained, because the network or the budget does not allow it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search.driver.prepare import plan
from search.driver.sweep import Sweep
from spaces import InputError
from tests.search.cases import quick_config

RECIPE = {"recalibrate": 1}


def planned(directory: Path, **changes: Any) -> list[str]:
    return plan(quick_config(directory, **changes)).warnings


@pytest.mark.parametrize("method", ["increg", "spp"])
def test_a_budget_in_which_a_method_cannot_finish(method: str, tmp_path: Path) -> None:
    message = rf"{method} cannot remove \d+ of 64 units of '.*' within 5 steps; it needs at least \d+, and 5 reach"
    with pytest.raises(InputError, match=message):
        planned(tmp_path, methods=["magnitude", method], finetune={"epochs": 0.3, "recipe": RECIPE})


def test_nothing_is_written_then(tmp_path: Path) -> None:
    config = quick_config(tmp_path / "runs", methods=["increg"], finetune={"epochs": 0.1, "recipe": RECIPE})
    with pytest.raises(InputError, match="increg cannot remove"):
        Sweep(config).run()
    assert not (tmp_path / "runs").exists()


def test_one_share_that_can_be_reached_is_enough(tmp_path: Path) -> None:
    tight: dict[str, Any] = {"methods": ["increg"], "finetune": {"epochs": 0.7, "recipe": RECIPE}}
    with pytest.raises(InputError, match="increg cannot remove"):
        planned(tmp_path, shares=[0.1], **tight)
    assert planned(tmp_path, shares=[0.1, 0.9], **tight) == []


def test_a_share_that_is_never_reached(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="target_flops = 0.05 cannot be reached; the smallest share, with min_keep"):
        planned(tmp_path, methods=["sdprun"], shares=[0.05], space={"sdprun": {"min_share": 0.25}})


def test_an_unstable_rate_is_warned_of(tmp_path: Path) -> None:
    finetune = {"epochs": 3, "recipe": {"lr": 0.9}}
    (warning,) = planned(tmp_path, methods=["increg"], finetune=finetune)
    assert warning.startswith("increg: learning rate * penalty_max = 0.9 * 2.5 makes SGD with momentum 0.9 unstable")
    assert planned(tmp_path, methods=["increg"], finetune=finetune, space={"increg": {"penalty_max": 1.0}}) == []


def test_methods_without_values_for_all_parameters_are_left_alone(tmp_path: Path) -> None:
    """Their points are drawn at random: some may work."""
    bounds = {"penalty_max": {"low": 0.1, "high": 0.2}}
    assert (
        planned(tmp_path, methods=["increg"], finetune={"epochs": 0.3, "recipe": RECIPE}, space={"increg": bounds})
        == []
    )
