"""Which settings are best: sweeps, fronts, reports.

From a script or a notebook::

    from search import Sweep, load_config, load_front

    front = Sweep(load_config(data="digits", trials=24)).run()
    front.filter(max_flops="50%").table()
    small = front.knee().model()

Names are imported when they are first used: reading a front needs no torch, no ray and no mlflow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.artefacts.rebuild import rebuild
    from search.driver.sweep import Sweep
    from search.fronts.front import Front
    from search.store.studies import StudyFiles, load_front
    from search.study.config import StudyConfig, load_config

__all__ = ["Front", "StudyConfig", "StudyFiles", "Sweep", "load_config", "load_front", "rebuild"]

_HOMES = {
    "Front": "search.fronts.front",
    "StudyConfig": "search.study.config",
    "StudyFiles": "search.store.studies",
    "Sweep": "search.driver.sweep",
    "load_config": "search.study.config",
    "load_front": "search.store.studies",
    "rebuild": "search.artefacts.rebuild",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
