"""Whole studies in Optuna's storage: which there are, what is known of each, and databases that are damaged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import optuna

from search.store.databases import is_sound, lock_database, set_aside
from search.study.opening import database_file, open_storage
from search.study.storage import IDENTITY, TABLES, Storage


def list_storage_studies(url: str) -> list[str]:
    """List the studies in an Optuna storage.

    Args:
        url: Optuna storage URL.

    Returns:
        Their names; none if there is no such storage yet.
    """
    path = database_file(url)
    if path is not None and not path.exists():
        return []  # asking Optuna would make the file
    return list(optuna.get_all_study_names(open_storage(url)))


def delete_study(url: str, name: str) -> None:
    """Remove a study and its trials.

    Args:
        url: Optuna storage URL.
        name: Name of the study; one that is not there is no error.
    """
    if name in list_storage_studies(url):
        optuna.delete_study(study_name=name, storage=open_storage(url))


def rename_study(url: str, old: str, new: str) -> None:
    """Give a study and its trials another name.

    Args:
        url: Optuna storage URL.
        old: Its name.
        new: The other name; it is free.
    """
    storage = open_storage(url)
    optuna.copy_study(from_study_name=old, from_storage=storage, to_storage=storage, to_study_name=new)
    optuna.delete_study(study_name=old, storage=storage)


@dataclass(frozen=True)
class TrialsSeen:
    """What Optuna's storage knows of a study.

    Attributes:
        identity: The study's identity; ``None`` for one of an earlier version.
        asked: Numbers of our trials.
        ended: Those that were told.
        foreign: How many trials others have added and run.
    """

    identity: str | None
    asked: frozenset[int]
    ended: frozenset[int]
    foreign: int


def read_trials(url: str, name: str) -> TrialsSeen:
    """Look which trials a study has; nothing is written.

    Args:
        url: Optuna storage URL.
        name: Name of the study, which is there.

    Returns:
        What was seen.
    """
    study = optuna.load_study(storage=open_storage(url), study_name=name)
    kept = Storage(study)
    trials = kept.trials()
    ended = frozenset(number for number, trial in trials.items() if trial.state.is_finished())
    return TrialsSeen(study.user_attrs.get(IDENTITY), frozenset(trials), ended, len(kept.list_foreign()))


def is_damaged(url: str) -> bool:
    """Look whether an SQLite database cannot be read.

    Args:
        url: Optuna storage URL; a database on a server is not looked at.

    Returns:
        Whether it is there and damaged.
    """
    path = database_file(url)
    return path is not None and path.exists() and not is_sound(path, TABLES)


def set_aside_damaged(url: str) -> Path | None:
    """Move an SQLite database that is damaged out of the way.

    Args:
        url: Optuna storage URL; a database on a server is not looked at.

    Returns:
        Where the damaged one is now; ``None`` if there was none.
    """
    path = database_file(url)
    if path is None or not path.exists():
        return None
    with lock_database(path):
        return None if is_sound(path, TABLES) else set_aside(path)
