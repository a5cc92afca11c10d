"""What is told of finished trials while a sweep runs."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

from search.driver.recorder import Recorder
from search.objectives import load_objectives
from search.records.listener import NullListener
from search.records.outcome import DenseRow
from tests.search.cases import outcome
from tests.search.store.cases import make_study


class Warned(NullListener):
    """Keeps warnings, and the hypervolume after each trial."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.volumes: list[float] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def trial_finished(self, outcome: object, hypervolume: float, members: int) -> None:
        self.volumes.append(hypervolume)


def test_a_trial_beyond_a_limit_is_told_and_does_not_count(tmp_path: Path) -> None:
    files, listener = make_study(tmp_path, max_flops="50%", max_params="60%"), Warned()
    dense = DenseRow.from_metrics(accuracy=0.95, flops=1000, params=100, seconds=2.0)
    objectives = load_objectives(("accuracy", "flops"))
    recorder = Recorder(files, dense, objectives, 3, listener, Future(), publishes=False)
    for number, (flops, params, accuracy) in enumerate([(500.0, 60.0, 0.93), (400.0, 61.0, 0.95), (501.0, 70.0, 0.95)]):
        metrics = {"accuracy": accuracy, "flops": flops, "params": params, "seconds": 1.0}
        recorder.record_outcome(outcome(number, metrics=metrics))
    recorder.close()
    assert [each.partition(",")[0] for each in listener.warnings] == [
        "trial 1 came out beyond max-params",
        "trial 2 came out beyond max-flops and max-params",
    ]
    assert listener.volumes[0] == listener.volumes[1] == listener.volumes[2] > 0
    assert recorder.flat == 2
