"""Points of the user's own, to be tried next."""

from __future__ import annotations

from collections.abc import Mapping

from search.driver.keeping import study_url
from search.driver.prepare import plan
from search.store.studies import StudyFiles
from search.study.cost import PointCosts
from search.study.limits import move_within_limits
from search.study.points import complete_point
from search.study.storage import Storage
from search.study.stored_studies import list_storage_studies
from spaces import InputError, Space, Value


def enqueue_point(files: StudyFiles, method: str, values: Mapping[str, object]) -> tuple[dict[str, Value], list[str]]:
    """Have a point tried before the sampler proposes further ones.

    Args:
        files: The study; its driver may be at work.
        method: The method.
        values: Parameters by the method's own names; what is left out gets the authors' value.

    Returns:
        The whole point, and what the user should know.

    Raises:
        InputError: If the point is none of the study's space, or cannot keep to its limits.
    """
    space = Space.from_json(files.record()["space"])
    point, notes = complete_point(space, method, values), []
    url = study_url(files.config())
    if files.name not in list_storage_studies(url):
        raise InputError(
            f"Optuna's database does not have study {files.name!r}; `paretoprune resume {files.name}` mends that"
        )
    config = files.config()
    if any(limit is not None for limit in (config.max_flops, config.min_flops, config.max_params)):
        planned = plan(config)
        costs = PointCosts(planned.problem, planned.round_to)
        (moved,) = move_within_limits([point], space, planned.limits, costs, costs.dense)
        if moved != point:
            notes.append("the point was outside the limits of the study, and was moved to the nearest one within")
        point = moved
    names = [objective.name for objective in files.objectives()]
    storage = Storage.load(url, files.name, names, files.record().get("id", ""))
    storage.enqueue(point)
    total, asked, waiting = files.total(), len(storage.trials()), storage.count_waiting()
    if asked + waiting > total:
        wait = f"{waiting} point{'s wait' if waiting > 1 else ' waits'}"
        notes.append(
            f"{wait} and {total - asked} of {total} trials are not begun: `paretoprune resume {files.name} --trials "
            f"{asked + waiting}` runs all of them"
        )
    return point, notes
