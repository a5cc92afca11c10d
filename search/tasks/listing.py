"""What parts say of themselves, read from their files: nothing is imported."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

from methods.contract.named import list_registered_parts


def read_first_sentence(place: str) -> str:
    """Read what the docstring of a function begins with.

    Args:
        place: ``package.module:function``.

    Returns:
        The first sentence, without the verb that it begins with.

    Raises:
        LookupError: If there is no such documented function.
    """
    module, _, name = place.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise LookupError(f"there is no module {module}")
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            text = (ast.get_docstring(node) or "").partition("\n\n")[0]
            words = text.split()[1:]
            return " ".join(words[1:] if words[:1] == ["the"] else words).rstrip(".")
    raise LookupError(f"{module} has no documented {name}")


def entry_point_names(group: str) -> list[tuple[str, str]]:
    """List what installed packages bring.

    Args:
        group: The entry-point group.

    Returns:
        Pairs of a name and where it is.
    """
    return [(point.name, point.value) for point in list_registered_parts(group)]
