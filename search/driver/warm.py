"""What earlier studies hand on to a new one: trials that its sampler knows from the start, or points to try first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.fronts.member import Member
from search.records.outcome import Outcome
from search.store.studies import StudyFiles
from search.study.config import StudyConfig
from search.study.points import complete_point
from search.study.samplers.base import Tried
from search.study.samplers.choice import STOCK
from search.study.space import METHOD
from search.tasks.identity import differences, study_identity
from search.tasks.workload import Workload
from spaces import Categorical, InputError, Space, Value


@dataclass
class Earlier:
    """What earlier studies hand on.

    Attributes:
        tried: Trials of the same network, data and budget: ``method``, ``point`` and ``metrics`` of each.
        points: Points of the space of the new study, the best of other networks.
        notes: What was taken and what was left out, a sentence for each study.
    """

    tried: list[dict[str, Any]] = field(default_factory=list)
    points: list[dict[str, Value]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_earlier(
    config: StudyConfig,
    workload: Workload,
    space: Space,
    steps: int,
    recipe: Mapping[str, Any],
    objectives: Sequence[str],
) -> Earlier:
    """Read the studies that a sweep is warmed with.

    Args:
        config: The configuration, with their names in ``warm_start``.
        workload: Network and data of the sweep.
        space: Its space.
        steps: Budget of its trials in optimiser steps.
        recipe: How its trials train.
        objectives: What it searches for.

    Returns:
        What they hand on.

    Raises:
        InputError: If there is no such study, it is of another task or measured none of what is searched for.
    """
    found = Earlier()
    if not config.warm_start:
        return found
    now = study_identity(workload)
    for name in config.warm_start:
        files = _open(config.directory, name)
        record, then = files.record(), files.config()
        if then.task != config.task:
            raise InputError(
                f"warm-start: study {name!r} is of another problem: its task is {then.task!r}, and this one's "
                f"{config.task!r}"
            )
        complete = [outcome for outcome in files.outcomes() if outcome.complete]
        known = [outcome for outcome in complete if not outcome.list_missing(objectives)]
        if not known:
            why = (
                "no trial was completed"
                if not complete
                else f"it has no {', '.join(complete[0].list_missing(objectives))}"
            )
            raise InputError(f"warm-start: study {name!r} tells nothing of what is searched for here: {why}")
        other = differences(record.get("identity", {}), now) if record.get("identity") else ["an earlier version's"]
        if record.get("steps") != steps or record.get("recipe") != recipe:
            other.append("trials train otherwise")
        if other or config.sampler in STOCK:
            why = "; ".join(other) if other else f"sampler {config.sampler!r} cannot be told of trials"
            _take_points(found, name, files, config, space, why)
        else:
            _take_trials(found, name, known, space)
    return found


def load_earlier_trials(tried: Sequence[Mapping[str, Any]]) -> list[Tried]:
    """Bring trials of earlier studies into a sampler's words.

    Args:
        tried: As :class:`Earlier` holds them.

    Returns:
        The trials, with numbers below 0.
    """
    return [
        Tried(number - len(tried), each["method"], each["point"], "complete", each["metrics"])
        for number, each in enumerate(tried)
    ]


def _open(directory: Path, name: str) -> StudyFiles:
    """Open a study by its name, or by the path of its folder."""
    path = Path(name)
    if "/" not in name:
        return StudyFiles.open(directory, name)
    if path.parent.name != "studies":
        raise InputError(f"warm-start: {name!r} is no study's folder, such as elsewhere/mlruns/studies/NAME")
    return StudyFiles.open(path.parent.parent, path.name)


def _take_trials(found: Earlier, name: str, known: Sequence[Outcome], space: Space) -> None:
    """Take over the trials of a study of the same network."""
    taken = 0
    reasons: set[str] = set()
    for outcome in known:
        point = {METHOD: outcome.method, **{f"{outcome.method}.{key}": value for key, value in outcome.point.items()}}
        try:
            space.check(point)
        except InputError as error:
            reasons.add(str(error))
            continue
        found.tried.append({"method": outcome.method, "point": outcome.point, "metrics": outcome.metrics})
        taken += 1
    left = len(known) - taken
    dropped = f"; {left} are left out, which are not of this space ({sorted(reasons)[0]})" if left else ""
    found.notes.append(f"warm start from {name!r}: the sampler knows its {taken} trials of the same network{dropped}")


def _take_points(found: Earlier, name: str, files: StudyFiles, config: StudyConfig, space: Space, why: str) -> None:
    """Try first, here, what was best in a study of something else."""
    points, dropped = gather_points(space, files.front().members, max(1, config.trials // 3), found.points)
    found.points.extend(points)
    tried = {0: "no point of its front is", 1: "1 point of its front is"}
    beside = f"; left out: {', '.join(sorted(dropped))}" if dropped else ""
    found.notes.append(
        f"warm start from {name!r}: {why}, so {tried.get(len(points), f'{len(points)} points of its front are')} tried "
        f"first, and its results are not taken over{beside}"
    )


def gather_points(
    space: Space, members: Sequence[Member], most: int, known: Sequence[Mapping[str, Value]]
) -> tuple[list[dict[str, Value]], set[str]]:
    """Bring what of a front can be tried in a space into it, evenly over its costs where that is much.

    Args:
        space: The whole space.
        members: The front.
        most: How many points are wanted at most.
        known: Points that are there already.

    Returns:
        The points, and what had to be left out of the front and of them, in words.
    """
    usable: list[tuple[dict[str, Value], set[str]]] = []
    dropped = set[str]()
    for member in sorted(members, key=lambda member: member.metrics.get("flops", 0.0)):
        point, left = adapt_point(space, member.method, member.point)
        if point is None:
            dropped |= left
        elif point not in [*known, *(each for each, _ in usable)]:
            usable.append((point, left))
    if len(usable) > most:
        usable = [usable[round(place * (len(usable) - 1) / max(most - 1, 1))] for place in range(most)]
    return [point for point, _ in usable], dropped.union(*(left for _, left in usable))


def adapt_point(space: Space, method: str, own: Mapping[str, Value]) -> tuple[dict[str, Value] | None, set[str]]:
    """Bring the point of another study into a space.

    Args:
        space: The whole space.
        method: The method of the point.
        own: Its parameters by the method's own names.

    Returns:
        The point, with the authors' values for what it does not say and numbers moved into their ranges, ``None`` if
        its method does not compete here; and what had to be left out, in words.
    """
    parameter = space[METHOD]
    assert isinstance(parameter, Categorical)
    if method not in parameter.choices:
        return None, {f"points of {method}, which does not compete here"}
    kept: dict[str, Value] = {}
    dropped = set()
    for name, value in own.items():
        full = f"{method}.{name}"
        if full not in space:
            dropped.add(name)
            continue
        moved = value
        target = space[full]
        if not isinstance(target, Categorical) and isinstance(value, int | float):
            moved = min(max(value, target.low), target.high)
        try:
            kept[name] = target.check(full, moved)
        except InputError:
            dropped.add(name)
            continue
        if moved != value:
            dropped.add(f"{name} = {value:g} (now {moved:g})" if isinstance(value, int | float) else name)
    return complete_point(space, method, kept, strict=False), dropped
