"""Which methods made a front: what it would lose without each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from search.fronts.front import Front


@dataclass(frozen=True)
class Share:
    """What one method gave to a front.

    Attributes:
        method: The method.
        trials: Its complete trials.
        members: Its members of the front.
        lost: Hypervolume that the study would lack without its trials.
    """

    method: str
    trials: int
    members: int
    lost: float


def attribute_methods(front: Front) -> list[Share]:
    """Measure what the front of a study would lose without each of its methods.

    Args:
        front: The front, with all complete trials.

    Returns:
        One share for each method, the most needed first. What two methods reach alike is lost by neither, so the losses
        need not add up to the hypervolume.
    """
    whole = front.hypervolume()
    trials: Mapping[str, int] = _counts([outcome.method for outcome in front.outcomes])
    members = _counts([member.method for member in front.members])
    shares = []
    for method in trials:
        without = replace(front, outcomes=[outcome for outcome in front.outcomes if outcome.method != method])
        lost = max(0.0, whole - without.hypervolume())  # which rounding makes negative
        shares.append(Share(method, trials[method], members.get(method, 0), lost))
    return sorted(shares, key=lambda share: -share.lost)


def _counts(names: list[str]) -> dict[str, int]:
    return {name: names.count(name) for name in dict.fromkeys(names)}
