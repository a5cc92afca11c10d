"""A configuration to begin with, commented: what is most often changed, and where the rest is listed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from methods.contract.named import is_reference, list_known_names
from search.records.paths import resolve_path
from search.study.config_file import load_config
from search.study.keys import meanings, toml
from search.tasks.data.sets import DATA
from search.tasks.models import GROUP, HF, MODELS, explain_unknown_model
from search.tasks.recipes import default_recipe
from spaces import InputError, explain_unknown_name

FINETUNE_KEYS = ("optimizer", "lr", "batch_size", "weight_decay", "schedule", "distill")
"""Fields of the recipe that are written out."""


def write_template(
    model: str | None = None,
    data: str | None = None,
    data_root: Path | None = None,
    methods: Sequence[str] | None = None,
    folder: Path | None = None,
) -> str:
    """Write the text of a configuration.

    Args:
        model: The network; ``None`` for the default one.
        data: The data; ``None`` for the default ones.
        data_root: Where data sets lie.
        methods: Methods that compete.
        folder: Where the file will lie; ``None`` for the working directory.

    Returns:
        TOML that is valid as it is: what is set has the values given here, the rest is commented out with its default.

    Raises:
        InputError: If there is no such network or data set.
    """
    given: dict[str, Any] = {"model": model, "data": data, "data_root": data_root, "methods": methods}
    if model is not None and not is_reference(model) and model not in list_known_names(MODELS, GROUP):
        raise InputError(explain_unknown_model(model))
    if data is not None and not is_reference(data):
        _check_known("data", data, list_known_names(DATA, "paretoprune.data"))
    config = load_config(None, (), **{name: value for name, value in given.items() if value is not None})
    said = meanings(type(config))
    recipe, epochs = default_recipe(config.data, "finetune")
    _, dense_epochs = default_recipe(config.data, "dense")
    top: list[tuple[str, Any, bool]] = [
        ("model", _write_name_relative(config.model, folder), True),
        ("weights", "weights.safetensors", False),
        ("data", _write_name_relative(config.data, folder), True),
        ("data_root", _write_relative(config.data_root, folder), data_root is not None),
        ("methods", config.methods, True),
        ("objectives", config.objectives, True),
        ("trials", config.trials, True),
        ("seed", config.seed, False),
    ]
    lines = ["# A study of paretoprune. `paretoprune config` lists every key with its meaning and default.", ""]
    for name, value, is_set in top:
        lines.append(f"# {said[name]}")
        lines.append(_line(name, value, is_set))
        lines.append("")
    lines += ["[dense]  # how the dense network is trained, if it has no weights", _line("epochs", dense_epochs, False)]
    lines += ["", "[finetune]  # the same budget and recipe for every trial", _line("epochs", epochs, True), ""]
    lines += ["[finetune.recipe]"]
    described = meanings(type(recipe))
    for name in FINETUNE_KEYS:
        lines.append(f"{_line(name, getattr(recipe, name), False)}  # {described[name]}")
    lines += ["", "# Narrow any parameter of a method; `paretoprune space METHOD` lists them."]
    lines += [f"# [space.{config.methods[0]}.sparsity.flops]", "# high = 0.5", ""]
    lines += ["[resources]", _line("cpus_per_trial", 1, True), _line("gpus_per_trial", 0.25, False), ""]
    return "\n".join(lines)


def _write_relative(path: Path, folder: Path | None) -> Path:
    """A path as it is written in a file of that folder: relative where it lies below."""
    home = resolve_path(folder or Path())
    return path.relative_to(home) if path.is_relative_to(home) else path


def _write_name_relative(name: str, folder: Path | None) -> str:
    """A name as it is written in a file of that folder: what ``hf:`` stands before is a path."""
    if not name.startswith(HF):
        return name
    return f"{HF}{_write_relative(Path(name.removeprefix(HF)), folder)}"


def _check_known(kind: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise InputError(explain_unknown_name(kind, name, [*known, "hf:FOLDER", "package.module:function"]))


def _line(name: str, value: Any, is_set: bool) -> str:
    text = f"{name} = {toml(value)}"
    return text if is_set else f"# {text}"
