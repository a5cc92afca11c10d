"""The name to import: everything a script or a notebook needs of paretoprune.

::

    from paretoprune import Sweep, load_config, load_front

    front = Sweep(load_config(data="digits", trials=24)).run()
    front.filter(max_flops="50%").table()
    small = front.knee().model()

A name is imported when it is first used: ``import paretoprune`` costs milliseconds, reading a front needs no torch,
and rebuilding an exported network needs neither Ray nor Optuna nor MLflow.

The work is done in three packages beside this one, ``spaces``, ``methods`` and ``search``. They are found here even if
the script's own folder holds a ``search.py``, say; only what a script has imported under such a name before cannot
be replaced, and is named in the error.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from paretoprune._rooms import claim_rooms

if TYPE_CHECKING:
    from methods import load_method, method_names
    from search.artefacts.rebuild import rebuild
    from search.driver.confirm import confirm
    from search.driver.doctor import doctor
    from search.driver.in_hand import prune, search
    from search.driver.sweep import Sweep
    from search.fronts.front import Front, Member
    from search.objectives.base import MeasureContext, Objective
    from search.records.listener import NullListener
    from search.store.studies import StudyFiles, load_front
    from search.study.config import StudyConfig
    from search.study.config_file import load_config
    from search.tasks.lightning_loop import lightning_callback
    from search.tasks.trainer_loop import trainer_callback
    from spaces.errors import InputError

__all__ = [
    "Front",
    "InputError",
    "MeasureContext",
    "Member",
    "NullListener",
    "Objective",
    "StudyConfig",
    "StudyFiles",
    "Sweep",
    "confirm",
    "doctor",
    "lightning_callback",
    "load_config",
    "load_front",
    "load_method",
    "method_names",
    "prune",
    "rebuild",
    "search",
    "trainer_callback",
]

_HOMES = {
    "Front": "search.fronts.front",
    "InputError": "spaces.errors",
    "MeasureContext": "search.objectives.base",
    "Member": "search.fronts.front",
    "NullListener": "search.records.listener",
    "Objective": "search.objectives.base",
    "StudyConfig": "search.study.config",
    "StudyFiles": "search.store.studies",
    "Sweep": "search.driver.sweep",
    "confirm": "search.driver.confirm",
    "doctor": "search.driver.doctor",
    "lightning_callback": "search.tasks.lightning_loop",
    "load_config": "search.study.config_file",
    "load_front": "search.store.studies",
    "load_method": "methods",
    "method_names": "methods",
    "prune": "search.driver.in_hand",
    "rebuild": "search.artefacts.rebuild",
    "search": "search.driver.in_hand",
    "trainer_callback": "search.tasks.trainer_loop",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("paretoprune")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    claim_rooms()
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "__version__"])
