"""Makes the scheduler that a study names: ours, or somebody else's by the port."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from methods.contract.named import is_reference, list_known_names, load_named
from spaces import InputError, explain_unknown_name

if TYPE_CHECKING:  # a name is checked wherever a configuration is read, and that needs no torch
    from search.study.samplers.base import Aim
    from search.study.schedulers.base import Scheduler

SCHEDULERS: Mapping[str, str] = {
    "none": "search.study.schedulers.none:NoScheduler",
    "mo-asha": "search.study.schedulers.halving:MultiObjectiveHalving",
}
"""Our schedulers by name."""

GROUP = "paretoprune.schedulers"
"""Entry points under which other packages list theirs."""

NONE = "none"
"""The scheduler that lets every trial run to its end."""


def validate_scheduler(name: str) -> str:
    """Check the name of a scheduler.

    Args:
        name: What the user wrote; a reference ``package.module:Name`` is followed when the study is planned.

    Returns:
        The same name.

    Raises:
        InputError: If nothing has that name.
    """
    known = list_known_names(SCHEDULERS, GROUP)
    if not is_reference(name) and name not in known:
        raise InputError(explain_unknown_name("scheduler", name, [*known, "package.module:Name"]))
    return name


def make_scheduler(name: str, options: Mapping[str, Any], aim: Aim, seed: int) -> Scheduler:
    """Make the scheduler of a study.

    Args:
        name: Its name, or ``package.module:Name``.
        options: Its own settings by name.
        aim: What is searched for.
        seed: Seed of the study.

    Returns:
        The scheduler.

    Raises:
        InputError: If there is none of that name, or it cannot be made so.
    """
    kind = load_named("scheduler", name, SCHEDULERS, GROUP, _explain_unfit)
    known = _options(kind)
    for option in options:
        if known is not None and option not in known:
            raise InputError(explain_unknown_name(f"option in scheduler_options of {name!r}:", option, known))
    try:
        made: Scheduler = kind(aim, seed, **options)
    except InputError as error:
        raise InputError(f"scheduler {name!r}: {error}") from error
    except Exception as error:  # anything may go wrong in somebody else's class
        raise InputError(f"scheduler {name!r} cannot be made as Name(aim, seed, **options): {error}") from error
    if (complaint := _explain_unfit(made)) is not None:
        raise InputError(f"scheduler {name!r} makes a {type(made).__name__}, which {complaint}")
    return made


def _options(kind: Any) -> list[str] | None:
    """List the options of a scheduler; ``None`` if it takes any, or does not tell."""
    try:
        parameters = list(inspect.signature(kind).parameters.values())[2:]
    except (TypeError, ValueError):
        return None
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        return None
    return [each.name for each in parameters]


def _explain_unfit(found: Any) -> str | None:
    """Say what is wrong with an object that should be a scheduler or the class of one."""
    acts = ("next_rung", "decide", "promote")
    if inspect.isfunction(found):
        return None
    if not all(callable(getattr(found, act, None)) for act in acts):
        return "has no next_rung, decide and promote, as search.study.schedulers.base.Scheduler has"
    return None
