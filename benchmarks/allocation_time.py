"""How long the solver of damage allocation takes for one budget, and for a whole front of them.

    python -m benchmarks.allocation_time torchvision:resnet50

The curves are made up (damage grows with the square of what is removed, three times as steep in some groups as in
others): what they are decides which widths are best, not how long it takes to find them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from methods.network.channels import channel_groups
from methods.network.cost import CostModel
from search.tasks.layer_groups import network_and_example
from spaces.budget import choose_best_widths
from spaces.layers import allowed_widths

SHARES = tuple(part / 20 for part in range(2, 19))
"""Budgets of the front, as shares of the FLOPs."""


def main() -> None:
    """Solve, and print the seconds of the processor."""
    model, example = network_and_example(sys.argv[1], None, Path("data"))
    groups = channel_groups(model.eval(), example)
    cost = CostModel(model, example, groups)
    curves, allowed = {}, {}
    for number, group in enumerate(groups):
        widths = sorted({max(1, round(group.channels * part / 8)) for part in range(9)})
        curves[group.name] = [(width, (1 + number % 3) * (1 - width / group.channels) ** 2) for width in widths]
        allowed[group.name] = allowed_widths(group.layer, 1)
    for shares in ((0.5,), SHARES):
        began = time.process_time()
        choose_best_widths(curves, lambda rows: cost.batch(rows)[0], [share * cost.dense for share in shares], allowed)
        print(f"{len(groups)} groups, {len(shares)} budgets: {time.process_time() - began:.1f} s")


if __name__ == "__main__":
    main()
