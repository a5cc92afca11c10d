"""Further runs of trials of a study, with other seeds: ``studies/NAME/confirmations/INDEX/``, one folder per seed."""

from __future__ import annotations

from typing import Any

from search.store.files import read_object
from search.store.studies import StudyFiles


class RerunFiles(StudyFiles):
    """The reruns with one further seed, laid out as the trials of a study are; the study's own files stay as they are.

    Args:
        files: The study.
        index: Which further seed, from 0.
    """

    def __init__(self, files: StudyFiles, index: int) -> None:
        super().__init__(files.directory, files.name)
        self.root = files.root / "confirmations" / f"{index:03d}"

    def prepare(self) -> None:
        """Make the folder that reruns are written into."""
        (self.root / "trials").mkdir(parents=True, exist_ok=True)

    def _cure(self, number: int) -> str:
        return f"remove the folder {self.folder(number)}, and `paretoprune confirm {self.name}` runs it again"


def read_confirmation(files: StudyFiles) -> dict[str, Any]:
    """Read what further seeds said of a front.

    Args:
        files: The study.

    Returns:
        As :meth:`search.fronts.confirmation.Confirmation.to_json` gave it; nothing if the study was not confirmed.
    """
    path = files.root / "confirmations" / "confirmation.json"
    return read_object(path) if path.exists() else {}
