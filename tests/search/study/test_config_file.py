"""Configurations from files, options and ``--set``."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.study.config import StudyConfig
from search.study.config_file import load_config
from spaces import InputError
from tests.search.cases import toml


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


def test_names_of_layers_keep_their_dots() -> None:
    config = load_config(None, ["space.random.sparsity.layers[layer1.0.conv1]=0.5"])
    assert config.space == {"random": {"sparsity.layers[layer1.0.conv1]": 0.5}}


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
