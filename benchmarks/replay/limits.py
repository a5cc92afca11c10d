"""Whether what samplers propose keeps to limits, for every method: counted before training, and on recorded trials.

    python -m benchmarks.replay.limits benchmarks/replay/digits.jsonl.gz --proposals 200

For methods whose cost a point tells, proposals under limits are costed exactly. For the others the recorded trials say
how far what was reached lies from the share of the FLOPs that was asked for, and how often a network with so many FLOPs
has more than the parameters.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import optuna

from benchmarks.replay.synthetic import METHODS, Truth, space_and_costs
from benchmarks.replay.table import read_table
from methods import load_method
from search.study.limits import move_within_limits
from search.study.points import spread_points
from search.study.samplers.base import Aim, Limits
from search.study.samplers.making import sampler_maker
from search.study.space import METHOD
from search.study.study import trial_seed
from spaces.dialects import suggest

SAMPLERS = ("exact", "tpe", "random")
LOW, HIGH, PARAMS = 0.2, 0.5, 0.6
"""The limits: least and largest share of the FLOPs, largest share of the parameters."""


def propose(method: str, sampler: str, count: int, store: Path) -> tuple[int, int]:
    """Ask for points under the limits.

    Args:
        method: Name of the method, which is alone in its study.
        sampler: Who proposes.
        count: How many points.
        store: Where a sweep would be stored.

    Returns:
        How many points are outside, and of how many only training tells the cost.
    """
    said = (f"min_flops={LOW}", f"max_flops={HIGH}", f"max_params={PARAMS}")
    planned, costs = space_and_costs((method,), "flops", "digits_resnet", "digits", count, store, said)
    truth = Truth(planned, costs, 0)
    limits = Limits(round(LOW * costs.dense.flops), round(HIGH * costs.dense.flops), round(PARAMS * costs.dense.params))
    aim = Aim(truth.make_aim().axes, limits)
    maker = sampler_maker(sampler, truth.space, aim, costs, 0, count)
    study = optuna.create_study(directions=["maximize", "minimize"])
    first = spread_points(truth.space, truth.methods, count, 0)
    for point in move_within_limits(first, truth.space, limits, costs, costs.dense):
        study.enqueue_trial(point)
    outside = unknown = 0
    for number in range(count):
        study.sampler = maker(trial_seed(0, number))
        trial = study.ask()
        name, own = truth.space.split(suggest(truth.space, trial), METHOD)
        cost = costs(name, own)
        slots = truth.slots[name]
        saving, accuracy = truth.look(name, slots.encode(own)[None])
        if cost is None:
            unknown += 1
        else:
            outside += not limits.is_met_by(cost.flops, cost.params)
        study.tell(trial, [float(accuracy[0]), costs.dense.flops * 2.0 ** -float(saving[0])])
    return outside, unknown


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--proposals", type=int, default=200)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = read_table(given.table, None)
    print(
        "| method | outside, by sampler | cost only by training | recorded trials | reached less asked, in points | "
        "within the FLOPs, beyond the parameters |"
    )
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as store:
        dense = space_and_costs(METHODS[:1], "flops", "digits_resnet", "digits", 1, Path(store))[1].dense.params
        for method in METHODS:
            counted = [propose(method, sampler, given.proposals, Path(store)) for sampler in SAMPLERS]
            target = load_method(method).flops_parameter
            own = [row for row in rows if row["method"] == method and target in row["point"]]
            gaps = np.array([100 * (row["share"] - row["point"][target]) for row in own])
            said = f"{gaps.min():.2f} to {gaps.max():+.2f}" if len(gaps) else "–"
            banded = [row for row in rows if row["method"] == method and LOW <= row["share"] <= HIGH]
            wider = sum(row["metrics"]["params"] > PARAMS * dense for row in banded)
            outside = ", ".join(f"{name} {found[0]}" for name, found in zip(SAMPLERS, counted, strict=True))
            unknown = ", ".join(str(found[1]) for found in counted)
            print(
                f"| `{method}` | {outside} | {unknown} | {len(own)} | {said} | {wider} of {len(banded)} |", flush=True
            )


if __name__ == "__main__":
    main()
