"""What ``doctor`` found, as tables for the terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from search.objectives.units import write_count, write_duration
from search.report.fitted import Column, FittedTable


def diagnosis_tables(found: Mapping[str, Any]) -> list[FittedTable | Text]:
    """Lay out a diagnosis.

    Args:
        found: What ``doctor --json`` prints.

    Returns:
        Tables of groups, of what stays and of methods, with a summary at the end.
    """
    groups = found["groups"]
    coupled = [_summarise_names(group["couplings"]) for group in groups]
    tables: list[FittedTable | Text] = [
        FittedTable(
            f"{found['model']}: what can be removed",
            [
                Column("group", [group["name"] for group in groups], words=True),
                Column("units", [str(group["units"]) for group in groups]),
                Column("FLOPs", [f"{group['flops_share']:.1%}" for group in groups], rank=1),
                Column("parameters", [f"{group['params_share']:.1%}" for group in groups], rank=3),
                Column("map", [group["stage"] for group in groups], rank=4),
                Column("modules", [str(len(group["modules"])) for group in groups], rank=2),
                Column("sums over its channels", coupled, rank=5, words=True),
            ],
            caption="FLOPs and parameters: what goes with all units but one of this group alone",
        )
    ]
    reasons: dict[str, list[str]] = defaultdict(list)
    for name, why in {**found["stays"], **found["left_out"]}.items():
        reasons[why].append(name)
    if reasons:
        layers = [_summarise_names(names) for names in reasons.values()]
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


def _summarise_names(names: Sequence[str]) -> str:
    """Name the first and count the others."""
    return "" if not names else names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _summary(found: Mapping[str, Any]) -> list[str]:
    flops, params = found["reachable_flops_share"][0], found["reachable_params_share"][0]
    lines = [
        f"proven: {', '.join(found['proofs'])} (largest difference {found['difference']:.1g})",
        f"reachable: {flops:.1%} to 100% of {write_count(found['dense']['flops'])} FLOPs, "
        f"{params:.1%} to 100% of {write_count(found['dense']['params'])} parameters",
    ]
    return [*lines, *training_lines(found)]


def training_lines(found: Mapping[str, Any]) -> list[str]:
    """Say what training takes, as far as it is known.

    Args:
        found: ``training``, ``steps_per_trial``, ``batch_size``, ``seconds_per_trial`` and ``megabytes_per_trial``.

    Returns:
        A line for a step and one for a trial; nothing where nothing can be trained.
    """
    step = found["training"]
    if step is None:
        return []
    lines = [
        f"a step of training: {step['seconds_per_step']:.2g} s on this CPU for {step['batch']} examples, about "
        f"{step['megabytes_per_step']:.0f} MB and {step['megabytes_per_example']:.1f} MB for each further example"
    ]
    if found["seconds_per_trial"] is None:
        return [*lines, "a trial: name its data to have its time guessed (--data)"]
    return [
        *lines,
        f"a trial: about {write_duration(found['seconds_per_trial'])} on this CPU and "
        f"{found['megabytes_per_trial']:.0f} MB, {found['steps_per_trial']} steps of {found['batch_size']} examples",
    ]
