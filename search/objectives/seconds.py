"""Seconds that a trial took to prune and fine-tune; the trial itself holds the watch.

The dense network's own are those of its training: pruning that takes as long has saved nothing.
"""

from __future__ import annotations

from search.objectives.base import Objective

UNKNOWN_TRAINING_SECONDS = 3600.0
"""Stands for the training time of a dense network that came with its weights."""

SECONDS = Objective(
    name="seconds",
    title="seconds of the trial",
    direction="minimise",
    unit="s",
    style="duration",
    heading="time",
    unknown=UNKNOWN_TRAINING_SECONDS,
)
