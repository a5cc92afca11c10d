"""What MLflow's page shows of an experiment when it is opened at one of the prepared views.

The format is MLflow's own and not documented (read from its code, version 3.17). Nothing depends on it: should
it change, the page opens with MLflow's own columns.
"""

from __future__ import annotations

from typing import Any

VIEW_TAG = "mlflow.sharedViewState."
"""An experiment's tags of this name hold views, as JSON."""

# Widths in pixels, in order. MLflow knows the columns of its own by field or title.
_COLUMNS = {
    "attributes.`Run Name`": 220,
    "params.`method`": 100,
    "metrics.`accuracy`": 85,
    "metrics.`test_accuracy`": 105,
    "metrics.`drop`": 75,
    "metrics.`flops_share`": 95,
    "metrics.`params_share`": 105,
    "metrics.`latency_share`": 110,
    "metrics.`pareto_rank`": 100,
    "metrics.`seconds`": 80,
    "runDateAndNestInfo": 130,
    "duration": 80,
}


def prepared_views() -> dict[str, dict[str, Any]]:
    """Describe the prepared views.

    Returns:
        By tag of the experiment: ``sweeps``, the newest sweep first with its trials below it, and ``trials``,
        the trials of all sweeps and their dense networks, the best first. Both have columns for the objectives, and
        charts of accuracy against cost.
    """
    shared = {
        "selectedColumns": [column for column in _COLUMNS if "`" in column and "Run Name" not in column],
        "columnOrder": list(_COLUMNS),
        "columnWidths": _COLUMNS,
        "runsHiddenMode": "SHOW_ALL",
        **_charts(),
    }
    # MLflow applies the filter only together with an order.
    ranked = {"searchFilter": "tags.kind != 'sweep'", "orderByKey": "metrics.`pareto_rank`", "orderByAsc": True}
    return {f"{VIEW_TAG}sweeps": shared, f"{VIEW_TAG}trials": {**shared, **ranked}}


def _charts() -> dict[str, Any]:
    """Return the page of charts: accuracy against FLOPs and against parameters."""
    ours = {"deleted": False, "isGenerated": False}
    section = {
        "uuid": "front",
        "name": "Accuracy and cost",
        "display": True,
        "isReordered": False,
        "columns": 2,
        "cardHeight": 460,
    }
    charts = [
        {
            "type": "SCATTER",
            "uuid": f"accuracy-{cost}",
            "metricSectionId": "front",
            "runsCountToCompare": 100,
            "xaxis": {"key": cost, "type": "METRIC"},
            "yaxis": {"key": "accuracy", "type": "METRIC"},
            **ours,
        }
        for cost in ("flops_share", "params_share")
    ]
    return {"isAccordionReordered": True, "compareRunSections": [{**section, **ours}], "compareRunCharts": charts}
