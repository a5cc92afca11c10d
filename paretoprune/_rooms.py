"""The three packages beside this one, found even where a script's folder holds modules of the same names."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

ROOMS = ("spaces", "methods", "search")
"""The packages, each before those that import it."""


def claim_rooms() -> None:
    """Make ``import spaces``, ``methods`` and ``search`` mean ours, wherever they stand on the import path.

    An ``ImportError`` says so if another module of such a name is loaded already, or ours are not installed.
    """
    for room in ROOMS:
        ours = Path(__file__).resolve().parent.parent / room / "__init__.py"
        loaded = sys.modules.get(room)
        if not ours.is_file() and find_spec(room) is not None:
            continue  # a cluster that was sent our packages has each in a folder of its own
        if loaded is not None:
            _check_ours(loaded, room, ours)
        elif not _is_imported_first(room, ours):
            _load(room, ours)


def _check_ours(loaded: ModuleType, room: str, ours: Path) -> None:
    origin = getattr(loaded, "__file__", None)
    if origin is None or Path(origin).resolve() != ours:
        raise ImportError(
            f"the name {room!r} is taken: {origin or 'a folder without __init__.py'} is loaded, but paretoprune has a "
            f"package {room!r} of its own; rename yours, or import paretoprune's names before it"
        )


def _is_imported_first(room: str, ours: Path) -> bool:
    """Whether Python would import ours by itself."""
    spec = find_spec(room)
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == ours


def _load(room: str, ours: Path) -> None:
    """Import a package from its file, as if it stood first on the import path."""
    if not ours.is_file():
        raise ImportError(f"paretoprune is incomplete: there is no {ours}; install it again (pip install -e .)")
    spec = spec_from_file_location(room, ours, submodule_search_locations=[str(ours.parent)])
    assert spec is not None and spec.loader is not None  # a file that ends in .py has a loader
    module = module_from_spec(spec)
    sys.modules[room] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[room]
        raise
