"""Networks of a front in 8 bits, each a point of its own: quality and time were measured on the quantised network.

Eight bits change neither FLOPs nor parameters: these points stand on a front of quality against time, where each
network in single precision stands, too: both timed in turns, in ONNX Runtime on one core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.fronts.dominance import find_non_dominated
from search.fronts.front import Front


@dataclass(frozen=True)
class Precision:
    """A network in one precision.

    Attributes:
        trial: Number of its trial.
        method: Its method.
        bits: 8 or 32.
        metrics: Metrics of the task on validation.
        test_metrics: The same on test.
        latency: Seconds of one input in ONNX Runtime on one core.
        bytes: Size of the graph on disk.
        leading: Whether none of the others is both better and faster.
    """

    trial: int
    method: str
    bits: int
    metrics: Mapping[str, float]
    test_metrics: Mapping[str, float]
    latency: float
    bytes: int
    leading: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the point in JSON's types.

        Returns:
            Every attribute by name.
        """
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(self).items()}


def precisions(front: Front, stored: Mapping[int, Mapping[str, Any]]) -> list[Precision]:
    """List networks in both precisions, and say which lead in quality and time.

    Args:
        front: The front; networks that are no longer on it are left out.
        stored: By trial what was measured (:func:`search.driver.networks.add_quantised`).

    Returns:
        Two points for each network that was quantised, the fastest point first.
    """
    found = []
    for member in front.members:
        entry = stored.get(member.trial)
        if entry is None:
            continue
        times, sizes = entry["latency"], entry["bytes"]
        found += [
            Precision(
                member.trial, member.method, 32, member.metrics, member.test_metrics, times["whole"], sizes["whole"]
            ),
            Precision(
                member.trial, member.method, 8, entry["metrics"], entry["test_metrics"], times["int8"], sizes["int8"]
            ),
        ]
    return _add_leaders(sorted(found, key=lambda each: each.latency), front)


def _add_leaders(points: Sequence[Precision], front: Front) -> list[Precision]:
    if not points:
        return []
    values = [[each.metrics[front.quality.name], each.latency] for each in points]
    leading = find_non_dominated(values, [front.quality.maximise, False])
    return [Precision(**vars(each) | {"leading": bool(leads)}) for each, leads in zip(points, leading, strict=True)]
