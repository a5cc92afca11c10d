"""A study in which nothing was searched as one table: every method at every share of the FLOPs, before and after.

    paretoprune sweep benchmarks/cifar10.toml --name cifar10 --set data_root=data
    python benchmarks/comparison.py cifar10 --to docs/results/cifar10_resnet20.md

Several studies of one dense network and one budget become one table, in which a method that was run again with the same
settings has the row of the study that is named last. For studies with ``sampler = "defaults"``:
because no point was chosen by what came of others, every network may be tested, once. Latencies are measured here, one
network after the other beside the dense one, on a quiet machine. What was measured is kept (``comparison.json`` in the
study's folder), so that a second run only adds what is missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from methods.training.evaluation import evaluate
from paretoprune import StudyFiles
from search.driver.prepare import plan
from search.records.outcome import Outcome
from search.records.timing import Timing
from search.speed.conditions import Conditions, validate_targets
from search.speed.measure import measure_pair
from search.store.files import write_json
from search.tasks.dense import dense_network
from search.tasks.recipes import resolve_recipe
from spaces import InputError

Record = dict[str, Any]

CONTROLS = ("magnitude", "random")


def dense_of(files: StudyFiles) -> tuple[nn.Module, Any]:
    """Load the dense network of a study and its task.

    Args:
        files: The study's files.

    Returns:
        The network in eval mode, and the task.
    """
    config = files.config()
    planned = plan(config)
    recipe, epochs = resolve_recipe(config.dense, "dense", config.data)
    dense = dense_network(planned.workload, recipe, epochs, config.seed, config.directory)
    return dense.model.cpu().eval(), planned.workload


def measure_study(files: StudyFiles, conditions: Conditions) -> Record:
    """Test every network of a study and time it beside the dense one; keep what is found.

    Args:
        files: The study's files.
        conditions: Targets, batch size, threads.

    Returns:
        Test accuracy and timings by trial, ``"dense"`` included.

    Raises:
        InputError: If points of the study were chosen by a search: then the test set is for its front alone.
    """
    config = files.config()
    if config.sampler != "defaults":
        raise InputError(
            f"study {files.name!r} searched (sampler = {config.sampler!r}): only its front is tested, see "
            "paretoprune front"
        )
    path = files.root / "comparison.json"
    found: Record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    dense, task = dense_of(files)
    for outcome in files.outcomes():
        key = str(outcome.number)
        if outcome.state == "failed" or key in found:
            continue
        model = files.rebuild(outcome.number)
        timings, untimed = measure_pair(conditions, dense, model, task.example)
        found[key] = {
            "test": evaluate(model, task.data.test).accuracy,
            "timings": {name: timing.to_json() for name, timing in timings.items()},
            "untimed": untimed,
        }
        write_json(path, found)
        print(f"{outcome.method} trial {key}: {found[key]['test']:.2%} on the test set", flush=True)
    if "dense" not in found:
        found["dense"] = {"test": evaluate(dense, task.data.test).accuracy}
        write_json(path, found)
    return found


def table(studies: Sequence[StudyFiles], found: Mapping[str, Record], conditions: Conditions) -> Iterable[str]:
    """Write the rows.

    Args:
        studies: Studies of one dense network.
        found: What :func:`measure_study` gave for each, by name.
        conditions: What latencies were measured under.

    Yields:
        Lines of Markdown.
    """
    dense = studies[0].dense()
    times = [name for target in conditions.targets for name in (f"time, {target}", "efficiency")]
    head = ["FLOPs", "method", "before fine-tuning", "validation", "test", "test vs. dense", *times, "minutes"]
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    whole = found[studies[0].name]["dense"]["test"]
    row = ["100 %", "dense", "", f"{dense.accuracy:.2%}", f"{whole:.2%}", "", *("" for _ in times), ""]
    yield "| " + " | ".join(row) + " |"
    every = [(files, outcome) for files in studies for outcome in files.outcomes()]
    complete = {
        (_name_method(files, outcome), _order(outcome, dense.flops)[0]): (files, outcome)
        for files, outcome in every
        if outcome.state == "complete"
    }
    for files, outcome in sorted(complete.values(), key=lambda pair: _order(pair[1], dense.flops)):
        here = found[files.name][str(outcome.number)]
        share = outcome.metrics["flops"] / dense.flops
        cut = outcome.extra.get("accuracy_cut")
        row = [
            f"{share:.1%}",
            _name_method(files, outcome),
            "" if cut is None else f"{cut:.2%}",
            f"{outcome.metrics['accuracy']:.2%}",
            f"{here['test']:.2%}",
            f"{100 * (here['test'] - whole):+.2f}",
            *(text for target in conditions.targets for text in _time(here, target, share)),
            f"{outcome.seconds / 60:.1f}",
        ]
        yield "| " + " | ".join(row) + " |"
    for files, outcome in every:
        if outcome.state == "failed":
            last = (outcome.error or "").strip().splitlines()[-1]
            yield f"| | {_name_method(files, outcome)} | failed: {last} |" + " |" * (len(head) - 3)


def _name_method(files: StudyFiles, outcome: Outcome) -> str:
    """Name a method, with what its study fixed otherwise than the method's own defaults."""
    fixed = [f"{key} = {value}" for key, value in files.config().space.get(outcome.method, {}).items()]
    control = ["control"] if outcome.method in CONTROLS else []
    return f"`{outcome.method}`" + (f" ({', '.join(control + fixed)})" if control + fixed else "")


def _order(outcome: Outcome, dense: int) -> tuple[int, float]:
    """Sort by what was asked for (halvings of the FLOPs), then by accuracy."""
    halvings = round(-torch.tensor(outcome.metrics["flops"] / dense).log2().item())
    return halvings, -outcome.metrics["accuracy"]


def _time(here: Record, target: str, share: float) -> Sequence[str]:
    """Show time and efficiency on one target."""
    if target not in here["timings"]:
        return ["not timed", ""]
    timing = Timing.from_json(here["timings"][target])
    return [f"{timing.share:.1%}" + (" (noisy)" if timing.noisy else ""), f"{timing.efficiency(share):.2f}"]


def document(studies: Sequence[StudyFiles], found: Mapping[str, Record], conditions: Conditions) -> str:
    """Write the table with all that is needed to judge and repeat it.

    Args:
        studies: Studies of one dense network and one budget.
        found: What :func:`measure_study` gave for each, by name.
        conditions: What latencies were measured under.

    Returns:
        Markdown.
    """
    config, record, dense = studies[0].config(), studies[0].record(), studies[0].dense()
    minutes = sum(outcome.seconds for files in studies for outcome in files.outcomes()) / 60
    timings = [
        Timing.from_json(timing)
        for each in found.values()
        for here in each.values()
        for timing in here.get("timings", {}).values()
    ]
    spread = statistics.median(max(timing.dense.spread, timing.pruned.spread) for timing in timings)
    return f"""# {config.model} on {config.data}: all methods at their default values

One budget for all: {record["steps"]} optimiser steps of {record["recipe"]["batch_size"]} examples
({config.finetune.epochs:g} epochs), pruning included, one seed ({config.seed}). Nothing was searched, so every network
is tested, once. `magnitude` (L1) and `random` channels, retrained with the same recipe, are the controls.

{chr(10).join(table(studies, found, conditions))}

FLOPs are multiply–accumulates of the network that runs, as a share of the dense network's {dense.flops:,}. *Before
fine-tuning* is validation accuracy after the cut, batch norm estimated anew; methods that prune while they train have
used part of the budget by then. *Time* is that of one forward pass of {conditions.batch_size} images on
{conditions.threads} thread(s) as a share of the dense network's, measured in turns; *efficiency* is 1 when half of the
FLOPs take half of the time. Median interquartile range of the times: {spread:.1%} of the median.

{minutes:.0f} minutes of trials on one core each, dense training not counted. Made with
{", ".join(f"{name} {number}" for name, number in record["versions"].items())}.
"""


def main() -> None:
    """Measure what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("studies", nargs="+", help="finished studies with sampler = 'defaults'")
    parser.add_argument("--directory", type=Path, default=Path("mlruns"), help="the run store")
    parser.add_argument("--targets", default="cpu,onnxruntime", help="where latency is measured, with commas")
    parser.add_argument("--batch", type=int, default=64, help="images in a forward pass")
    parser.add_argument("--threads", type=int, default=1, help="threads of a forward pass")
    parser.add_argument("--to", type=Path, help="file for the table; shown if left out")
    given = parser.parse_args()
    conditions = Conditions(validate_targets(given.targets.split(",")), given.batch, given.threads)
    studies = [StudyFiles.open(given.directory, name) for name in given.studies]
    dense = [(files.dense(), files.record()["steps"]) for files in studies]
    if len({(row.flops, row.params, row.accuracy, steps) for row, steps in dense}) > 1:
        raise InputError(f"{', '.join(given.studies)} differ in their dense network or budget")
    text = document(studies, {files.name: measure_study(files, conditions) for files in studies}, conditions)
    if given.to is None:
        print(text)
    else:
        given.to.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
