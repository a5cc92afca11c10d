"""Whether a long sweep stays fast: no-op trials one after another, listings of thousands, many slots.

Run ``python -m benchmarks.faults.scale trials|listings|slots``; each prints a Markdown table.

``trials`` runs 200 trials that do next to nothing on two workers of Ray, and prints milliseconds per trial and the
driver's memory by quarter. ``listings`` makes a study of 2,000 finished trials and prints the CPU seconds of each
command that reads it. ``slots`` plays the schedule of the product with drawn durations, without running anything.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from search.driver.sweep import Sweep
from search.records.listener import NullListener
from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.store.files import json_text
from search.store.studies import StudyFiles
from search.study.config_file import load_config
from search.study.schedule import Schedule, lag_for
from search.trials.trial import make_failed_outcome

TINY = ["finetune.epochs=0.01", "dense.epochs=0.01", "exports=[]"]


class _Watch(NullListener):
    """Notes when trials end, and how much memory the driver has then."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def trial_finished(self, outcome: Outcome, hypervolume: float, members: int) -> None:
        """Note time and resident megabytes."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.seen.append((time.perf_counter(), pages * os.sysconf("SC_PAGE_SIZE") / 2**20))


def run_many(trials: int, sampler: str) -> None:
    """Run no-op trials on two workers."""
    watch = _Watch()
    with tempfile.TemporaryDirectory() as scratch:
        config = load_config(
            None,
            TINY,
            name="many",
            trials=trials,
            methods=("benchmarks.faults.sleepers:NoOp",),
            sampler=sampler,
            max_concurrent=2,
            directory=scratch,
        )
        front = Sweep(config, watch).run()
        complete = len(front.outcomes)
    print(f"| trials (sampler {sampler}) | ms per trial | driver MB |\n|---|---|---|")
    quarter = trials // 4
    for part in range(4):
        seen = watch.seen[part * quarter : (part + 1) * quarter]
        each = (seen[-1][0] - seen[0][0]) / (len(seen) - 1)
        print(f"| {part * quarter} to {(part + 1) * quarter - 1} | {1000 * each:.0f} | {seen[-1][1]:.0f} |")
    print(f"{complete} of {trials} complete")


def read_many(trials: int) -> None:
    """Make a study of many trials and read it with every command."""
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch)
        words = [
            "sweep",
            "--name",
            "many",
            "--trials",
            "2",
            "--methods",
            "magnitude",
            "--executor",
            "inline",
            "--quiet",
        ]
        for setting in TINY:
            words += ["--set", setting]
        _run(store, *words)
        files = StudyFiles.open(store, "many")
        pattern, draw = files.outcome(1), random.Random(0)
        for number in range(2, trials):
            share = draw.uniform(0.05, 1.0)
            metrics = pattern.metrics | {
                "accuracy": 1 - (1 - share) ** 4 - draw.uniform(0, 0.05),
                "flops": share * files.dense().flops,
            }
            shutil.copytree(files.folder(1), files.folder(number))
            outcome = replace(pattern, number=number, metrics=metrics)
            (files.folder(number) / "outcome.json").write_text(json_text(outcome.to_json()))
        files.write_running([], trials)
        print(f"| command, {trials} trials | CPU s | peak MB |\n|---|---|---|")
        for line in ("status", "front", "front --json", "show many 1999", "list"):
            cpu, peak = _run(store, *line.split())
            print(f"| {line} | {cpu:.2f} | {peak:.0f} |", flush=True)


def _run(store: Path, *words: str) -> tuple[float, float]:
    """Run the product; return CPU seconds and the peak of its memory in megabytes."""
    script = (
        "import json, resource, subprocess, sys; "
        "subprocess.run([sys.executable, '-m', 'paretoprune', *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL); "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, *words, "--directory", str(store)], check=True, stdout=subprocess.PIPE
    )
    cpu, peak = json.loads(told.stdout)
    return cpu, peak


class _Played:
    """A study that proposes nothing."""

    def __init__(self) -> None:
        self._asked = self._told = 0

    def open_trials(self) -> list[TrialSpec]:
        return []

    def count_told(self) -> int:
        return self._told

    def ask(self) -> TrialSpec:
        self._asked += 1
        return TrialSpec(self._asked - 1, "", {}, 0)

    def tell(self, outcome: Outcome) -> None:
        self._told += 1

    def pause(self, outcome: Outcome) -> None: ...


def play(slots: int, trials: int, duration: Callable[[], float]) -> float:
    """Play a sweep with the real schedule.

    Args:
        slots: How many trials run at a time.
        trials: How many there are.
        duration: Draws how long a trial takes.

    Returns:
        Share of the slots' time that trials ran, until fewer are left than there are slots.
    """
    schedule = Schedule(_Played(), trials, lag_for(slots), lambda number: None, lambda outcome: None)
    running: list[tuple[float, int]] = []
    now = busy = 0.0
    begun = 0
    while begun < trials:
        while len(running) < slots and (spec := schedule.next()) is not None:
            heapq.heappush(running, (now + duration(), spec.number))
            begun += 1
        end, number = heapq.heappop(running)
        busy += (len(running) + 1) * (end - now)
        now = end
        schedule.finish(make_failed_outcome(TrialSpec(number, "", {}, 0), "played", 0.0, 0.0, []))
    return busy / (slots * now)


def play_many() -> None:
    """Play sweeps of 400 trials."""
    draw = random.Random(0)
    kinds: dict[str, Callable[[], float]] = {
        "equal": lambda: 1.0,
        "1 to 1.2": lambda: draw.uniform(1, 1.2),
        "1 to 4": lambda: draw.uniform(1, 4),
        "1, one in five 4": lambda: 4.0 if draw.random() < 0.2 else 1.0,
    }
    print(f"| slots | {' | '.join(f'times {kind}' for kind in kinds)} |\n|{'---|' * (len(kinds) + 1)}")
    for slots in (2, 4, 8, 16, 32):
        print(f"| {slots} | {' | '.join(f'{play(slots, 400, duration):.0%}' for duration in kinds.values())} |")


def main() -> None:
    """Parse the arguments and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("trials", "listings", "slots"))
    parser.add_argument("--trials", type=int, default=None)
    parser.add_argument("--sampler", default="auto")
    options = parser.parse_args()
    if options.what == "trials":
        run_many(options.trials or 200, options.sampler)
    elif options.what == "listings":
        read_many(options.trials or 2000)
    else:
        play_many()
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{used.ru_utime + used.ru_stime:.1f} CPU s of this process", file=sys.stderr)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
