"""Processor time of one short trial, with channel groups and costs found once for all trials and found in the trial.

    python -m benchmarks.trial_time

A ResNet for the digits that is pruned with IncReg in two epochs: what does not train weighs most there. Trials of the
two kinds take turns; the least of several is what the work takes, the rest is what else the machine did.
"""

from __future__ import annotations

import argparse
import pickle
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from search.driver.dense_setting import dense_setting
from search.driver.prepare import plan
from search.records.trial_spec import TrialSpec
from search.study.config_file import load_config
from search.trials.trial import run_trial

POINT = {"sparsity.mode": "flops", "sparsity.flops": 0.5, "sparsity.tilt": 0.0}


def main() -> None:
    """Time the trials and print a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="increg", help="a method that takes sparsity.flops")
    parser.add_argument("--repeats", type=int, default=9, help="trials of each kind")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        config = load_config(data="digits", directory=Path(directory), finetune={"epochs": 2}, dense={"epochs": 2})
        setting, _ = dense_setting(plan(config), lambda record, epochs: None)
        print(f"channel groups and cost model, pickled: {len(pickle.dumps(setting.anatomy)):,} bytes")
        kinds = {"found once": setting, "found in the trial": replace(setting, anatomy=None)}
        spec = TrialSpec(0, wanted.method, dict(POINT), seed=3)
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(wanted.repeats + 1):
            for kind, shared in kinds.items():
                start = time.process_time()
                outcome = run_trial(shared, spec).outcome
                seconds[kind].append(time.process_time() - start)
                assert outcome.complete, outcome.error
    for kind, spent in seconds.items():
        first, *others = spent
        print(f"{wanted.method}, {kind}: {min(others):.3f} s of processor time (first trial {first:.3f} s)")


if __name__ == "__main__":
    main()
