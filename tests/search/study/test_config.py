from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from search.driver.keeping import storage_url
from search.store.studies import StudyFiles, study_names
from search.study.config import StudyConfig, checked_name, places
from search.study.config_file import load_config, with_places
from search.tracking.run_store import RunStore
from spaces import InputError


def toml(directory: Path, text: str) -> Path:
    path = directory / "study.toml"
    path.write_text(text)
    return path


def test_defaults_are_the_embedded_digits_sweep() -> None:
    config = load_config()
    assert (config.model, config.data, config.trials) == ("digits_resnet", "digits", 24)
    assert config.methods == ("magnitude", "increg", "random")
    assert config.objectives == ("accuracy", "flops")


def test_precedence_is_file_then_options_then_set(tmp_path: Path) -> None:
    path = toml(tmp_path, 'trials = 5\nseed = 5\nmodel = "resnet20"\n[resources]\ncpus_per_trial = 2\n')
    config = load_config(path, ["seed=7"], trials=6, seed=6, name=None, max_concurrent=1)
    assert (config.model, config.trials, config.seed) == ("resnet20", 6, 7)
    assert (config.resources.cpus_per_trial, config.resources.max_concurrent) == (2, 1)


def test_set_reads_toml_values_and_plain_text(tmp_path: Path) -> None:
    config = load_config(
        None, ["model=torchvision:resnet18", "finetune.epochs=2.5", "split.validation=0.3", 'methods=["random"]']
    )
    assert config.model == "torchvision:resnet18"
    assert (config.finetune.epochs, config.split.validation, config.methods) == (2.5, 0.3, ("random",))


def test_parameters_are_narrowed_in_either_spelling(tmp_path: Path) -> None:
    nested = load_config(toml(tmp_path, "[space.increg.sparsity.flops]\nlow = 0.2\nhigh = 0.4\n"))
    quoted = load_config(toml(tmp_path, '[space.increg]\n"sparsity.flops" = {low = 0.2, high = 0.4}\n'))
    option = load_config(None, ["space.increg.sparsity.flops.low=0.2", "space.increg.sparsity.flops.high=0.4"])
    assert nested.space == quoted.space == option.space == {"increg": {"sparsity.flops": {"low": 0.2, "high": 0.4}}}


def test_names_of_layers_keep_their_dots() -> None:
    config = load_config(None, ["space.random.sparsity.layers[layer1.0.conv1]=0.5"])
    assert config.space == {"random": {"sparsity.layers[layer1.0.conv1]": 0.5}}


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


def test_unreadable_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(InputError, match=r"study\.toml is not valid TOML: .*line 1"):
        load_config(toml(tmp_path, "trials = \n"))
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not valid TOML"):
        load_config(binary)
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


@given(st.text(min_size=1, max_size=100))
def test_names_cannot_leave_the_store(name: str) -> None:
    try:
        checked_name(name)
    except InputError:
        return
    assert Path("studies", name).parent == Path("studies") and not name.startswith(".")
    assert "'" not in name and '"' not in name and "\n" not in name


def test_a_study_can_run_elsewhere_and_keeps_no_secrets(tmp_path: Path) -> None:
    config = StudyConfig(data_root=Path("a"), tracking_uri="postgresql://anna:s@/cret@host/db?password=x")
    moved = with_places(config, {"data_root": "b", "executor": "inline", "retries": None})
    assert (moved.data_root, moved.resources.executor, moved.resources.retries) == (Path.cwd() / "b", "inline", 2)
    assert moved.tracking_uri == config.tracking_uri
    assert places(moved)["tracking_uri"] == "postgresql://host/db"
    with pytest.raises(InputError, match="retries"):
        with_places(config, {"retries": -1})


def test_paths_start_at_the_file_or_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("home", "here", "etc"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    file = toml(tmp_path / "etc", 'directory = "~/runs"\ndata_root = "../my data, 100%"\nweights = "w.pth"\n')
    for spelling in (file, Path("../etc/study.toml")):
        config = load_config(spelling)
        assert (config.directory, config.data_root) == (tmp_path / "home/runs", tmp_path / "my data, 100%")
        assert config.weights == str(tmp_path / "etc/w.pth")
    given = load_config(file, ["data_root=sets", "weights=~/v.pt"], directory=Path("~/other"))
    assert (given.directory, given.data_root) == (tmp_path / "home/other", tmp_path / "here/sets")
    assert given.weights == str(tmp_path / "home/v.pt")
    assert load_config(None, ["weights=DEFAULT"], model="torchvision:resnet18").weights == "DEFAULT"
    assert StudyConfig(directory=Path("~/runs")).directory == tmp_path / "home/runs"


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


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_bytes(b'\xef\xbb\xbftrials = 5\nmodel = "resnet20"\n')
    assert (load_config(path).trials, load_config(path).model) == (5, "resnet20")


@pytest.mark.parametrize(
    "text",
    [
        "task_options = " + 5000 * "{a = " + "1" + 5000 * "}",
        "methods = " + 5000 * "[" + 5000 * "]",
        "space" + 5000 * ".a" + " = 1",
        "[task_options" + 5000 * ".a" + "]",
        "task_options.a = " + 70 * "[" + 70 * "]",
    ],
    ids=["tables", "lists", "dots", "header", "lists within bounds of Python"],
)
def test_what_is_nested_too_deep_is_explained(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"study\.toml nests tables or lists more than 64 deep"):
        load_config(toml(tmp_path, text))


@pytest.mark.parametrize("setting", ["methods=" + 5000 * "[" + 5000 * "]", "space" + 5000 * ".a" + "=1"])
def test_what_an_option_nests_too_deep_is_explained(setting: str) -> None:
    with pytest.raises(InputError, match="nests tables or lists more than 64 deep"):
        load_config(None, [setting])


def test_integers_of_thousands_of_digits_are_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"study\.toml is not valid TOML: .*digits"):
        load_config(toml(tmp_path, "trials = " + 5000 * "9"))


@pytest.mark.parametrize("key", ["seed", "split.seed"])
def test_seeds_end_where_generators_end(key: str) -> None:
    config = load_config(None, [f"{key}={2**63 - 1}"])
    assert torch.Generator().manual_seed(config.seed).initial_seed() == config.seed
    for seed in (2**63, 2**70, -1):
        with pytest.raises(InputError, match=rf"seed = {seed} is not allowed: .*(9223372036854775807|equal to 0)"):
            load_config(None, [f"{key}={seed}"])
