"""Making and opening a study: its name, its folder, and its study in Optuna's storage."""

from __future__ import annotations

import re
import time
import uuid

from search.driver.doctor import describe_findings
from search.driver.keeping import study_url
from search.driver.plan import Plan
from search.objectives import load_objectives, task_objectives
from search.records.environment import versions
from search.records.outcome import DenseRow
from search.records.text import remove_credentials
from search.store.studies import StudyFiles, study_names
from search.study.config import StudyConfig, places
from search.study.opening import is_shared
from search.study.schedule import lag_for
from search.study.stored_studies import is_damaged, list_storage_studies
from search.study.study import Study
from search.tasks.identity import study_identity
from spaces import InputError, Space

JOINED_WITHIN = 60.0
"""Seconds within which the driver that leads has made the study that another one joins."""


def create_study_files(planned: Plan, dense: DenseRow, slots: int) -> StudyFiles:
    """Make the study's folder; it holds all that the Optuna study is made from.

    Args:
        planned: What the study is to do.
        dense: The dense network.
        slots: How many trials run at a time.

    Returns:
        The files of the new study.

    Raises:
        InputError: If another process has just taken the name that was asked for.
    """
    config = planned.config
    record = {
        "id": uuid.uuid4().hex,
        "dense": dense.to_json(),
        "objectives": [objective.to_json() for objective in load_objectives(config.objectives, planned.workload.task)],
        "metrics": [
            objective.to_json() for objective in task_objectives(planned.workload.task).values() if objective.trained
        ],
        "identity": study_identity(planned.workload),
        "task": planned.workload.identity(),
        "space": planned.space.to_json(),
        "first": planned.first,
        "earlier": planned.earlier,
        "lag": lag_for(slots),
        "recipe": planned.recipe.model_dump(mode="json"),
        "steps": planned.steps,
        "diagnosis": describe_findings(planned.findings),
        "versions": versions(),
    }
    while True:
        name = config.name or _choose_free_name(config, planned.workload.data.name)
        files = StudyFiles(config.directory, name)
        named = config.model_copy(update={"name": name})
        try:
            files.create({
                "config": named.model_dump(mode="json") | places(config),
                **record,
            })
        except InputError:
            if config.name is not None:
                raise
            continue  # another unnamed sweep has just taken the number
        return files


def open_study(files: StudyFiles, url: str, leads: bool) -> Study:
    """Open the Optuna study of a folder; the driver that leads makes it if it is not there, or not there any more.

    Args:
        files: The study's files.
        url: Optuna storage URL.
        leads: Whether this driver leads; another one waits for the study.

    Returns:
        The study.

    Raises:
        InputError: If this driver waits, and the one that leads uses another storage.
    """
    config, record = files.config(), files.record()
    until = time.monotonic() + JOINED_WITHIN
    while (missing := files.name not in list_storage_studies(url)) and not leads:
        if time.monotonic() > until:
            raise InputError(
                f"study {files.name!r} is being run by another process, but not over {remove_credentials(url)}; give "
                "the --study-storage that the other one was given"
            )
        time.sleep(1.0)
    return Study.open(
        url,
        files.name,
        Space.from_json(record["space"]),
        files.objectives(),
        config.seed,
        config.sampler,
        config.trials,
        record.get("first", ()),
        record.get("id", ""),
        new=missing,
    )


def refuse_taken_name(config: StudyConfig, name: str) -> None:
    """Refuse the name of a study that exists, before anything is trained.

    Args:
        config: The configuration of the new study.
        name: Its name.

    Raises:
        InputError: If the run store or Optuna's storage has a study of that name.
    """
    url = study_url(config)
    if name in study_names(config.directory):
        how = "continue or join" if is_shared(url) else "continue"
        raise InputError(f"study {name!r} exists; {how} it with `paretoprune resume {name}` or choose another --name")
    if not is_damaged(url) and name in list_storage_studies(url):
        where = f"storage {remove_credentials(url)}" if is_shared(url) else f"database in {config.directory}"
        more = " --study-storage URL" if is_shared(url) else ""
        raise InputError(
            f"Optuna's {where} still has a study {name!r}, whose folder is gone; remove it with "
            f"`paretoprune delete {name}{more}`, or choose another --name"
        )


def _choose_free_name(config: StudyConfig, data: str) -> str:
    """Number a study after its data and model."""
    model = config.model.rpartition(":")[2]
    both = model if model.startswith(data) else f"{data}-{model}"  # digits_resnet says it already
    stem = re.sub(r"[^A-Za-z0-9]+", "-", both).strip("-")[:60]
    folders = (path.name for path in (config.directory / "studies").glob("*"))  # also such as are no studies
    taken = {*folders, *list_storage_studies(study_url(config))}
    return next(name for n in range(1, len(taken) + 2) if (name := f"{stem}-{n:03d}") not in taken)
