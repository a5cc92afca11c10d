"""The files of a study under ``mlruns/studies/NAME/``: what was asked for and what came out.

A trial's folder appears by one rename, complete, written where the trial ran. From that instant the trial
is finished, whatever happens to the driver. Reading needs neither torch nor optuna.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.records.errors import StoreWarning
from search.records.outcome import DenseRow, Outcome
from search.records.paths import resolve_path
from search.store.files import create_folder, file_lock, json_text, read_json, read_object, write_json
from spaces import InputError, explain_unknown_name

if TYPE_CHECKING:
    from torch import Tensor, nn

    from search.fronts.front import Front
    from search.objectives import Objective
    from search.study.config import StudyConfig
    from search.trials.trial import Finished


LEFTOVER_SECONDS = 3600.0
"""Age from which what is half written is no longer being written."""


IN_HAND = "in hand"
"""What the model and the data of a study are called that were handed in as objects."""


class StudyFiles:
    """The folder of one study.

    Args:
        directory: The run store (``mlruns``).
        name: Name of the study.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = resolve_path(directory)
        self.name = name
        self.root = self.directory / "studies" / name
        self.network: nn.Module | None = None

    @classmethod
    def open(cls, directory: Path | str, name: str | None = None) -> StudyFiles:
        """Open a study that exists.

        Args:
            directory: The run store.
            name: Name of the study; ``None`` for the one that was begun last.

        Returns:
            Its files.

        Raises:
            InputError: If there is no such study.
        """
        directory = Path(directory)
        names = study_names(directory)
        if not names:
            raise InputError(f"there is no study in {directory}/ yet; `paretoprune sweep` makes one")
        if name is None:
            return cls(directory, names[-1])
        if name not in names:
            raise InputError(explain_unknown_name("study", name, names))
        return cls(directory, name)

    def create(self, record: Mapping[str, Any]) -> None:
        """Make the folder of a new study.

        Args:
            record: What ``study.json`` holds: resolved configuration, dense row, search space, versions. The time
                of creation is added.

        Raises:
            InputError: If a study of that name exists.
            OSError: If the folder cannot be written.
        """
        try:
            with create_folder(self.root) as fresh:
                (fresh / "trials").mkdir()
                text = json_text({**record, "created": time.time()})
                (fresh / "study.json").write_text(text, encoding="utf-8")
        except OSError as error:
            if not self.root.exists():
                raise
            raise InputError(
                f"study {self.name!r} exists; continue it with `paretoprune resume {self.name}` or choose another "
                "--name"
            ) from error

    def discard(self) -> None:
        """Remove the folder of a study that could not be begun."""
        shutil.rmtree(self.root)

    def record(self) -> dict[str, Any]:
        """Read ``study.json``.

        Returns:
            The record that :meth:`create` was given.
        """
        return read_object(self.root / "study.json")

    def config(self) -> StudyConfig:
        """Read the resolved configuration, with the directory it was opened from.

        Returns:
            The configuration.
        """
        from search.study.config import StudyConfig

        places = _note(self.root / "places.json")
        return StudyConfig.model_validate(self.record()["config"] | places | self._here())

    def _here(self) -> dict[str, Any]:
        return {"directory": self.directory, "name": self.name}  # a study may have been moved or renamed

    def write_places(self, places: Mapping[str, Any]) -> None:
        """Keep where the study runs now, which may not be where it was begun.

        Args:
            places: As :func:`search.study.config.places` returns them.
        """
        write_json(self.root / "places.json", places)

    def dense(self) -> DenseRow:
        """Read what the dense network reaches and costs.

        Returns:
            The row.
        """
        return replace(DenseRow.from_json(self.record()["dense"]), test_metrics=self.read_tested().get("dense", {}))

    # Trials

    def folder(self, number: int) -> Path:
        """Name the folder of a trial.

        Args:
            number: Number of the trial.

        Returns:
            The path; it exists when the trial is finished.
        """
        return self.root / "trials" / f"{number:04d}"

    def write(self, finished: Finished) -> None:
        """Write a finished trial, all at once.

        Args:
            finished: Outcome, architecture and weights.

        Raises:
            OSError: If the folder cannot be written.
        """
        target = self.folder(finished.outcome.number)
        try:
            with create_folder(target) as fresh:
                (fresh / "outcome.json").write_text(json_text(finished.outcome.to_json()), encoding="utf-8")
                if finished.architecture is not None:
                    from search.store.weights import save_weights

                    (fresh / "architecture.json").write_text(json_text(finished.architecture), encoding="utf-8")
                    save_weights(finished.weights, fresh / "weights.safetensors")
                    kept = {group: list(units) for group, units in finished.kept.items()}
                    (fresh / "kept.json").write_text(json.dumps(kept) + "\n", encoding="utf-8")
        except OSError:
            if not (target / "outcome.json").exists():
                raise
            # A worker that was thought lost has been faster: the first result stays, both are of one seed.

    def write_paused(self, outcome: Outcome) -> None:
        """Write where a trial waits at a rung.

        Args:
            outcome: The trial so far.
        """
        path = self._get_paused_path(outcome.number)
        path.parent.mkdir(exist_ok=True)
        write_json(path, outcome.to_json())

    def read_paused(self, number: int) -> Outcome | None:
        """Read where a trial waits, or waited last.

        Args:
            number: Its number.

        Returns:
            The trial so far; ``None`` if it was never paused, or that cannot be read: it then pauses again.
        """
        path = self._get_paused_path(number)
        if not path.exists():
            return None
        try:
            return Outcome.from_json(read_object(path))
        except (InputError, ValueError, TypeError, KeyError, AttributeError) as error:
            warnings.warn(
                f"{_explain_damage(path, error)}; trial {number} goes back to its rung", StoreWarning, stacklevel=2
            )
            return None

    def list_paused(self) -> list[int]:
        """List the trials that wait at a rung.

        Returns:
            Their numbers, ascending.
        """
        found = (path.stem for path in (self.root / "paused").glob("[0-9]*.json"))
        return sorted({int(name) for name in found if re.fullmatch(r"[0-9]{4,9}", name)} - set(self.numbers()))

    def remove_paused(self, number: int) -> None:
        """Remove the note of a rung: the trial is over.

        Args:
            number: Its number.
        """
        self._get_paused_path(number).unlink(missing_ok=True)

    def _get_paused_path(self, number: int) -> Path:
        return self.root / "paused" / f"{number:04d}.json"

    def outcome(self, number: int) -> Outcome:
        """Read one finished trial.

        Args:
            number: Its number.

        Returns:
            The outcome.

        Raises:
            InputError: If no such trial is finished.
        """
        if not (self.folder(number) / "outcome.json").exists():
            finished = self.numbers()
            listed = f"{finished[0]}..{finished[-1]}" if finished else "none"
            raise InputError(f"trial {number} of study {self.name!r} is not finished (finished: {listed})")
        return replace(self._read(number), test_metrics=self.read_tested().get(str(number), {}))

    def numbers(self) -> list[int]:
        """List the finished trials, readable or not.

        Returns:
            Their numbers, ascending; folders with any other name are passed over.
        """
        found = (path.parent.name for path in (self.root / "trials").glob("[0-9]*/outcome.json"))
        return sorted(int(name) for name in found if re.fullmatch(r"[0-9]{4,9}", name))

    def outcomes(self) -> list[Outcome]:
        """Read all finished trials; one that is damaged is passed over with a :class:`StoreWarning`.

        Returns:
            The outcomes in order of number.
        """
        tested = self.read_tested()
        outcomes = []
        for number in self.numbers():
            try:
                outcomes.append(replace(self._read(number), test_metrics=tested.get(str(number), {})))
            except InputError as error:
                warnings.warn(str(error), StoreWarning, stacklevel=2)
        return outcomes

    def find_damaged(self) -> dict[int, str]:
        """Look for finished trials that cannot be used.

        Returns:
            What is wrong, and the cure, by number: an outcome that cannot be read, or weights that are cut short.
        """
        found = {}
        for number in self.numbers():
            try:
                if self._read(number).state == "complete":
                    self._check_weights(number)
            except InputError as error:
                found[number] = str(error)
        return found

    def set_aside_damaged(self) -> list[str]:
        """Move finished trials that cannot be used out of the way, so that they run again; for the driver.

        Returns:
            A line for each.
        """
        lines = []
        for number, reason in self.find_damaged().items():
            aside = self.root / "damaged" / f"{number:04d}-{time.strftime('%Y%m%d-%H%M%S')}"
            aside.parent.mkdir(exist_ok=True)
            self.folder(number).rename(aside)
            lines.append(f"trial {number} runs again: {reason.partition(';')[0]}; its folder is now {aside}")
        return lines

    def remove_leftovers(self) -> None:
        """Remove what killed workers and drivers have left half written; for the driver that holds the lock."""
        for path in (self.root / "trials").glob(".*"):
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:  # a worker of another driver may be writing
                shutil.rmtree(path, ignore_errors=True)
        if not any(_is_locked(path) for path in (self.root / "drivers").glob("*.lock")):
            for path in self.root.glob("tune-*"):
                shutil.rmtree(path, ignore_errors=True)
            for path in self.root.glob("shared-*.json"):
                path.unlink(missing_ok=True)

    def _read(self, number: int) -> Outcome:
        """Read the outcome of a trial whose folder is there."""
        path = self.folder(number) / "outcome.json"
        try:
            outcome = Outcome.from_json(read_object(path))
            if outcome.number != number:
                raise ValueError(f"it is the outcome of trial {outcome.number}")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{_explain_damage(path, error)}; {self._cure(number)}") from error
        return outcome

    def _check_weights(self, number: int) -> None:
        from search.store.weights import check_weights

        path = self.folder(number) / "weights.safetensors"
        try:
            check_weights(path)
        except InputError as error:
            raise InputError(f"{error}; {self._cure(number)}") from error

    def _cure(self, number: int) -> str:
        return f"remove the folder {self.folder(number)}, and `paretoprune resume {self.name}` runs the trial again"

    def weights(self, number: int) -> dict[str, Tensor]:
        """Read the weights of a finished trial.

        Args:
            number: Its number.

        Returns:
            The state dictionary.

        Raises:
            InputError: If the file cannot be read.
        """
        from search.store.weights import load_weights

        try:
            return load_weights(self.folder(number) / "weights.safetensors")
        except InputError as error:
            raise InputError(f"{error}; {self._cure(number)}") from error

    def read_kept(self, number: int) -> dict[str, list[int]]:
        """Read which channel units of the dense network a finished trial kept.

        Args:
            number: Its number.

        Returns:
            Indices of the kept units, ascending, by name of group.

        Raises:
            InputError: If the trial is not finished or failed, or was written before this was stored.
        """
        path = self.folder(number) / "kept.json"
        if not path.exists():
            failed = not self.outcome(number).complete
            why = "failed: it has no network" if failed else "was written by an earlier version: its channels are lost"
            raise InputError(f"trial {number} of study {self.name!r} {why}")
        kept: dict[str, list[int]] = read_json(path)
        return kept

    def rebuild(self, number: int) -> nn.Module:
        """Rebuild the pruned network of a finished trial.

        Args:
            number: Its number.

        Returns:
            The network in eval mode, on the CPU.

        Raises:
            InputError: If the trial is not finished or failed.
        """
        from methods.contract.inputs import zeros
        from methods.network.architecture import rebuild
        from search.tasks.models import build_model

        if not self.outcome(number).complete:
            raise InputError(f"trial {number} of study {self.name!r} failed: it has no network")
        config, task = self.config(), self.record()["task"]
        example = zeros(task["example_shape"], task.get("example_dtypes"))
        if self.network is None and config.model.startswith(IN_HAND):
            raise InputError(
                f"study {self.name!r} was made from a network in hand; hand it in: load_front({self.name!r}, "
                "network=model)"
            )
        dense = self.network or build_model(config.model, task["classes"], example, config.seed, check_outputs=False)
        architecture = read_json(self.folder(number) / "architecture.json")
        return rebuild(dense, architecture, self.weights(number), self.layers_of(number, architecture))

    def layers_of(self, number: int, architecture: Mapping[str, Any]) -> tuple[type[nn.Module], ...]:
        """Return the layer classes that it takes to rebuild a network of a trial.

        Args:
            number: Number of the trial.
            architecture: Description of the network.

        Returns:
            What the trial's method declares; nothing where the network holds layers of torch alone, so that it is
            rebuilt without its method.
        """
        from methods import load_method
        from methods.network.architecture import needs_layers

        return load_method(self.outcome(number).method).layers if needs_layers(architecture) else ()

    # The front

    def _compute_latency_limit(self) -> float | None:
        """Most seconds of one pass that the study allows; ``None`` without a limit, or where nothing is timed."""
        from search.objectives.limits import parse_latency

        limit, dense = self.config().max_latency, self.dense().latency
        return None if limit is None or dense is None else parse_latency(limit, dense, "max-latency")

    def objectives(self) -> tuple[Objective, ...]:
        """Read what the study searches for.

        Returns:
            The objectives as they were when the study was begun: the module of a user's own is not needed.
        """
        from search.objectives import Objective, load_objectives

        stored = self.record().get("objectives")
        if stored is None:  # a study of an earlier version knows the names of ours alone
            return load_objectives(self.config().objectives)
        return tuple(Objective.from_json(each) for each in stored)

    def metrics(self) -> tuple[Objective, ...]:
        """Read the descriptions of the metrics of the study's task.

        Returns:
            The metrics as objectives; none for a study of an earlier version, whose task is a classification.
        """
        from search.objectives import Objective

        return tuple(Objective.from_json(each) for each in self.record().get("metrics", ()))

    def front(self) -> Front:
        """Read the front of what is finished so far.

        Returns:
            The front, over all complete trials.
        """
        from search.fronts.front import Front
        from search.objectives.limits import parse_drop
        from search.report.views import ReportViews

        objectives = self.objectives()
        names = [objective.name for objective in objectives]
        # A network that could not be timed is kept, but has no place on a front with latency.
        measured = [each for each in self.outcomes() if each.state == "complete" and not each.list_missing(names)]
        slowest = self._compute_latency_limit()
        if slowest is not None:  # nor has one that is slower than the study allows
            measured = [each for each in measured if each.metrics.get("latency", slowest) <= slowest]
        return Front(
            study=self.name,
            dense=self.dense(),
            outcomes=measured,
            objectives=objectives,
            rebuild=self.rebuild,
            metrics=self.metrics(),
            worthless=parse_drop(self.config().max_drop),
            views=ReportViews(),
        )

    def read_tested(self) -> dict[str, dict[str, float]]:
        """Read the metrics on the test set.

        Returns:
            Metrics of the task by trial number (as text), and under ``"dense"``; only networks that were on a
            finished front. A study of an earlier version has accuracies alone.
        """
        found = _note(self.root / "test.json")
        return {key: value if isinstance(value, dict) else {"accuracy": value} for key, value in found.items()}

    def write_tested(self, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Keep metrics on the test set.

        Args:
            metrics: As :meth:`read_tested` returns them.
        """
        write_json(self.root / "test.json", metrics)

    def read_tracked(self) -> dict[str, str]:
        """Read which MLflow runs mirror the study.

        Returns:
            Id of the parent run by address of the MLflow store.
        """
        return _note(self.root / "mlflow.json")

    def write_tracked(self, runs: Mapping[str, str]) -> None:
        """Keep which MLflow runs mirror the study.

        Args:
            runs: As :meth:`read_tracked` returns them.
        """
        write_json(self.root / "mlflow.json", runs)

    # The driver

    def lock(self) -> AbstractContextManager[object]:
        """Claim the study for this process until the context ends; a killed process lets go by itself.

        Returns:
            A context manager.

        Raises:
            InputError: If another driver is at work on the study.
        """
        import filelock

        try:
            # A moment's patience: whoever looks whether a driver is at work holds a shared lock for an instant.
            return file_lock(self.root / "driver.lock", timeout=0.5).acquire(poll_interval=0.02)
        except filelock.Timeout as error:
            raise InputError(
                f"study {self.name!r} is being run by another process; `paretoprune status {self.name}` shows it"
            ) from error

    @contextmanager
    def join(self) -> Generator[None]:
        """Show, until the context ends, that this process works on the study beside the driver that holds the lock.

        Yields:
            Nothing; runs the block.
        """
        folder = self.root / "drivers"
        folder.mkdir(exist_ok=True)
        for old in folder.glob("*.lock"):  # of processes that were killed
            if not _is_locked(old):
                old.unlink(missing_ok=True)
        path = folder / f"{uuid.uuid4().hex}.lock"
        try:
            with file_lock(path):
                yield
        finally:
            path.unlink(missing_ok=True)

    def is_locked(self) -> bool:
        """Tell whether some process holds the lock of the study; nothing is written, nor a driver kept away.

        Returns:
            Whether one does: the only driver, or of several the one that also tests, draws and mirrors.
        """
        return _is_locked(self.root / "driver.lock")

    def is_driven(self) -> bool:
        """Tell whether a driver is at work on the study now; nothing is written, nor a driver kept away.

        Returns:
            True while some process does.
        """
        return self.is_locked() or any(_is_locked(path) for path in (self.root / "drivers").glob("*.lock"))

    def write_running(self, numbers: Sequence[int], total: int) -> None:
        """Note which trials are with workers now.

        Args:
            numbers: Their numbers.
            total: How many trials the study shall have.
        """
        write_json(self.root / "driver.json", {"running": sorted(numbers), "total": total})

    def write_finished(self) -> None:
        """Note that the front of all trials so far is tested, drawn, exported and mirrored."""
        write_json(self.root / "finished.json", {"trials": self.numbers()})

    def is_finished(self) -> bool:
        """Tell whether nothing is left to do for the trials that there are.

        Returns:
            Whether :meth:`write_finished` was called since the last of them ended.
        """
        return bool(_note(self.root / "finished.json").get("trials") == self.numbers())

    def total(self) -> int:
        """Read how many trials the study shall have.

        Returns:
            What the last driver was told, else what the configuration says.
        """
        return int(self._driver_note().get("total", self.config().trials))

    def _driver_note(self) -> dict[str, Any]:
        return _note(self.root / "driver.json")

    def status(self) -> dict[str, Any]:
        """Sum up the study.

        Returns:
            ``study``, ``states`` (``complete``, ``failed``, ``running``, ``waiting``, and, where there are any,
            ``stopped`` and ``paused`` at a rung), ``total``, ``driver`` (whether one is at work) and ``running``
            (numbers). A trial whose driver died is waiting.
        """
        outcomes = self.outcomes()
        noted: dict[str, Any] = {"running": [], "total": self.config().trials}
        noted |= self._driver_note()
        driven = self.is_driven()
        finished = {outcome.number for outcome in outcomes}
        running = sorted(set(noted["running"]) - finished) if driven else []
        complete = sum(outcome.state == "complete" for outcome in outcomes)
        stopped = sum(outcome.state == "stopped" for outcome in outcomes)
        paused = len(set(self.list_paused()) - set(running))
        return {
            "study": self.name,
            "states": {
                "complete": complete,
                "failed": len(outcomes) - complete - stopped,
                "running": len(running),
                "waiting": max(0, noted["total"] - len(outcomes) - len(running) - paused),
                **({"stopped": stopped} if stopped else {}),
                **({"paused": paused} if paused else {}),
            },
            "total": noted["total"],
            "driver": driven,
            "running": running,
        }


def _is_locked(path: Path) -> bool:
    """Look whether another process holds the lock of a file."""
    import fcntl

    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)  # lets go of the lock, too
    return False


def study_names(directory: Path) -> list[str]:
    """List the studies in a run store.

    Args:
        directory: The run store.

    Returns:
        Names, oldest first.
    """
    found = (resolve_path(directory) / "studies").glob("[!.]*/study.json")
    return [path.parent.name for path in sorted(found, key=lambda path: (_read_creation_time(path), path))]


def _read_creation_time(path: Path) -> float:
    """When a study was made, as it is written in its record; copies and looks do not change that."""
    try:
        created = read_object(path).get("created")
    except (InputError, OSError):
        created = None
    # Studies of earlier versions have no such record.
    return float(created) if isinstance(created, int | float) else path.stat().st_mtime


def load_front(name: str | None = None, directory: Path | str = "mlruns", network: nn.Module | None = None) -> Front:
    """Read the front of a study.

    Args:
        name: Name of the study; ``None`` for the one that was begun last.
        directory: The run store.
        network: The dense network, where the study was made from one in hand; its weights do not matter.

    Returns:
        The front of what is finished so far.
    """
    files = StudyFiles.open(directory, name)
    files.network = network
    return files.front()


def _note(path: Path) -> dict[str, Any]:
    """Read a file that can be made again; where it is damaged, warn and do as if it were not there."""
    if not path.exists():
        return {}
    try:
        return read_object(path)
    except InputError as error:
        warnings.warn(f"{error}; it is passed over, and written again by the next `resume`", StoreWarning, stacklevel=3)
        return {}


def _explain_damage(path: Path, error: Exception) -> str:
    """Name a damaged file and what is wrong with it."""
    text = str(error)
    if text.startswith(str(path)):
        return text
    return f"{path} is damaged: {f'it lacks {text}' if isinstance(error, KeyError) else text or 'no outcome'}"
