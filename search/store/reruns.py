"""Further runs of trials of a study, with other seeds: ``studies/NAME/confirmations/INDEX/``, one folder per seed."""

from __future__ import annotations

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
