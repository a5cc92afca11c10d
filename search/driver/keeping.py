"""What is done to whole studies: renamed, deleted, checked, single trials given up."""

from __future__ import annotations

from pathlib import Path

from search.records.paths import resolve_path
from search.records.text import remove_credentials
from search.store.databases import is_sound, sqlite_url
from search.store.files import remove_folder
from search.store.studies import StudyFiles, study_names
from search.study.config import StudyConfig, check_name
from search.study.opening import database_file
from search.study.stored_studies import (
    delete_study,
    is_damaged,
    list_storage_studies,
    read_trials,
    rename_study,
)
from spaces import InputError, explain_unknown_name


def storage_url(directory: Path) -> str:
    """Name the Optuna storage of a run store.

    Args:
        directory: The run store.

    Returns:
        An URL that ``optuna.load_study`` accepts.
    """
    return sqlite_url(resolve_path(directory) / "optuna.db")


def study_url(config: StudyConfig) -> str:
    """Name the Optuna storage of a study.

    Args:
        config: Its configuration.

    Returns:
        The storage that was named, else that of the run store.
    """
    return config.study_storage or storage_url(config.directory)


def delete(directory: Path, name: str, study_storage: str | None = None) -> list[str]:
    """Remove a study: its folder and its trials in Optuna's storage.

    Args:
        directory: The run store.
        name: Name of the study.
        study_storage: Its Optuna storage, where that is neither the run store's nor known to the study.

    Returns:
        What was removed, in words. MLflow's runs stay.

    Raises:
        InputError: If there is no such study, or a driver is at work on it.
    """
    removed = []
    known = StudyFiles(directory, name).config().study_storage if name in study_names(directory) else None
    url = study_storage or known or storage_url(directory)
    in_optuna = not is_damaged(url) and name in list_storage_studies(url)
    if name in study_names(directory):
        files = StudyFiles(directory, name)
        _require_idle(files)
        remove_folder(files.root)
        removed.append(str(files.root))
    elif not in_optuna:
        raise InputError(explain_unknown_name("study", name, study_names(directory)))
    if in_optuna:
        delete_study(url, name)
        removed.append(f"its trials in {database_file(url) or remove_credentials(url)}")
    return removed


def rename(directory: Path, old: str, new: str) -> None:
    """Give a study another name.

    Args:
        directory: The run store.
        old: Its name.
        new: The other name.

    Raises:
        InputError: If the name is taken or not allowed, or a driver is at work on the study.
    """
    files = StudyFiles.open(directory, old)
    url = study_url(files.config())
    _require_idle(files)
    target = files.root.with_name(check_name(new))
    in_optuna = [] if is_damaged(url) else list_storage_studies(url)
    if target.exists() or new in in_optuna:
        raise InputError(f"study {new!r} exists; choose another name")
    # Folder last: it decides. A copy in Optuna's storage without a folder can be deleted by its name.
    if old in in_optuna and (taken := read_trials(url, old)).identity in (None, files.record().get("id")):
        rename_study(url, old, new)
        del taken
    files.root.rename(target)


def check(files: StudyFiles) -> list[str]:
    """Look whether a study is whole; nothing is written.

    Args:
        files: The study.

    Returns:
        What is wrong, each with its cure; nothing if all is well.
    """
    problems = list(files.find_damaged().values())
    url = study_url(files.config())
    path = database_file(url)
    where = path or remove_credentials(url)
    cure = f"`paretoprune resume {files.name}` mends it"
    if path is not None and not path.exists():
        return [*problems, f"Optuna's database {where} is gone; {cure} from the files"]
    if path is not None and not is_sound(path, ("studies", "trials")):
        return [*problems, f"Optuna's database {where} is damaged; {cure} from the files"]
    if files.name not in list_storage_studies(url):
        return [*problems, f"Optuna's database {where} does not have the study; {cure} from the files"]
    trials = read_trials(url, files.name)
    finished = set(files.numbers())
    problems += [
        f"trial {number} was finished, but its folder is gone; {cure}" for number in sorted(trials.ended - finished)
    ]
    if unknown := sorted(finished - trials.asked):
        problems.append(f"trials {', '.join(map(str, unknown))} are not in Optuna's database; {cure}")
    if trials.foreign:
        problems.append(
            f"{trials.foreign} trials in Optuna's database were not run by this study; they are not counted"
        )
    return problems


def give_up(files: StudyFiles, number: int) -> None:
    """Remove what came of a trial, so that it runs again.

    Args:
        files: The study.
        number: Number of the trial.

    Raises:
        InputError: If the trial is not finished, or a driver is at work on the study.
    """
    _require_idle(files)
    if number not in files.numbers():
        raise InputError(f"trial {number} of study {files.name!r} is not finished; `paretoprune resume` runs it")
    remove_folder(files.folder(number))
    files.write_tested({key: value for key, value in files.read_tested().items() if key != str(number)})


def _require_idle(files: StudyFiles) -> None:
    if files.is_driven():
        raise InputError(f"study {files.name!r} is being run by another process; stop that first")
