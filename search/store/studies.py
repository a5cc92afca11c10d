"""The files of a study under ``mlruns/studies/NAME/``: what was asked for and what came out.

Those of its trials are in :mod:`search.store.trial_files`, those of its drivers in :mod:`search.store.driver_files`.
Reading needs neither torch nor optuna.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.records.outcome import DenseRow
from search.records.paths import resolve_path
from search.store.driver_files import DriverFiles, is_held
from search.store.files import create_folder, json_text, read_json, read_note, read_object, write_json
from search.store.trial_files import TrialFiles
from spaces import InputError, explain_unknown_name

if TYPE_CHECKING:
    from torch import nn

    from search.fronts.front import Front
    from search.objectives import Objective
    from search.study.config import StudyConfig
    from search.study.samplers.base import Limits


LEFTOVER_SECONDS = 3600.0
"""Age from which what is half written is no longer being written."""


IN_HAND = "in hand"
"""What the model and the data of a study are called that were handed in as objects."""


class StudyFiles(TrialFiles, DriverFiles):
    """The folder of one study.

    Args:
        directory: The run store (``mlruns``).
        name: Name of the study.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = resolve_path(directory), name
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

        places = read_note(self.root / "places.json")
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

    def remove_leftovers(self) -> None:
        """Remove what killed workers and drivers have left half written; for the driver that holds the lock."""
        for path in (self.root / "trials").glob(".*"):
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:  # a worker of another driver may be writing
                shutil.rmtree(path, ignore_errors=True)
        if not any(is_held(path) for path in (self.root / "drivers").glob("*.lock")):
            for path in self.root.glob("tune-*"):
                shutil.rmtree(path, ignore_errors=True)
            for path in self.root.glob("shared-*.json"):
                path.unlink(missing_ok=True)

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

    def limits(self) -> Limits:
        """Read the limits that every network of the study must keep to.

        Returns:
            The limits, as counts and seconds.
        """
        from search.study.limits import read_limits
        from search.study.samplers.base import PointCost

        dense = self.dense()
        return read_limits(self.config(), PointCost(dense.flops, dense.params), PointCost(0, 0), dense.latency)

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
            The front, over all complete trials within the limits of the study.
        """
        from search.fronts.front import Front
        from search.objectives.limits import parse_drop
        from search.report.views import ReportViews

        objectives = self.objectives()
        names = [objective.name for objective in objectives]
        # A network that could not be timed is kept, but has no place on a front with latency.
        measured = [each for each in self.outcomes() if each.state == "complete" and not each.list_missing(names)]
        limits = self.limits()  # nor has one that came out beyond what the study allows
        outside = tuple(each.number for each in measured if limits.list_broken(each.metrics))
        return Front(
            study=self.name,
            dense=self.dense(),
            outcomes=[each for each in measured if each.number not in outside],
            outside=outside,
            objectives=objectives,
            rebuild=self.rebuild,
            metrics=self.metrics(),
            worthless=parse_drop(self.config().max_drop),
            views=ReportViews(),
        )

    def read_tracked(self) -> dict[str, str]:
        """Read which MLflow runs mirror the study.

        Returns:
            Id of the parent run by address of the MLflow store.
        """
        return read_note(self.root / "mlflow.json")

    def write_tracked(self, runs: Mapping[str, str]) -> None:
        """Keep which MLflow runs mirror the study.

        Args:
            runs: As :meth:`read_tracked` returns them.
        """
        write_json(self.root / "mlflow.json", runs)

    def write_finished(self) -> None:
        """Note that the front of all trials so far is tested, drawn, exported and mirrored."""
        write_json(self.root / "finished.json", {"trials": self.numbers()})

    def is_finished(self) -> bool:
        """Tell whether nothing is left to do for the trials that there are.

        Returns:
            Whether :meth:`write_finished` was called since the last of them ended.
        """
        return bool(read_note(self.root / "finished.json").get("trials") == self.numbers())

    def total(self) -> int:
        """Read how many trials the study shall have.

        Returns:
            What the last driver was told, else what the configuration says.
        """
        return int(self.read_driver_note().get("total", self.config().trials))

    def status(self) -> dict[str, Any]:
        """Sum up the study.

        Returns:
            ``study``, ``states`` (``complete``, ``failed``, ``running``, ``waiting``, and, where there are any,
            ``stopped`` and ``paused`` at a rung), ``total``, ``driver`` (whether one is at work) and ``running``
            (numbers). A trial whose driver died is waiting.
        """
        outcomes = self.outcomes()
        noted: dict[str, Any] = {"running": [], "total": self.config().trials}
        noted |= self.read_driver_note()
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
