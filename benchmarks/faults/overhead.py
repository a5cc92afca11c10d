"""What the driver costs: trials that sleep, beside the same trials under two plain scripts.

One is of Ray Tune, Optuna and MLflow; one has tasks of Ray alone, and is what no driver on Ray can be better than.

Run ``python -m benchmarks.faults.overhead --rounds 3``. A trial sleeps for 5 seconds, so that its time is known and
other work on the machine disturbs it little. Overhead is the share of the workers' time in which no trial slept: with
the start, from the start of the process to its end; after it, from the beginning of the first trial to the end of the
last. Rounds alternate between the programs. CPU seconds are those of the driver alone.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from search.store.studies import StudyFiles

TRIALS, SECONDS, SLOTS = 24, 5.0, 2

PLAIN = """
import json, os, sys, time
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
import optuna, ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.search.optuna import OptunaSearch

store, trials, seconds, slots = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])

def trial(config):
    import torch
    began = time.time()
    time.sleep(seconds)
    tune.report({"accuracy": config["x0"], "flops": config["x1"], "began": began, "ended": time.time()})

ray.init(address="local", num_cpus=slots, include_dashboard=False, log_to_driver=False)
search = OptunaSearch(metric=["accuracy", "flops"], mode=["max", "min"], seed=0, study_name="plain",
                      storage=optuna.storages.RDBStorage(f"sqlite:///{store}/optuna.db"))
callback = MLflowLoggerCallback(tracking_uri=f"sqlite:///{store}/mlflow.db", experiment_name="plain")
results = tune.Tuner(
    tune.with_resources(trial, {"cpu": 1}),
    param_space={f"x{n}": tune.uniform(0, 1) for n in range(20)},
    tune_config=tune.TuneConfig(search_alg=search, num_samples=trials, max_concurrent_trials=slots),
    run_config=tune.RunConfig(storage_path=store, callbacks=[callback], verbose=0),
).fit()
spans = [(result.metrics["began"], result.metrics["ended"]) for result in results]
json.dump(spans, open(f"{store}/spans.json", "w"))
ray.shutdown()
"""

BARE = """
import json, os, sys, time
import ray, torch

store, trials, seconds, slots = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
ray.init(address="local", num_cpus=slots, include_dashboard=False, log_to_driver=False)

@ray.remote(num_cpus=1)
def trial():
    import torch
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    began = time.time()
    time.sleep(seconds)
    return began, time.time()

json.dump(ray.get([trial.remote() for _ in range(trials)]), open(f"{store}/spans.json", "w"))
ray.shutdown()
"""
"""No search, no study, no MLflow and no Tune: processes that have what a network needs, and nothing else."""


def run_ours(store: Path) -> list[tuple[float, float]]:
    """Run a sweep; return when its trials began and ended."""
    words = ["sweep", "--name", "s", "--trials", str(TRIALS), "--methods", "benchmarks.faults.sleepers:Sleeps"]
    words += ["--max-concurrent", str(SLOTS), "--directory", str(store), "--quiet"]
    for setting in ("finetune.epochs=0.01", "dense.epochs=0.01", "exports=[]"):
        words += ["--set", setting]
    subprocess.run([sys.executable, "-m", "paretoprune", *words], check=True, capture_output=True)
    outcomes = StudyFiles.open(store, "s").outcomes()
    if len(outcomes) != TRIALS or not all(outcome.complete for outcome in outcomes):
        raise RuntimeError("not all trials were completed")
    return [(outcome.started, outcome.started + outcome.seconds) for outcome in outcomes]


def run_script(script: str, store: Path) -> list[tuple[float, float]]:
    """Run one of the scripts above; return when its trials began and ended."""
    words = [sys.executable, "-c", script, str(store), str(TRIALS), str(SECONDS), str(SLOTS)]
    subprocess.run(words, check=True, capture_output=True)
    return [(began, ended) for began, ended in json.loads((store / "spans.json").read_text())]


PROGRAMS = {
    "paretoprune": run_ours,
    "Ray Tune + OptunaSearch + MLflow": partial(run_script, PLAIN),
    "Ray and torch alone": partial(run_script, BARE),
}


def measure(name: str) -> tuple[float, float, float, float]:
    """Run a program once.

    Args:
        name: Key of :data:`PROGRAMS`.

    Returns:
        Wall seconds, overhead with the start, overhead after it, and CPU seconds of the driver.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        before, began = _children(), time.perf_counter()
        spans = PROGRAMS[name](Path(scratch))
        wall = time.perf_counter() - began
        cpu = _children() - before
    busy = TRIALS * SECONDS
    inner = max(end for _, end in spans) - min(start for start, _ in spans)
    return wall, 1 - busy / (SLOTS * wall), 1 - busy / (SLOTS * inner), cpu


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Parse the arguments and print the table, medians of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in PROGRAMS}
    for number in range(options.rounds):
        for name in PROGRAMS:
            found[name].append(measure(name))
            print(f"round {number}, {name}: {found[name][-1]}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    print("| program | wall s | overhead with start | after it | CPU s of the driver |\n|---|---|---|---|---|")
    for name, rows in found.items():
        wall, whole, inner, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {wall:.1f} | {whole:.1%} | {inner:.1%} | {cpu:.1f} |")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
