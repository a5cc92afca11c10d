"""The whole mirror of a study in MLflow, made again from its files."""

from __future__ import annotations

from pathlib import Path

from search.driver.finish import note, ranks
from search.store.studies import StudyFiles
from search.study.config import places
from search.tracking.outbox import Delivery
from search.tracking.tracker import Tracker

ARTEFACTS = ("outcome.json", "architecture.json", "weights.safetensors", "kept.json", "widths.png", "valley.png")
"""Files of a trial that go to its run, where they are."""

FRONT_FILES = ("front.json", "front.csv", "front.png", "front.html")


def mirror_study(files: StudyFiles, tracking_uri: str | None = None) -> Delivery:
    """Send a study to an MLflow store; what the store has already is not sent again.

    Args:
        files: The study; it needs neither its data nor its network.
        tracking_uri: The store; ``None`` for the study's own. One that cannot be used is an ``InputError``.

    Returns:
        What was sent and what was lost.
    """
    config = files.config()
    uri = tracking_uri or config.tracking_uri
    tracker = Tracker.open(files.directory, uri)
    try:
        dense, known = files.dense(), files.read_tracked()
        described = config.model_dump(mode="json") | places(config)
        parent = tracker.start_sweep(
            files.name, described, dense, run_id=tracker.store.find_known_run(known), objectives=files.objectives()
        )
        files.write_tracked({**known, tracker.store.key: parent})
        outcomes = files.outcomes()
        for outcome in outcomes:
            tracker.log_trial(outcome, dense, trial_artefacts(files, outcome.number))
        front = files.front()
        if front.outcomes:
            present = {name: path for name in FRONT_FILES if (path := files.root / name).exists()}
            numbers = {"trials": float(len(outcomes))}
            tracker.finish_sweep(ranks(front), present, front.hypervolume(), note(front), numbers)
        if len(outcomes) < files.total():
            tracker.stop_sweep("KILLED")
    except BaseException:
        tracker.close(timeout=5.0)
        raise
    return tracker.close()


def trial_artefacts(files: StudyFiles, number: int) -> dict[str, Path]:
    """List the files of a trial that its run shows.

    Args:
        files: The study.
        number: Number of the trial.

    Returns:
        Those that are there, by name.
    """
    folder = files.folder(number)
    return {name: folder / name for name in ARTEFACTS if (folder / name).exists()}
