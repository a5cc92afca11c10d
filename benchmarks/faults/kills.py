"""Kill the driver of an inline sweep at random moments, resume it, and compare it with one that was left alone.

Run ``python -m benchmarks.faults.kills --kills 20``. Prints a Markdown table: finished trials that were lost, run twice
or stuck, and whether points and numbers equal those of the undisturbed sweep.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna

from search.records.outcome import Outcome
from search.store.studies import StudyFiles

SETTINGS = [
    *("--trials", "8", "--seed", "5", "--methods", "magnitude,random", "--executor", "inline"),
    *("--set", "finetune.epochs=2", "--set", "dense.epochs=2", "--quiet"),
]


def command(directory: Path, *words: str) -> list[str]:
    """Write a command line of the product."""
    return [sys.executable, "-m", "paretoprune", *words, "--directory", str(directory)]


def numbers(outcomes: list[Outcome]) -> list[tuple[object, ...]]:
    """Return what must be equal whatever happened: all but times."""
    return [
        (o.number, o.method, o.point, o.seed, o.state, {k: v for k, v in o.metrics.items() if k != "seconds"})
        for o in outcomes
    ]


def kill_sweeps(kills: int, seed: int) -> dict[str, int]:
    """Kill drivers until that has happened often enough.

    Args:
        kills: How often.
        seed: Decides the moments.

    Returns:
        Counts by what was counted.
    """
    draw = random.Random(seed)
    found = dict.fromkeys(("kills", "sweeps", "lost", "doubled", "stuck", "different"), 0)
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch)
        subprocess.run(command(store, "sweep", "--name", "whole", *SETTINGS), check=True, capture_output=True)
        whole = numbers(StudyFiles.open(store, "whole").outcomes())
        while found["kills"] < kills:
            name = f"killed{found['sweeps']}"
            found["sweeps"] += 1
            _kill_one(store, name, kills, draw, found)
            files = StudyFiles.open(store, name)
            found["different"] += numbers(files.outcomes()) != whole
            trials = optuna.load_study(study_name=name, storage=f"sqlite:///{store}/optuna.db").trials
            found["stuck"] += sum(not trial.state.is_finished() for trial in trials)
            found["doubled"] += len(trials) - len(whole)
    return found


def _kill_one(store: Path, name: str, kills: int, draw: random.Random, found: dict[str, int]) -> None:
    """Run one sweep to its end, killing it on the way."""
    words, kept = ["sweep", "--name", name, *SETTINGS], dict[int, int]()
    while True:
        driver = subprocess.Popen(command(store, *words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            code = driver.wait(draw.uniform(3, 25) if found["kills"] < kills else None)
            if code != 0:
                raise RuntimeError(f"{' '.join(words)} ended with {code}")
            return
        except subprocess.TimeoutExpired:
            os.kill(driver.pid, signal.SIGKILL)
            driver.wait()
            found["kills"] += 1
        folder = store / "studies" / name
        if (folder / "study.json").exists():
            words = ["resume", name, "--quiet"]
            files = StudyFiles(store, name)
            stamps = {n: (files.folder(n) / "outcome.json").stat().st_mtime_ns for n in files.numbers()}
            found["lost"] += sum(stamps.get(number) != stamp for number, stamp in kept.items())
            kept = stamps


def main() -> None:
    """Parse the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.perf_counter()
    found = kill_sweeps(options.kills, options.seed)
    print(f"| {' | '.join(found)} | minutes |\n|{'---|' * (len(found) + 1)}")
    print(f"| {' | '.join(map(str, found.values()))} | {(time.perf_counter() - began) / 60:.1f} |")


if __name__ == "__main__":
    main()
