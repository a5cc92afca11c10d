"""What MLflow's page shows of an experiment when it is opened at one of the prepared views.

The format is MLflow's own and not documented (read from its code, version 3.17). Nothing depends on it: should
it change, the page opens with MLflow's own columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

APP = "paretoprune"
"""The entry point by which MLflow finds :mod:`search.tracking.ui_app`."""

START = "/paretoprune"
"""The path of the start page there."""

VIEW_TAG = "mlflow.sharedViewState."
"""An experiment's tags of this name hold views, as JSON."""


def _columns(quality: str, costs: Sequence[str]) -> dict[str, int]:
    """Widths in pixels, in order: 1600 hold them. MLflow knows the columns of its own by field or title."""
    narrow = {f"metrics.`{cost}_share`": 100 for cost in costs[:4]}
    return {
        "attributes.`Run Name`": 220,
        "params.`method`": 100,
        f"metrics.`{quality}`": 90,
        f"metrics.`test_{quality}`": 105,
        "metrics.`drop`": 70,
        **narrow,
        "metrics.`pareto_rank`": 95,
        "metrics.`seconds`": 75,
        "runDateAndNestInfo": 130,
        "duration": 80,
    }


def describe_views(
    quality: str = "accuracy", costs: Sequence[str] = ("flops", "params", "latency")
) -> dict[str, dict[str, Any]]:
    """Describe the prepared views.

    Args:
        quality: Name of the metric that tells a good network.
        costs: Names of what is saved, the first objective first.

    Returns:
        By tag of the experiment: ``sweeps``, the newest sweep first with its trials below it, and ``trials``,
        the trials of all sweeps and their dense networks, the best first. Both have columns for the objectives, and
        charts of quality against cost.
    """
    columns = _columns(quality, costs)
    shared = {
        "selectedColumns": [column for column in columns if "`" in column and "Run Name" not in column],
        "columnOrder": list(columns),
        "columnWidths": columns,
        "runsHiddenMode": "SHOW_ALL",
        **_charts(quality, costs),
    }
    # MLflow applies the filter only together with an order.
    ranked = {"searchFilter": "tags.kind != 'sweep'", "orderByKey": "metrics.`pareto_rank`", "orderByAsc": True}
    return {f"{VIEW_TAG}sweeps": shared, f"{VIEW_TAG}trials": {**shared, **ranked}}


def _charts(quality: str, costs: Sequence[str]) -> dict[str, Any]:
    """Return the page of charts: quality against the first two costs."""
    ours = {"deleted": False, "isGenerated": False}
    section = {
        "uuid": "front",
        "name": f"{quality} and cost",
        "display": True,
        "isReordered": False,
        "columns": 2,
        "cardHeight": 460,
    }
    charts = [
        {
            "type": "SCATTER",
            "uuid": f"{quality}-{cost}_share",
            "metricSectionId": "front",
            "runsCountToCompare": 100,
            "xaxis": {"key": f"{cost}_share", "type": "METRIC"},
            "yaxis": {"key": quality, "type": "METRIC"},
            **ours,
        }
        for cost in costs[:2]
    ]
    return {"isAccordionReordered": True, "compareRunSections": [{**section, **ours}], "compareRunCharts": charts}
