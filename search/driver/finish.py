"""The end of a sweep: the test set is touched once, the front is written and drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from search.fronts.dominance import find_non_dominated
from search.fronts.front import Front
from search.objectives import Objective
from search.objectives.quality import measure_quality
from search.report.plots import save_front
from search.store.files import write_atomically, write_json
from search.store.studies import StudyFiles
from search.tasks.workload import Workload
from search.trials.trial import Setting


def evaluate_front(files: StudyFiles, workload: Workload, setting: Setting) -> Front:
    """Test the members of the front and the dense network.

    Args:
        files: The study's files.
        workload: Holds the test data.
        setting: Holds the dense network.

    Returns:
        The front with the metrics on the test set.
    """
    front = files.front()
    tested = files.read_tested()
    if "dense" not in tested:
        tested["dense"] = measure_quality(setting.model, workload.data.test, setting.task, setting.device)
    for member in front.members:
        if str(member.trial) not in tested:
            found = measure_quality(member.model(), workload.data.test, setting.task, setting.device)
            tested[str(member.trial)] = found
    files.write_tested(tested)
    return files.front()


def draw_front(files: StudyFiles, front: Front) -> dict[str, Path]:
    """Write a front in every form.

    Args:
        files: The study's files.
        front: The front.

    Returns:
        Its files by name.
    """
    paths = {f"front.{suffix}": files.root / f"front.{suffix}" for suffix in ("json", "csv", "png", "html")}
    write_json(paths["front.json"], front.to_json())
    write_atomically(paths["front.csv"], front.to_csv())
    save_front(front, paths["front.png"])
    save_front(front, paths["front.html"])
    return paths


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
        best = find_non_dominated(values[left], maximise)
        rank |= {front.outcomes[index].number: level for index in left[best]}
        left, level = left[~best], level + 1
    return rank


def knee_numbers(front: Front) -> dict[str, float]:
    """Sum up a sweep by one network, for its row in MLflow.

    Args:
        front: The front.

    Returns:
        Its number as ``knee``, and its measurements under the names that trials have, with ``drop``, shares and
        ``test_NAME``; nothing for a front without members.
    """
    if not front.members:
        return {}
    knee = front.knee()
    found = {"knee": float(knee.trial)}
    found |= {name: value for name, value in knee.metrics.items() if name != "seconds"}
    for name in front.shown:
        share = knee.share(name) if front.shown[name].relative and name != "seconds" else None
        found |= {} if share is None else {f"{name}_share": share}
    drop = front.drop(knee)
    found |= {} if drop is None else {"drop": drop}
    return found | {f"test_{name}": value for name, value in knee.test_metrics.items()}


def note(front: Front) -> str:
    """Write the front as Markdown.

    Args:
        front: The front.

    Returns:
        A heading and a table, the dense network first.
    """
    shown = [objective for objective in front.shown.values() if objective.name != "seconds"]
    heads = ["trial", "method"]
    for objective in shown:
        heads += [objective.heading, *(["of dense"] if objective.relative else [])]
    rows = [["", "dense", *_cells(front.dense.metrics, front, shown)]]
    for member in front.members:
        label = " = ".join(str(each.trial) for each in (member, *front.ties(member)))
        rows.append([label, member.method, *_cells(member.metrics, front, shown)])
    lines = [
        f"## Front of {front.study}",
        "",
        f"Hypervolume {front.hypervolume():.4f}; {front.quality.title}, FLOPs as multiply–accumulates. "
        "The row of the sweep shows the knee of its front.",
        "",
        *(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)),
    ]
    return "\n".join(lines)


def _cells(metrics: Mapping[str, float], front: Front, shown: Sequence[Objective]) -> Iterator[str]:
    """Yield the measurements of a network as a row of the note has them."""
    for objective in shown:
        value, whole = metrics.get(objective.name), front.dense.metrics.get(objective.name)
        yield "–" if value is None else objective.format(value)
        if objective.relative:
            yield f"{100 * value / whole:.1f} %" if value is not None and whole else "–"
