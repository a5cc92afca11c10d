"""The end of a sweep: the test set is touched once, the front is written and drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from search.fronts.dominance import non_dominated
from search.fronts.front import Front
from search.objectives.quality import measure_quality
from search.report.plots import save_front
from search.store.files import write_atomically, write_json
from search.store.studies import StudyFiles
from search.tasks.workload import Workload
from search.trials.trial import Setting


def finish_front(files: StudyFiles, workload: Workload, setting: Setting) -> tuple[Front, dict[str, Path]]:
    """Test the members of the front and the dense network, write the front in every form.

    Args:
        files: The study's files.
        workload: Holds the test data.
        setting: Holds the dense network.

    Returns:
        The front with the metrics on the test set, and its files by name.
    """
    front = files.front()
    tested = files.tested()
    if "dense" not in tested:
        tested["dense"] = measure_quality(setting.model.cpu(), workload.data.test, setting.task)
    for member in front.members:
        if str(member.trial) not in tested:
            tested[str(member.trial)] = measure_quality(member.model(), workload.data.test, setting.task)
    files.write_tested(tested)
    front = files.front()
    paths = {f"front.{suffix}": files.root / f"front.{suffix}" for suffix in ("json", "csv", "png", "html")}
    write_json(paths["front.json"], front.to_json())
    write_atomically(paths["front.csv"], front.to_csv())
    save_front(front, paths["front.png"])
    save_front(front, paths["front.html"])
    return front, paths


def ranks(front: Front) -> dict[int, int]:
    """Rank every complete trial: how many fronts lie before its own.

    Args:
        front: The front.

    Returns:
        Rank by trial; 0 is the front itself.
    """
    values = np.array([[o.metrics[objective.name] for objective in front.objectives] for o in front.outcomes])
    maximise = [objective.maximise for objective in front.objectives]
    rank: dict[int, int] = {}
    left = np.arange(len(values))
    level = 0
    while left.size:
        best = non_dominated(values[left], maximise)
        rank |= {front.outcomes[index].number: level for index in left[best]}
        left, level = left[~best], level + 1
    return rank


def knee_numbers(front: Front) -> dict[str, float]:
    """Return what stands for the whole sweep in MLflow's table: the numbers of the knee, under the trials' names.

    Args:
        front: The front.

    Returns:
        Its metrics, shares of the dense network, and its number as ``knee``; empty for an empty front.
    """
    if not front.members:
        return {}
    knee = front.knee()
    outcome = next(each for each in front.outcomes if each.number == knee.trial)
    tests = {f"test_{name}": value for name, value in outcome.test_metrics.items()}
    shares = {"flops_share": knee.flops_share, "params_share": knee.params_share}
    own = {name: value for name, value in outcome.metrics.items() if name != "seconds"}
    return {"knee": float(knee.trial), **own, **shares, **tests}


def note(front: Front) -> str:
    """Write the front as Markdown.

    Args:
        front: The front.

    Returns:
        A heading and a table, the dense network first.
    """
    dense = front.dense
    lines = [
        f"## Front of {front.study}",
        "",
        f"Hypervolume {front.hypervolume():.4f}; accuracy on validation, FLOPs as multiply–accumulates.",
        "",
        "| trial | method | accuracy | FLOPs | share of dense | parameters |",
        "|---|---|---|---|---|---|",
        f"| | dense | {dense.accuracy:.2%} | {dense.flops:,} | 100.0 % | {dense.params:,} |",
    ]
    lines += [
        f"| {m.trial} | {m.method} | {m.accuracy:.2%} | {m.flops:,} | {m.flops_share:.1%} | {m.params:,} |"
        for m in front.members
    ]
    return "\n".join(lines)
