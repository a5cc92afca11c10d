"""The keys of a configuration, with what each means and its default: read from the models that check it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from methods.contract.recipe import Recipe
from search.tasks.recipes import default_recipe

RECIPE = "recipe"
"""The field whose own keys are those of a recipe; epochs beside it and they depend on the data."""


@dataclass(frozen=True)
class Key:
    """One key of a configuration.

    Attributes:
        name: The key with dots, as ``--set`` takes it.
        default: Its default as TOML, or in words.
        meaning: What it decides.
    """

    name: str
    default: str
    meaning: str


def list_keys(kind: type[BaseModel], data: str = "digits") -> list[Key]:
    """List every key.

    Args:
        kind: The model of the whole configuration; all its fields have defaults.
        data: The data set whose epochs and recipes are the defaults.

    Returns:
        The keys in the order of the model, those of its tables among them.
    """
    return list(_walk(kind, "", kind(), data))


def find_similar_keys(given: str, kind: type[BaseModel]) -> list[str]:
    """Find the keys that may have been meant.

    Args:
        given: A key that does not exist, with or without dots.
        kind: The model of the whole configuration.

    Returns:
        Full names: first those that end in the same word, or else those that look like it.
    """
    names = [key.name for key in list_keys(kind)]
    last = given.rpartition(".")[2]
    same = [name for name in names if name.rpartition(".")[2] == last]
    if same:
        return sorted(same, key=lambda name: (not name.startswith("finetune"), name))
    near = get_close_matches(last, sorted({name.rpartition(".")[2] for name in names}), n=1, cutoff=0.7)
    return [name for name in names if name.rpartition(".")[2] in near]


def toml(value: Any) -> str:
    """Write a value as TOML does.

    Args:
        value: A text, number, truth value, path, or a list or mapping of those; ``None`` has no form in TOML.

    Returns:
        The text; ``not set`` for ``None``.
    """
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | Path):
        text = str(value).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(each) for each in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml(each)}" for name, each in value.items()) + "}"
    return str(value)


def meanings(kind: type[Any]) -> dict[str, str]:
    """Read what each attribute of a documented class means.

    Args:
        kind: A class with a section ``Attributes`` in its docstring.

    Returns:
        One text per attribute, without markup.
    """
    lines = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2].splitlines()
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if line and not line.startswith(" "):
            break
        if begun := re.match(r"    (\w+): (.*)", line):
            name, found[begun.group(1)] = begun.group(1), begun.group(2)
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return {attribute: _strip_markup(text) for attribute, text in found.items()}


def _walk(kind: type[BaseModel], prefix: str, defaults: BaseModel, data: str) -> Iterator[Key]:
    described = meanings(kind)
    for name in kind.model_fields:
        value = getattr(defaults, name)
        if isinstance(value, BaseModel):
            yield from _walk(type(value), f"{prefix}{name}.", value, data)
        elif RECIPE in kind.model_fields:  # how a phase is trained
            yield from _training(prefix, name, described, data)
        else:
            yield Key(f"{prefix}{name}", _default(value), described.get(name, ""))


def _training(prefix: str, name: str, described: dict[str, str], data: str) -> Iterator[Key]:
    recipe, epochs = default_recipe(data, "dense" if prefix == "dense." else "finetune")
    if name != RECIPE:
        yield Key(f"{prefix}{name}", toml(epochs), described.get(name, ""))
        return
    meant = meanings(Recipe)
    for field in Recipe.model_fields:
        yield Key(f"{prefix}{RECIPE}.{field}", _default(getattr(recipe, field)), meant.get(field, ""))


def _default(value: Any) -> str:
    return "{}" if value == {} else toml(value)


def _strip_markup(text: str) -> str:
    """Take the markup of docstrings away."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"\1", text)
    return re.sub(r"``([^`]+)``", r"\1", text.replace("``None``", "not set"))
