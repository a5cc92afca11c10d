"""The files of trials in a study's folder: outcomes, networks, and where trials wait at rungs.

A trial's folder appears by one rename, complete, written where the trial ran. From that instant the trial is finished,
whatever happens to the driver. Reading outcomes needs no torch.
"""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from search.records.errors import StoreWarning
from search.records.outcome import Outcome
from search.store.files import create_folder, json_text, read_json, read_note, read_object, write_json
from spaces import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from search.trials.trial import Finished


class TrialFiles:
    """The trials of one study.

    A part of :class:`search.store.studies.StudyFiles`, which sets the attributes.

    Attributes:
        root: The folder of the study.
        name: Name of the study, for messages.
    """

    root: Path
    name: str

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

    def read_tested(self) -> dict[str, dict[str, float]]:
        """Read the metrics on the test set.

        Returns:
            Metrics of the task by trial number (as text), and under ``"dense"``; only networks that were on a
            finished front. A study of an earlier version has accuracies alone.
        """
        found = read_note(self.root / "test.json")
        return {key: value if isinstance(value, dict) else {"accuracy": value} for key, value in found.items()}

    def write_tested(self, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Keep metrics on the test set.

        Args:
            metrics: As :meth:`read_tested` returns them.
        """
        write_json(self.root / "test.json", metrics)


def _explain_damage(path: Path, error: Exception) -> str:
    """Name a damaged file and what is wrong with it."""
    text = str(error)
    if text.startswith(str(path)):
        return text
    return f"{path} is damaged: {f'it lacks {text}' if isinstance(error, KeyError) else text or 'no outcome'}"
