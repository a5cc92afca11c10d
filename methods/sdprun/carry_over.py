"""The state of dual averaging, carried from a network over to what is left of it after a cut."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from methods.sdprun.dual_averaging import GroupDualAveraging


@torch.no_grad()
def carry_over(
    old: GroupDualAveraging, new: GroupDualAveraging, places: Sequence[Tensor], units: Sequence[Sequence[int]]
) -> None:
    """Give the optimiser of a cut network the state of the optimiser of the whole one.

    A unit that is left has lost the weights that read removed units, but what its ``v`` holds of them still
    counts in its norm: they are frozen, not gone. Their squared norm is carried along.

    Args:
        old: Optimiser of the whole network.
        new: Optimiser of the cut network, as it was built; changed in place.
        places: What :func:`methods.network.compaction.positions` returned.
        units: Kept units of each group, in the order of the rows of the tables.
    """
    before, after = old.param_groups[0], new.param_groups[0]
    for parameter, whole, place in zip(after["params"], before["params"], places, strict=True):
        new.state[parameter] = {
            key: value.reshape(-1)[place] for key, value in {"dual": old.dual(whole), **old.state[whole]}.items()
        }
    squared = old.compute_squared_norms()
    factors = torch.zeros_like(after["factors"])
    whole_squared = torch.zeros_like(new.kappa)
    for row, left in enumerate(units):
        new.kappa[row, : len(left)] = old.kappa[row, left]
        factors[row, : len(left)] = before["factors"][row, left]
        whole_squared[row, : len(left)] = squared[row, left]
    new.dead_squared = (whole_squared - new.compute_squared_norms()).clamp_min(0)
    new.element_kappas, new.least = list(old.element_kappas), old.least
    after.update({key: before[key] for key in ("lr", "scale", "n", "threshold", "hold", "level")})
    new.set_factors(factors)
