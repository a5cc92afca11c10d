"""What a report is made of: a study as it was read, with all its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from search.fronts.front import Front, Member
from search.fronts.off_the_shelf import OffTheShelf
from search.fronts.quantised import Precision
from search.fronts.scale import GrowingFront
from search.records.outcome import Outcome

Importances = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Importance by parameter, by objective, by method."""


@dataclass(frozen=True)
class StudyView:
    """A study as it was read.

    Attributes:
        front: Its front, over all complete and measured trials.
        outcomes: All finished trials in order of number, failed ones too.
        record: What ``study.json`` holds: ``config``, ``versions`` and so on.
        importances: What decides which objective.
        confirmation: What further seeds said of the front, as ``confirmations/confirmation.json`` holds it; empty if
            it was not confirmed.
        precisions: Networks of the front in 8 bits beside single precision, as far as they were quantised.
        shelf: Networks of somebody's table, to set beside the front.
    """

    front: Front
    outcomes: Sequence[Outcome]
    record: Mapping[str, Any]
    importances: Importances = field(default_factory=dict)
    confirmation: Mapping[str, Any] = field(default_factory=dict)
    precisions: Sequence[Precision] = ()
    shelf: Sequence[OffTheShelf] = ()

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.front.study

    def outcome(self, member: Member) -> Outcome:
        """Find the trial of a network.

        Args:
            member: A network of the front.

        Returns:
            Its outcome.
        """
        return next(outcome for outcome in self.outcomes if outcome.number == member.trial)

    @cached_property
    def growth(self) -> list[tuple[int, float]]:
        """Hypervolume after each finished trial: number of trials and volume."""
        growing = GrowingFront(self.front.objectives, self.front.dense)
        measured = {outcome.number for outcome in self.front.outcomes}
        found = []
        for count, outcome in enumerate(self.outcomes, 1):
            if outcome.number in measured:
                growing.add(outcome.metrics)
            found.append((count, growing.hypervolume()))
        return found
