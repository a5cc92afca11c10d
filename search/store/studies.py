"""The files of a study under ``mlruns/studies/NAME/``: what was asked for and what came out.

A trial's folder appears by one rename, complete, written by whoever ran the trial. From that instant the trial
is finished, whatever happens to the driver. Reading needs neither torch nor optuna.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.records.outcome import DenseRow, Outcome
from spaces import InputError, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

    from search.fronts.front import Front
    from search.study.config import StudyConfig
    from search.trials.trial import Finished


class StudyFiles:
    """The folder of one study.

    Args:
        directory: The run store (``mlruns``).
        name: Name of the study.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory.resolve()
        self.name = name
        self.root = self.directory / "studies" / name

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
            raise InputError(unknown("study", name, names))
        return cls(directory, name)

    def create(self, record: Mapping[str, Any]) -> None:
        """Make the folder of a new study.

        Args:
            record: What ``study.json`` holds: resolved configuration, dense row, search space, versions.

        Raises:
            InputError: If a study of that name exists.
        """
        self.root.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.root.with_name(f".{self.name}.{os.getpid()}")
        shutil.rmtree(fresh, ignore_errors=True)
        (fresh / "trials").mkdir(parents=True)
        write_json(fresh / "study.json", record)
        try:
            fresh.rename(self.root)
        except OSError as error:
            shutil.rmtree(fresh)
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
        record: dict[str, Any] = read_json(self.root / "study.json")
        return record

    def config(self) -> StudyConfig:
        """Read the resolved configuration, with the directory it was opened from.

        Returns:
            The configuration.
        """
        from search.study.config import StudyConfig

        return StudyConfig.model_validate(self.record()["config"]).model_copy(update={"directory": self.directory})

    def dense(self) -> DenseRow:
        """Read what the dense network reaches and costs.

        Returns:
            The row.
        """
        return replace(DenseRow.from_json(self.record()["dense"]), test_accuracy=self.tested().get("dense"))

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
        """
        target = self.folder(finished.outcome.number)
        fresh = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        write_json(fresh / "outcome.json", finished.outcome.to_json())
        if finished.architecture is not None:
            from search.store.weights import save_weights

            write_json(fresh / "architecture.json", finished.architecture)
            save_weights(finished.weights, fresh / "weights.safetensors")
            kept = {group: list(units) for group, units in finished.kept.items()}
            (fresh / "kept.json").write_text(json.dumps(kept) + "\n", encoding="utf-8")
        fresh.rename(target)

    def outcome(self, number: int) -> Outcome:
        """Read one finished trial.

        Args:
            number: Its number.

        Returns:
            The outcome.

        Raises:
            InputError: If no such trial is finished.
        """
        path = self.folder(number) / "outcome.json"
        if not path.exists():
            finished = self.numbers()
            listed = f"{finished[0]}..{finished[-1]}" if finished else "none"
            raise InputError(f"trial {number} of study {self.name!r} is not finished (finished: {listed})")
        outcome = Outcome.from_json(read_json(path))
        return replace(outcome, test_accuracy=self.tested().get(str(number)))

    def numbers(self) -> list[int]:
        """List the finished trials.

        Returns:
            Their numbers, ascending.
        """
        found = (path.parent.name for path in (self.root / "trials").glob("[0-9]*/outcome.json"))
        return sorted(int(name) for name in found)

    def outcomes(self) -> list[Outcome]:
        """Read all finished trials.

        Returns:
            The outcomes in order of number.
        """
        tested = self.tested()
        outcomes = (Outcome.from_json(read_json(self.folder(n) / "outcome.json")) for n in self.numbers())
        return [replace(outcome, test_accuracy=tested.get(str(outcome.number))) for outcome in outcomes]

    def weights(self, number: int) -> dict[str, Tensor]:
        """Read the weights of a finished trial.

        Args:
            number: Its number.

        Returns:
            The state dictionary.
        """
        from search.store.weights import load_weights

        return load_weights(self.folder(number) / "weights.safetensors")

    def kept(self, number: int) -> dict[str, list[int]]:
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
            failed = self.outcome(number).state == "failed"
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
        from methods.network.architecture import rebuild
        from search.tasks.models import build_model

        if self.outcome(number).state == "failed":
            raise InputError(f"trial {number} of study {self.name!r} failed: it has no network")
        config, task = self.config(), self.record()["task"]
        dense = build_model(config.model, task["classes"], tuple(task["example_shape"]), seed=config.seed)
        return rebuild(dense, read_json(self.folder(number) / "architecture.json"), self.weights(number))

    # The front

    def front(self) -> Front:
        """Read the front of what is finished so far.

        Returns:
            The front, over all complete trials.
        """
        from search.fronts.front import Front
        from search.objectives import load_objectives

        names = self.config().objectives
        # A network that could not be timed is kept, but has no place on a front with latency.
        measured = [each for each in self.outcomes() if each.state == "complete" and not each.lacks(names)]
        return Front(
            study=self.name,
            dense=self.dense(),
            outcomes=measured,
            objectives=load_objectives(names),
            rebuild=self.rebuild,
        )

    def tested(self) -> dict[str, float]:
        """Read the accuracies on the test set.

        Returns:
            Accuracy in 0..1 by trial number (as text), and under ``"dense"``; only networks that were on a
            finished front.
        """
        path = self.root / "test.json"
        return read_json(path) if path.exists() else {}

    def write_tested(self, accuracies: Mapping[str, float]) -> None:
        """Keep accuracies on the test set.

        Args:
            accuracies: As :meth:`tested` returns them.
        """
        write_json(self.root / "test.json", accuracies)

    def tracked(self) -> dict[str, str]:
        """Read which MLflow runs mirror the study.

        Returns:
            Id of the parent run by address of the MLflow store.
        """
        path = self.root / "mlflow.json"
        return read_json(path) if path.exists() else {}

    def write_tracked(self, runs: Mapping[str, str]) -> None:
        """Keep which MLflow runs mirror the study.

        Args:
            runs: As :meth:`tracked` returns them.
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
            return filelock.FileLock(self.root / "driver.lock", timeout=0).acquire()
        except filelock.Timeout as error:
            raise InputError(
                f"study {self.name!r} is being run by another process; `paretoprune status {self.name}` shows it"
            ) from error

    def driven(self) -> bool:
        """Tell whether a driver is at work on the study now.

        Returns:
            True while some process holds the lock.
        """
        import filelock

        lock = filelock.FileLock(self.root / "driver.lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            return True
        lock.release()
        return False

    def write_running(self, numbers: Sequence[int], total: int) -> None:
        """Note which trials are with workers now.

        Args:
            numbers: Their numbers.
            total: How many trials the study shall have.
        """
        write_json(self.root / "driver.json", {"running": sorted(numbers), "total": total})

    def status(self) -> dict[str, Any]:
        """Sum up the study.

        Returns:
            ``study``, ``states`` (``complete``, ``failed``, ``running``, ``waiting``), ``total``, ``driver``
            (whether one is at work) and ``running`` (numbers). A trial whose driver died is waiting.
        """
        outcomes = self.outcomes()
        path = self.root / "driver.json"
        noted: dict[str, Any] = read_json(path) if path.exists() else {"running": [], "total": self.config().trials}
        driven = self.driven()
        finished = {outcome.number for outcome in outcomes}
        running = sorted(set(noted["running"]) - finished) if driven else []
        complete = sum(outcome.state == "complete" for outcome in outcomes)
        return {
            "study": self.name,
            "states": {
                "complete": complete,
                "failed": len(outcomes) - complete,
                "running": len(running),
                "waiting": max(0, noted["total"] - len(outcomes) - len(running)),
            },
            "total": noted["total"],
            "driver": driven,
            "running": running,
        }


def study_names(directory: Path) -> list[str]:
    """List the studies in a run store.

    Args:
        directory: The run store.

    Returns:
        Names, oldest first.
    """
    found = (directory / "studies").glob("[!.]*/study.json")
    return [path.parent.name for path in sorted(found, key=lambda path: (path.stat().st_mtime_ns, path))]


def load_front(name: str | None = None, directory: Path | str = "mlruns") -> Front:
    """Read the front of a study.

    Args:
        name: Name of the study; ``None`` for the one that was begun last.
        directory: The run store.

    Returns:
        The front of what is finished so far.
    """
    return StudyFiles.open(directory, name).front()


def write_json(path: Path, data: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it.

    Args:
        path: The file.
        data: What ``json.dumps`` accepts; NaN and infinities are refused.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(fresh, path)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: The file.

    Returns:
        The data.

    Raises:
        InputError: If it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON ({error}); was it edited?") from error
