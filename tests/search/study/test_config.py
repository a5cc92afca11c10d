from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from search.driver.keeping import storage_url
from search.store.studies import StudyFiles, study_names
from search.study.config import StudyConfig, check_name, places
from search.study.config_file import load_config, move_places
from search.tracking.run_store import RunStore
from spaces import InputError
from tests.search.cases import toml


def test_defaults_are_the_embedded_digits_sweep() -> None:
    config = load_config()
    assert (config.model, config.data, config.trials) == ("digits_resnet", "digits", 24)
    assert config.methods == ("magnitude", "increg", "random")
    assert config.objectives == ("accuracy", "flops")


def test_parameters_are_narrowed_in_either_spelling(tmp_path: Path) -> None:
    nested = load_config(toml(tmp_path, "[space.increg.sparsity.flops]\nlow = 0.2\nhigh = 0.4\n"))
    quoted = load_config(toml(tmp_path, '[space.increg]\n"sparsity.flops" = {low = 0.2, high = 0.4}\n'))
    option = load_config(None, ["space.increg.sparsity.flops.low=0.2", "space.increg.sparsity.flops.high=0.4"])
    assert nested.space == quoted.space == option.space == {"increg": {"sparsity.flops": {"low": 0.2, "high": 0.4}}}


def test_resolved_configuration_round_trips() -> None:
    config = load_config(None, ["space.increg.penalty_max.high=2.0", "finetune.recipe.lr=0.02"], name="x")
    assert StudyConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"overrides": ["trails=5"]}, r"unknown key in configuration: 'trails'; did you mean 'trials'"),
        ({"overrides": ["finetune.epoch=5"]}, r"section finetune: 'epoch'; did you mean 'epochs'"),
        ({"overrides": ["finetune.recipe.learning_rate=1"]}, r"unknown key in recipe: 'learning_rate'"),
        ({"overrides": ["finetune.recipe.lr=-1"]}, r"lr = -1 is not allowed: Input should be greater than 0"),
        ({"overrides": ["trials"]}, r"--set 'trials' is not of the form key=value"),
        ({"overrides": ["trials=0"]}, r"trials = 0 is not allowed: Input should be greater than or equal to 1"),
        ({"overrides": ["trials.x=0"], "trials": 3}, r"'trials' is a value, it has no keys of its own"),
        ({"methods": ("incregg",)}, r"unknown method 'incregg'; did you mean 'increg'"),
        ({"methods": ("random", "random")}, r"methods are named twice: random, random"),
        ({"objectives": ("accuracy", "flop")}, r"unknown objective 'flop'; did you mean 'flops'"),
        ({"name": "../x"}, r"study name '\.\./x' is not allowed"),
        ({"overrides": ["allocation=layers"]}, r"allocation = 'layers' is not allowed"),
        ({"overrides": ["split.validation=0"]}, r"split\.validation = 0 is not allowed"),
    ],
)
def test_bad_input_is_explained(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(**given)


@given(st.text(min_size=1, max_size=100))
def test_names_cannot_leave_the_store(name: str) -> None:
    try:
        check_name(name)
    except InputError:
        return
    assert Path("studies", name).parent == Path("studies") and not name.startswith(".")
    assert "'" not in name and '"' not in name and "\n" not in name


def test_a_study_can_run_elsewhere_and_keeps_no_secrets(tmp_path: Path) -> None:
    config = StudyConfig(data_root=Path("a"), tracking_uri="postgresql://anna:s@/cret@host/db?password=x")
    moved = move_places(config, {"data_root": "b", "executor": "inline", "retries": None})
    assert (moved.data_root, moved.resources.executor, moved.resources.retries) == (Path.cwd() / "b", "inline", 2)
    assert moved.tracking_uri == config.tracking_uri
    assert places(moved)["tracking_uri"] == "postgresql://host/db"
    with pytest.raises(InputError, match="retries"):
        move_places(config, {"retries": -1})


def test_a_study_is_in_one_place_however_its_directory_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    file = toml(tmp_path, 'directory = "~/runs"\n')
    directory = load_config(file).directory
    store = RunStore.resolve(directory, None)
    assert StudyFiles(directory, "s").root == store.directory / "studies" / "s" == tmp_path / "home/runs/studies/s"
    StudyFiles(directory, "s").create({})
    for spelling in ("~/runs", "home/runs", "home/../home/runs"):
        assert study_names(Path(spelling)) == ["s"]
        assert StudyFiles.open(spelling, "s").root == store.directory / "studies" / "s"
        assert storage_url(Path(spelling)) == f"sqlite:///{tmp_path}/home/runs/optuna.db"
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("key", ["seed", "split.seed"])
def test_seeds_end_where_generators_end(key: str) -> None:
    config = load_config(None, [f"{key}={2**63 - 1}"])
    assert torch.Generator().manual_seed(config.seed).initial_seed() == config.seed
    for seed in (2**63, 2**70, -1):
        with pytest.raises(InputError, match=rf"seed = {seed} is not allowed: .*(9223372036854775807|equal to 0)"):
            load_config(None, [f"{key}={seed}"])
