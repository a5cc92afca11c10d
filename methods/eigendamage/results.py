"""What a decision of EigenDamage comes to, layer by layer, as numbers for the trial's record."""

from __future__ import annotations

from collections.abc import Mapping

from methods.eigendamage.eigenspace import Kept, Rewritten
from methods.eigendamage.rewriting_plan import Plan


def count_removed(job: Plan, kept: Mapping[str, Kept]) -> float:
    """Count what is gone.

    Args:
        job: The layers that may be rewritten.
        kept: What is kept of each.

    Returns:
        The share of all their directions that is gone.
    """
    left = sum(job.shapes[name].groups * (each.columns + each.rows) for name, each in kept.items())
    return 1 - left / sum(shape.inputs + shape.outputs for shape in job.shapes.values())


def layer_results(job: Plan, kept: Mapping[str, Kept], built: Rewritten) -> dict[str, float]:
    """Report what became of every layer that has weights.

    Args:
        job: The layers that may be rewritten, and those that may not.
        kept: What is kept of each.
        built: The rewritten network.

    Returns:
        ``rank_in[NAME]``, ``rank_out[NAME]`` and ``separation_error[NAME]`` of rewritten layers,
        ``left_dense[NAME]`` of the others and ``layers_left_dense``, their number.
    """
    found: dict[str, float] = {}
    dense = [*job.left]
    for name, each in kept.items():
        if each.form.segments is None:
            dense.append(name)
            continue
        groups = job.shapes[name].groups
        found |= {f"rank_in[{name}]": float(groups * each.columns), f"rank_out[{name}]": float(groups * each.rows)}
    found |= {f"separation_error[{name}]": error for name, error in built.separation_errors.items()}
    return found | {"layers_left_dense": float(len(dense))} | {f"left_dense[{name}]": 1.0 for name in dense}
