"""A study in MLflow's words: names it accepts, parameters as text, metrics as points in time.

Pure functions, no mlflow. MLflow allows letters, digits, ``_ - . /`` and blanks in the names of parameters and
metrics, refuses names that a path would shorten, and cuts nothing by itself: what is too long is an error there.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from search.objectives import OBJECTIVES, Objective
from search.records.outcome import DenseRow, Outcome

T = TypeVar("T")
ACCURACY = OBJECTIVES["accuracy"]
COSTS = ("flops", "params", "latency")
"""Measurements that are told as shares of the dense network's, whatever is searched for."""
NAME_LENGTH = 200  # MLflow's limit is 250; leaves room for a suffix
VALUE_LENGTH = 6000


class MetricPoint(NamedTuple):
    """One value of one metric.

    Attributes:
        name: Name of the metric.
        value: Its value.
        time: When, in milliseconds since the epoch (UTC).
        step: Its place on the metric's axis; the epoch for a history, 0 for a final number.
    """

    name: str
    value: float
    time: int
    step: int


def run_name(outcome: Outcome, cost_share: float | None, quality: Objective = ACCURACY) -> str:
    """Name a trial's run; the UI cuts names after some twenty characters, so the numbers come first.

    Args:
        outcome: The trial.
        cost_share: What it costs as a share of the dense network, if known.
        quality: What tells a good network.

    Returns:
        A name such as ``0007 98.61% 0.31x increg``, or ``0008 failed increg``.
    """
    if not outcome.complete:
        return f"{outcome.number:04d} failed {outcome.method}"
    share = "" if cost_share is None else f" {cost_share:.2f}x"
    return f"{outcome.number:04d}{_format_metrics(outcome.metrics, quality)}{share} {outcome.method}"


def _format_metrics(metrics: Mapping[str, float], quality: Objective) -> str:
    value = metrics.get(quality.name)
    return "" if value is None else f" {quality.format(value).replace(' ', '')}"


def dense_name(dense: DenseRow, quality: Objective = ACCURACY) -> str:
    """Name the dense network's run.

    Args:
        dense: The dense network.
        quality: What tells a good network.

    Returns:
        A name such as ``dense 98.61% 1.00x``.
    """
    return f"dense{_format_metrics(dense.metrics, quality)} 1.00x"


def dense_metrics(dense: DenseRow, costs: Collection[str] = COSTS) -> dict[str, float]:
    """Return the dense network's numbers under the names that trials have.

    Args:
        dense: The dense network.
        costs: Names of the measurements that are told as shares.

    Returns:
        Its metrics, those on the test set as ``test_NAME``, and shares of 1.
    """
    found = {name: float(value) for name, value in dense.metrics.items()}
    found |= {f"test_{name}": value for name, value in dense.test_metrics.items()}
    found |= {f"{name}_share": 1.0 for name in dense.metrics if name in costs}
    return clean_names(found)


def shares(outcome: Outcome, dense: DenseRow | None, costs: Collection[str] = COSTS) -> dict[str, float]:
    """Relate a trial to the dense network.

    Args:
        outcome: The trial.
        dense: The dense network, if known.
        costs: Names of the measurements that are told as shares.

    Returns:
        ``NAME_share`` for each cost that both networks have.
    """
    whole = {} if dense is None else dense.metrics
    known = [name for name in costs if whole.get(name) and name in outcome.metrics]
    return {f"{name}_share": outcome.metrics[name] / whole[name] for name in known}


def timing_metrics(outcome: Outcome, dense: DenseRow | None) -> dict[str, float]:
    """Return what was measured of a trial's latency on every target.

    Args:
        outcome: The trial.
        dense: The dense network, if known.

    Returns:
        By ``timing/TARGET/``: median seconds ``dense`` and ``pruned`` of the same minutes, their quotient ``share``,
        ``noisy`` as 0 or 1, and ``efficiency`` where the dense network is known.
    """
    found: dict[str, float] = {}
    for target, timing in outcome.timings.items():
        own = {"dense": timing.dense.median, "pruned": timing.pruned.median, "share": timing.share}
        own["noisy"] = float(timing.noisy)
        if dense is not None and "flops" in outcome.metrics:
            own["efficiency"] = timing.efficiency(outcome.metrics["flops"] / dense.flops)
        found |= {f"timing/{target}/{name}": value for name, value in own.items()}
    return found


def trial_params(outcome: Outcome) -> dict[str, str]:
    """Return what defined a trial.

    Args:
        outcome: The trial.

    Returns:
        The method, the seed and every value of the point, as text by name.
    """
    return clean_names({"method": outcome.method, "seed": str(outcome.seed), **flatten(outcome.point)})


def trial_metrics(
    outcome: Outcome, dense: DenseRow | None, quality: Objective = ACCURACY, costs: Collection[str] = COSTS
) -> list[MetricPoint]:
    """Return what a trial gave: its final numbers, then its history.

    Args:
        outcome: The trial.
        dense: The dense network, if known, for the shares.
        quality: What tells a good network.
        costs: Names of the measurements that are told as shares.

    Returns:
        The metrics under their own names, ``drop`` (quality lost: of accuracy in percentage points), latencies by
        target under ``timing/``, the method's own results under ``extra/``, the history under ``epoch/`` with the
        epoch as step, profiles under ``profile/`` with the index of the point as step. MLflow wants a time for each
        value: final numbers get the trial's end, the epochs are spread evenly between its beginning and end.
    """
    extra = {f"extra/{name}": value for name, value in outcome.extra.items()}
    final = {**outcome.metrics, **shares(outcome, dense, costs), **timing_metrics(outcome, dense), **extra}
    if dense is not None and quality.name in dense.metrics and quality.name in outcome.metrics:
        final["drop"] = quality.drop(outcome.metrics[quality.name], dense.metrics[quality.name])
    final |= {f"test_{name}": value for name, value in outcome.test_metrics.items()}
    end = milliseconds(outcome.started + outcome.seconds)
    points = [MetricPoint(name, value, end, 0) for name, value in clean_names(final).items()]
    for index, record in enumerate(outcome.history):
        when = milliseconds(outcome.started + outcome.seconds * (index + 1) / len(outcome.history))
        epoch = int(record.get("epoch", index))
        values = {f"epoch/{name}": value for name, value in record.items() if name != "epoch"}
        points += [MetricPoint(name, value, when, epoch) for name, value in clean_names(values).items()]
    for name, pairs in clean_names({f"profile/{name}": pairs for name, pairs in outcome.profiles.items()}).items():
        points += [MetricPoint(name, value, end, index) for index, (_, value) in enumerate(pairs)]
    return points


def split_finite(points: Iterable[MetricPoint]) -> tuple[list[MetricPoint], str]:
    """Set aside values that are not numbers: MLflow's charts and orderings go wrong with them.

    Args:
        points: Values, finite or not.

    Returns:
        The finite ones, and the names of the others, joined by commas.
    """
    every = list(points)
    odd = {point.name for point in every if not math.isfinite(point.value)}
    return [point for point in every if math.isfinite(point.value)], ", ".join(sorted(odd))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Turn nested mappings into text by dotted name.

    Args:
        values: The mapping; leaves are numbers, texts, ``None`` or lists.
        prefix: What to put before each name.

    Returns:
        Lists as JSON, all else as Python writes it; cut to the 6000 characters that MLflow takes.

    Example:
        >>> flatten({"train": {"epochs": 3, "lr": 0.1}, "methods": ["spp", "increg"]})
        {'train.epochs': '3', 'train.lr': '0.1', 'methods': '["spp", "increg"]'}
    """
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            text = json.dumps(value, default=str) if isinstance(value, list | tuple) else str(value)
            flat[f"{prefix}{name}"] = text[:VALUE_LENGTH]
    return flat


def clean_names(values: Mapping[str, T]) -> dict[str, T]:
    """Give values names that MLflow accepts, never merging two.

    Args:
        values: Values by any name.

    Returns:
        The same values in the same order; a bracketed part becomes a further path element, other characters that
        are not allowed become ``_``, and a name that was taken already gets a ``_`` more.

    Example:
        >>> clean_names({"sparsity.ratios[layer1.0]": 0.5, "a*b": 1, "a+b": 2})
        {'sparsity.ratios/layer1.0': 0.5, 'a_b': 1, 'a_b_': 2}
    """
    clean: dict[str, T] = {}
    for name, value in values.items():
        plain = re.sub(r"[^/\w.\- ]", "_", re.sub(r"\[([^\]]*)\]", r"/\1", name))
        key = posixpath.normpath(plain).strip("./")[:NAME_LENGTH].rstrip("./") or "_"
        while key in clean:
            key += "_"
        clean[key] = value
    return clean


def milliseconds(seconds: float) -> int:
    """Return a time in MLflow's unit.

    Args:
        seconds: Seconds since the epoch (UTC).

    Returns:
        Milliseconds since the epoch.
    """
    return round(seconds * 1000)


def clip_markdown(text: str, length: int) -> str:
    """Cut Markdown between two lines.

    Args:
        text: The text.
        length: How many characters may stay.

    Returns:
        The text, or its first lines and a line that says that more was left out.
    """
    if len(text) <= length:
        return text
    hint = "\n\n(cut here; the whole table is in front/)"
    return text[: length - len(hint)].rpartition("\n")[0] + hint
