"""Kill a long trial near its end, resume it, and compare it with one that was left alone.

Run ``python -m benchmarks.faults.continuation [METHOD ...]``: of each method one trial of 20 epochs on digits, whose
process is killed with SIGKILL once 15 epochs are kept. Prints a Markdown table: epochs that were kept at the kill,
epochs that the resumed process trained, epochs that were trained twice, and whether history and weights equal those of
the undisturbed trial to the last bit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.store.studies import StudyFiles

EPOCHS, KILLED_AT = 20, 15

LOG = "PARETOPRUNE_EPOCHS"
"""Variable of the environment that names the file in which epochs are noted."""


@dataclass(frozen=True)
class Continued:
    """What became of a trial that was killed and resumed.

    Attributes:
        kept: Epochs that were on disk at the kill.
        trained: Epochs that the resumed process trained.
        history_equal: Whether the records of all epochs equal those of the undisturbed trial.
        weights_equal: Whether the files of weights are equal, byte by byte.
    """

    kept: int
    trained: int
    history_equal: bool
    weights_equal: bool

    @property
    def repeated(self) -> int:
        """Epochs that were kept, and trained again."""
        return self.kept + self.trained - EPOCHS


def _run(store: Path, words: list[str], kill_at: int | None = None) -> list[int]:
    """Run the product; list the epochs whose ends it keeps, and kill it at one of them."""
    log, customs = store / "epochs.log", store / "customs"
    log.write_text("")
    customs.mkdir(exist_ok=True)
    # Read by every Python that starts: a trial that is taken up after a kill runs in a process of its own.
    (customs / "sitecustomize.py").write_text("import benchmarks.faults.continuation as c\nc.log_epochs()\n")
    paths = os.pathsep.join([str(customs), str(Path(__file__).parents[2])])
    line = [sys.executable, "-m", "paretoprune", *words, "--directory", str(store)]
    environment = os.environ | {"PYTHONPATH": paths, LOG: str(log)}
    driver = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    while driver.poll() is None:
        if kill_at is not None and log.read_text().count("\n") >= kill_at:
            driver.kill()
        time.sleep(0.01)
    if kill_at is None and driver.returncode != 0:
        raise RuntimeError(f"{' '.join(line)} ended with {driver.returncode}")
    return [int(epoch) for epoch in log.read_text().split()]


def log_epochs() -> None:
    """Have this process write a line into a file for every epoch of a trial that is kept."""
    from methods.contract.session import Saved

    keep, log = Saved._keep, Path(os.environ[LOG])

    def save_and_log(self: Saved, name: str, state: dict[str, Any]) -> None:
        keep(self, name, state)
        if state.get("history"):
            with log.open("a") as file:
                file.write(f"{state['history'][-1]['epoch']:g}\n")

    Saved._keep = save_and_log  # type: ignore[method-assign]


def kill_and_continue(method: str, store: Path) -> Continued:
    """Kill a trial of a method and resume it.

    Args:
        method: The method.
        store: An empty run store.

    Returns:
        What became of it.
    """
    settings = ["--trials", "1", "--seed", "5", "--methods", method, "--executor", "inline", "--quiet"]
    settings += ["--set", f"finetune.epochs={EPOCHS}", "--set", "dense.epochs=2", "--set", "exports=[]"]
    _run(store, ["sweep", "--name", "whole", *settings])
    kept = _run(store, ["sweep", "--name", "killed", *settings], KILLED_AT)
    whole, killed = StudyFiles(store, "whole"), StudyFiles(store, "killed")
    if killed.numbers():
        raise RuntimeError(f"the trial of {method} had ended before it was killed")
    trained = _run(store, ["resume", "killed", "--quiet"])
    ours, theirs = killed.folder(0) / "weights.safetensors", whole.folder(0) / "weights.safetensors"
    return Continued(
        len(kept),
        len(trained),
        killed.outcome(0).history == whole.outcome(0).history,
        ours.read_bytes() == theirs.read_bytes(),
    )


def main() -> None:
    """Try the methods and print the table."""
    from methods import method_names

    print("| method | kept | trained then | trained twice | history equal | weights equal |\n|---|---|---|---|---|---|")
    for method in sys.argv[1:] or method_names():
        with tempfile.TemporaryDirectory() as scratch:
            found = kill_and_continue(method, Path(scratch))
        same = ["yes" if equal else "no" for equal in (found.history_equal, found.weights_equal)]
        print(f"| {method} | {found.kept} | {found.trained} | {found.repeated} | {' | '.join(same)} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
