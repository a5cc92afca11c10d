"""What ``doctor`` found, as tables for the terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from rich.text import Text

from search.objectives.units import write_count
from search.report.fitted import Column, FittedTable


def diagnosis_tables(found: Mapping[str, Any]) -> list[FittedTable | Text]:
    """Lay out a diagnosis.

    Args:
        found: What ``doctor --json`` prints.

    Returns:
        Tables of groups, of what stays and of methods, with a summary at the end.
    """
    groups = found["groups"]
    coupled = [", ".join(group["couplings"]) for group in groups]
    tables: list[FittedTable | Text] = [
        FittedTable(
            f"{found['model']}: what can be removed",
            [
                Column("group", [group["name"] for group in groups], words=True),
                Column("units", [str(group["units"]) for group in groups]),
                Column("map", [group["stage"] for group in groups], rank=2),
                Column("modules", [str(len(group["modules"])) for group in groups], rank=1),
                Column("sums over its channels", coupled, rank=3, words=True),
            ],
        )
    ]
    reasons: dict[str, list[str]] = defaultdict(list)
    for name, why in {**found["stays"], **found["left_out"]}.items():
        reasons[why].append(name)
    if reasons:
        layers = [names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "") for names in reasons.values()]
        columns = [Column("layer", layers, words=True), Column("why", list(reasons), words=True)]
        tables.append(FittedTable("What stays whole", columns))
    methods = found["methods"]
    tables.append(
        FittedTable(
            "Methods",
            [
                Column("method", list(methods), words=True),
                Column("applies", [each["why"] or "yes" for each in methods.values()], words=True),
            ],
        )
    )
    tables.append(Text("\n".join(_summary(found))))
    return tables


def _summary(found: Mapping[str, Any]) -> list[str]:
    flops, params = found["reachable_flops_share"][0], found["reachable_params_share"][0]
    lines = [
        f"proven: {', '.join(found['proofs'])} (largest difference {found['difference']:.1g})",
        f"reachable: {flops:.1%} to 100% of {write_count(found['dense']['flops'])} FLOPs, "
        f"{params:.1%} to 100% of {write_count(found['dense']['params'])} parameters",
    ]
    if found["megabytes_per_trial"] is not None:
        lines.append(f"memory of a trial: about {found['megabytes_per_trial']:.0f} MB, and more with each example")
    if found["seconds_per_trial"] is not None:
        lines.append(f"time of a trial: about {found['seconds_per_trial']:.0f} s on this CPU")
    return lines
