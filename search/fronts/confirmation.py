"""What further seeds say of a front: means and intervals, which members noise cannot tell apart, optimism.

A member was chosen because its one measurement was good, and that measurement was partly luck. Runs with further seeds
were not chosen: their mean is what the member is worth. Two members are compared seed by seed, for a seed decides the
order of the data for both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from search.fronts.dominance import find_attained
from search.fronts.front import Front
from search.fronts.member import Member
from search.objectives import Objective
from search.records.intervals import CONFIDENCE, half_width
from search.records.outcome import Outcome

Verdict = Literal["confirmed", "merged", "beaten", "open"]
"""What became of a member: it stands; noise cannot tell it from a cheaper one; a cheaper one is better beyond noise;
or too few of its reruns gave a network."""


@dataclass(frozen=True)
class Spread:
    """One quantity over further seeds.

    Attributes:
        values: One value per seed that gave one.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean; NaN without values."""
        return fmean(self.values) if self.values else math.nan

    @property
    def half_width(self) -> float:
        """Half the width of the interval of the mean; NaN for fewer than two values."""
        return half_width(self.values)

    def to_json(self) -> dict[str, Any]:
        """Return the spread in JSON's types.

        Returns:
            ``mean``, ``half_width`` (``None`` where they are not known) and ``values``.
        """
        numbers = {"mean": self.mean, "half_width": self.half_width}
        return {name: None if math.isnan(value) else value for name, value in numbers.items()} | {
            "values": list(self.values)
        }


@dataclass(frozen=True)
class ConfirmedMember:
    """A member of a front and its reruns.

    Attributes:
        member: The member, with what its trial recorded.
        reruns: Outcomes with further seeds by index of the seed, failed ones included.
        verdict: What became of it.
        into: Trial of the member that it was merged into or is beaten by; ``None`` for others.
    """

    member: Member
    reruns: Mapping[int, Outcome]
    verdict: Verdict = "open"
    into: int | None = None

    @property
    def complete(self) -> dict[int, Outcome]:
        """The reruns that gave a network, by index of the seed."""
        return {index: outcome for index, outcome in self.reruns.items() if outcome.complete}

    def validation(self, name: str) -> Spread:
        """Collect a measurement of the reruns.

        Args:
            name: Name of an objective or a metric.

        Returns:
            Its values in order of the seeds.
        """
        done = self.complete
        return Spread(tuple(done[index].metrics[name] for index in sorted(done) if name in done[index].metrics))

    def test(self, name: str) -> Spread:
        """Collect a metric of the reruns on the test set.

        Args:
            name: Name of the metric.

        Returns:
            Its values; none for members that were not tested.
        """
        done = self.complete
        return Spread(
            tuple(done[index].test_metrics[name] for index in sorted(done) if name in done[index].test_metrics)
        )

    def optimism(self, objective: Objective) -> Spread:
        """Say how much better validation makes each rerun look than the test set.

        Args:
            objective: A metric of the task.

        Returns:
            Validation minus test, network by network, with the sign turned where less is better.
        """
        name, sign = objective.name, 1.0 if objective.maximise else -1.0
        pairs = [
            (outcome.metrics[name], outcome.test_metrics[name])
            for _, outcome in sorted(self.complete.items())
            if name in outcome.metrics and name in outcome.test_metrics
        ]
        return Spread(tuple(sign * (seen - unseen) for seen, unseen in pairs))

    def to_json(self, objectives: Sequence[Objective], tested: Sequence[Objective]) -> dict[str, Any]:
        """Return the member in JSON's types.

        Args:
            objectives: What the study searches for.
            tested: Metrics of the task.

        Returns:
            Verdict, spreads on validation beside the recorded values, on the test set, and the optimism.
        """
        failed = [outcome for outcome in self.reruns.values() if not outcome.complete]
        return {
            "trial": self.member.trial,
            "method": self.member.method,
            "verdict": self.verdict,
            "into": self.into,
            "complete": len(self.complete),
            "failed": [((each.error or "").strip().splitlines() or [each.state])[-1] for each in failed],
            "validation": {
                each.name: {"recorded": self.member.metrics[each.name]} | self.validation(each.name).to_json()
                for each in objectives
            },
            "test": {each.name: self.test(each.name).to_json() for each in tested if self.test(each.name).values},
            "optimism": {each.name: self.optimism(each).to_json() for each in tested if self.optimism(each).values},
        }


@dataclass(frozen=True)
class Confirmation:
    """A front over further seeds.

    Attributes:
        front: The front as it was recorded.
        seeds: How many further seeds there are.
        members: Its members by ascending cost.
    """

    front: Front
    seeds: int
    members: tuple[ConfirmedMember, ...]

    @property
    def confirmed(self) -> tuple[ConfirmedMember, ...]:
        """The members that stand."""
        return tuple(each for each in self.members if each.verdict == "confirmed")

    @property
    def tested(self) -> tuple[Objective, ...]:
        """The metrics of the task, which the test set has as well."""
        return tuple(each for each in self.front.shown.values() if each.quality and each.trained)

    def optimism(self, objective: Objective) -> Spread:
        """Say how much better validation looks than test, over all networks that were tested.

        Args:
            objective: A metric of the task.

        Returns:
            The mean of each confirmed member's :meth:`ConfirmedMember.optimism`.
        """
        return Spread(tuple(each.optimism(objective).mean for each in self.members if each.optimism(objective).values))

    def estimate_luck(self, objective: Objective) -> Spread:
        """Say how much better the recorded values look than reruns: what choosing the best of many adds.

        Args:
            objective: An objective of the study.

        Returns:
            Recorded minus mean of the reruns, member by member, with the sign turned where less is better.
        """
        name, sign = objective.name, 1.0 if objective.maximise else -1.0
        rows = [(each.member.metrics[name], each.validation(name)) for each in self.members]
        return Spread(tuple(sign * (recorded - again.mean) for recorded, again in rows if again.values))

    def attainment(self) -> dict[str, list[dict[str, float]]]:
        """Find what fronts of single seeds reach: the band that a front of one more seed is expected in.

        Returns:
            The points that the reruns of ``all`` seeds reach, of ``half`` of them, and of ``any`` of them: values by
            name of the objective. Empty where fewer than two seeds measured every objective, or there are more than
            three objectives.
        """
        names = [objective.name for objective in self.front.objectives]
        fronts = []
        for index in range(self.seeds):
            runs = [each.complete[index] for each in self.members if index in each.complete]
            points = [[run.metrics[name] for name in names] for run in runs if not run.list_missing(names)]
            if points:
                fronts.append(points)
        if len(fronts) < 2 or len(names) > 3:
            return {}
        maximise = [objective.maximise for objective in self.front.objectives]
        return {
            name: [dict(zip(names, point, strict=True)) for point in find_attained(fronts, maximise, share).tolist()]
            for name, share in (("all", 1.0), ("half", 0.5), ("any", 1.0 / len(fronts)))
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything in JSON's types.

        Returns:
            A mapping that ``json.dumps(..., allow_nan=False)`` accepts.
        """
        qualities = [each for each in self.front.objectives if each.quality]
        return {
            "study": self.front.study,
            "seeds": self.seeds,
            "confidence": CONFIDENCE,
            "objectives": [objective.name for objective in self.front.objectives],
            "confirmed": [each.member.trial for each in self.confirmed],
            "luck": {each.name: self.estimate_luck(each).to_json() for each in qualities},
            "optimism": {each.name: self.optimism(each).to_json() for each in self.tested},
            "attainment": self.attainment(),
            "members": [each.to_json(self.front.objectives, self.tested) for each in self.members],
        }


def judge(front: Front, reruns: Mapping[int, Mapping[int, Outcome]], seeds: int) -> Confirmation:
    """Decide which members of a front stand.

    A member does not stand if another one costs no more and nothing speaks for it beyond noise. Members are gone
    through by ascending cost, so that of two that noise cannot tell apart the cheaper one stays.

    Args:
        front: The front.
        reruns: Outcomes by trial and index of the seed.
        seeds: How many further seeds there are.

    Returns:
        Every member with its verdict.
    """
    found = [ConfirmedMember(member, reruns.get(member.trial, {})) for member in front.members]
    names = [objective.name for objective in front.objectives]
    judged = [each for each in found if len(_find_measured(each, names)) > 1]
    cost = front.cost

    def order(each: ConfirmedMember) -> tuple[float, int]:
        own = each.validation(cost.name).mean
        return -own if cost.maximise else own, each.member.trial

    standing: list[ConfirmedMember] = []
    covers: dict[int, ConfirmedMember] = {}
    ordered = sorted(judged, key=order)
    for each in ordered:
        cover = next((other for other in reversed(standing) if not _is_better_in_any(each, other, front)), None)
        if cover is None:
            standing.append(each)
        else:
            covers[each.member.trial] = cover
    for each in list(standing):  # where costs scatter, too, a later one may cover an earlier one
        others = (other for other in standing if other is not each)
        cover = next((other for other in others if not _is_better_in_any(each, other, front)), None)
        if cover is not None:
            standing.remove(each)
            covers[each.member.trial] = cover
    verdicts: dict[int, tuple[Verdict, int | None]] = {}
    for each in ordered:
        cover = covers.get(each.member.trial)
        if cover is None:
            verdicts[each.member.trial] = "confirmed", None
            continue
        while cover.member.trial in covers:
            cover = covers[cover.member.trial]
        beaten = any(_is_better(cover, each, objective) for objective in front.objectives if objective.quality)
        verdicts[each.member.trial] = "beaten" if beaten else "merged", cover.member.trial
    members = []
    for each in found:
        verdict, into = verdicts.get(each.member.trial, ("open", None))
        members.append(ConfirmedMember(each.member, each.reruns, verdict, into))
    return Confirmation(front, seeds, tuple(members))


def _find_measured(each: ConfirmedMember, names: Sequence[str]) -> list[int]:
    """List the seeds that measured every objective."""
    return [index for index, outcome in each.complete.items() if not outcome.list_missing(names)]


def _is_better_in_any(each: ConfirmedMember, other: ConfirmedMember, front: Front) -> bool:
    """Whether a member is better than another in anything, beyond noise."""
    return any(_is_better(each, other, objective) for objective in front.objectives)


def _is_better(one: ConfirmedMember, other: ConfirmedMember, objective: Objective) -> bool:
    """Whether one member is better than another by more than the interval of their paired difference.

    With fewer than two seeds in common the two are compared by Welch's interval of independent means.

    Args:
        one: A member.
        other: Another one.
        objective: What they are compared by.

    Returns:
        Whether it is; not if that cannot be decided.
    """
    name, sign = objective.name, 1.0 if objective.maximise else -1.0
    left, right = one.complete, other.complete
    common = [i for i in sorted(left.keys() & right.keys()) if name in left[i].metrics and name in right[i].metrics]
    if len(common) > 1:
        gains = [sign * (left[i].metrics[name] - right[i].metrics[name]) for i in common]
        return fmean(gains) > half_width(gains)
    first, second = one.validation(name), other.validation(name)
    if min(len(first.values), len(second.values)) < 2:
        return False
    return sign * (first.mean - second.mean) > welch_half_width(first.values, second.values)


def welch_half_width(first: Sequence[float], second: Sequence[float]) -> float:
    """Return half the width of the interval of the difference of two means of unequal variance (Welch).

    Args:
        first: Two values or more.
        second: Two values or more.

    Returns:
        The half width at :data:`search.records.intervals.CONFIDENCE`; 0 where neither scatters.

    Example:
        >>> round(welch_half_width([1.0, 2.0, 3.0], [4.0, 6.0, 8.0]), 3)
        4.155
    """
    from scipy.stats import ttest_ind

    if len({*first}) == len({*second}) == 1:
        return 0.0
    interval = ttest_ind(first, second, equal_var=False).confidence_interval(CONFIDENCE)
    return float(interval.high - interval.low) / 2
