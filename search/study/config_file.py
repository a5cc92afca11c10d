"""A configuration from a TOML file, options of a command and ``key=value`` strings."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search.records.paths import resolve_file, resolve_path
from search.study.config import PLACES, Resources, StudyConfig
from search.study.keys import find_similar_keys
from search.tasks.models import HF
from search.tasks.models.weight_files import is_weight_file
from spaces import InputError
from spaces.errors import explain

DEEPEST = 64
"""Tables and lists within one another beyond which a configuration is not looked at."""


def move_places(config: StudyConfig, moved: Mapping[str, Any]) -> StudyConfig:
    """Return a configuration that runs elsewhere.

    Args:
        config: The configuration.
        moved: Values of :data:`PLACES` and of the fields of ``resources`` by name; ``None`` changes nothing.

    Returns:
        The configuration; a value that is not allowed is an ``InputError``.
    """
    given = {name: value for name, value in moved.items() if value is not None}
    tree = config.model_dump(mode="json")
    tree |= _resolve_paths({name: value for name, value in given.items() if name in PLACES}, None)
    tree["resources"] |= {name: value for name, value in given.items() if name in Resources.model_fields}
    return _validate(tree, "resume")


def load_config(path: Path | None = None, overrides: Sequence[str] = (), **options: Any) -> StudyConfig:
    """Build the configuration from a file, options and overrides.

    Paths become absolute: those in the file start where the file lies, all others in the working directory.

    Args:
        path: A TOML file, or ``None``.
        overrides: ``key=value`` strings with dotted keys; values are read as TOML, else as text.
        **options: Values of top-level keys, or of ``resources``' keys; ``None`` means not given.

    Returns:
        The validated configuration.

    Raises:
        InputError: If the file cannot be read, or a key or value is not allowed.
    """
    tree = {} if path is None else _resolve_paths(_read_toml(path), path.absolute().parent)
    for key, value in options.items():
        if value is not None:
            _put(tree, ["resources", key] if key in Resources.model_fields else [key], value, key)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set {text!r} is not of the form key=value, such as --set finetune.epochs=5")
        _put(tree, _path(key.strip()), read_value(value.strip()), f"--set {text}")
    where = "configuration" if path is None else str(path)
    _check_depth(tree, where)
    return _validate(_resolve_paths(tree, None), where)


def _resolve_paths(tree: dict[str, Any], base: Path | None) -> dict[str, Any]:
    """Make the paths of a configuration absolute; what is no path is left for validation."""
    found: dict[str, Any] = {}
    for key in ("data_root", "directory"):
        if isinstance(tree.get(key), str | Path):
            found[key] = resolve_path(tree[key], base)
    for key in ("model", "data"):
        name = tree.get(key)
        if isinstance(name, str) and name.startswith(HF):
            found[key] = f"{HF}{resolve_file(name.removeprefix(HF), base)}"
    weights = tree.get("weights")
    if isinstance(weights, str | Path) and is_weight_file(str(weights)):
        found["weights"] = str(resolve_file(weights, base))
    return tree | found


def _validate(tree: Mapping[str, Any], where: str) -> StudyConfig:
    try:
        return StudyConfig.model_validate(tree)
    except ValidationError as error:
        raise InputError(explain(error, StudyConfig, where) + _pointer(error)) from error


def _pointer(error: ValidationError) -> str:
    """Name the keys that a key which does not exist may have meant."""
    first = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return ""
    meant = [key for key in find_similar_keys(".".join(str(part) for part in first["loc"]), StudyConfig) if "." in key]
    pointed = f"; meant may be {' or '.join(meant[:3])}" if meant else ""
    return f"{pointed}; `paretoprune config` lists all keys"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a byte-order mark
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}{_suggest_meaning(path)}") from error
    except RecursionError as error:
        raise _make_too_deep_error(str(path)) from error
    except ValueError as error:  # not TOML, not UTF-8, or an integer of thousands of digits
        raise InputError(f"{path} is not valid TOML: {error}{_suggest_meaning(path)}") from error


def _suggest_meaning(path: Path) -> str:
    """Say how to name what is no configuration."""
    if is_weight_file(str(path)):
        return f"; a file of weights is given with --weights {path}"
    if path.suffix != ".toml":
        return f"; the argument is a configuration: a network is named with --model {path}, data with --data"
    return ""


def _make_too_deep_error(where: str) -> InputError:
    return InputError(f"{where} nests tables or lists more than {DEEPEST} deep; no key of a configuration needs that")


def _check_depth(tree: Mapping[str, Any], where: str) -> None:
    """Refuse what is nested so deep that walking through it would fail."""
    level: list[Any] = [tree]
    for _ in range(DEEPEST + 1):
        inner = [each.values() if isinstance(each, Mapping) else each for each in level]
        level = [each for values in inner for each in values if isinstance(each, Mapping | list | tuple)]
    if level:
        raise _make_too_deep_error(where)


def _put(tree: dict[str, Any], path: Sequence[str], value: Any, where: str) -> None:
    """Set a nested key."""
    node = tree
    for part in path[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise InputError(f"{where}: {part!r} is a value, it has no keys of its own")
    node[path[-1]] = value


def _path(key: str) -> list[str]:
    """Split a dotted key; dots inside brackets or quotes, or before a colon, belong to the name.

    Args:
        key: What was written: ``a.b[layer1.0].low``, ``space.package.module:Mine.rate`` or ``space."m:Mine".rate``.

    Returns:
        The names from the outermost table inwards.
    """
    parts = re.findall(r'(?:"[^"]*"|[^.\["]|\[[^\]]*\]?)+', key)
    if parts and parts[0] == "space":  # a method may be named by a reference, whose module has dots of its own
        until = next(
            (number for number, part in enumerate(parts) if ":" in part.partition("[")[0] and not part.startswith('"')),
            1,
        )
        parts[1 : until + 1] = [".".join(parts[1 : until + 1])]
    return [part.strip('"') for part in parts]


def read_value(text: str) -> Any:
    """Read a value as TOML would, and as plain text where TOML would not.

    Args:
        text: What was written behind ``=``.

    Returns:
        The value.

    Raises:
        _make_too_deep_error: An ``InputError``, if it nests too deep.

    Example:
        >>> read_value("0.3"), read_value("l1"), read_value("[1, 2]")
        (0.3, 'l1', [1, 2])
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except RecursionError as error:
        raise _make_too_deep_error("--set") from error
    except ValueError:
        return text
