"""The Pareto front of a study: which pruned networks no other one beats, and how to choose among them.

Everything that is shown of a front (columns, orders, limits, picks) is made from the objectives of its study and the
metrics of its task. Light to import: pandas is imported by the function that needs it, and what draws is handed in, for
pictures are made of fronts and not the other way round.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from search.fronts.dominance import find_non_dominated, hypervolume, knee
from search.fronts.member import Member, Rebuild
from search.fronts.rows import Rows, csv_text
from search.fronts.scale import DROP, GrowingFront
from search.objectives import OBJECTIVES, Objective, list_shown_objectives
from search.records.outcome import DenseRow, Outcome
from spaces import InputError, explain_unknown_name

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

__all__ = ["PICKS", "Front", "FrontViews", "Member"]

Found = TypeVar("Found")

_LIMIT = re.compile(r"\s*([A-Za-z]\w*)\s*(<=|>=|<|>)\s*(\S.*?)\s*")
_HOLDS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": lambda value, limit: value <= limit,
    ">=": lambda value, limit: value >= limit,
    "<": lambda value, limit: value < limit,
    ">": lambda value, limit: value > limit,
}


class FrontViews(Protocol):
    """Draws fronts, and shows them and their networks in notebooks."""

    def figure(self, front: Front) -> Figure:
        """Draw quality against cost.

        Args:
            front: The front.

        Returns:
            The picture.
        """

    def save(self, front: Front, path: str | os.PathLike[str]) -> None:
        """Write the picture into a file.

        Args:
            front: The front.
            path: The file; its suffix decides the format.
        """

    def front_html(self, front: Front) -> str:
        """Show a front in a notebook.

        Args:
            front: The front.

        Returns:
            HTML.
        """

    def member_html(self, member: Member) -> str:
        """Show one network in a notebook.

        Args:
            member: The network.

        Returns:
            HTML.
        """


@dataclass(frozen=True, eq=False)
class Front:
    """The complete trials of a study and the front among them.

    Attributes:
        study: Name of the study.
        dense: The dense network that was pruned.
        outcomes: The complete outcomes, by number of the trial.
        objectives: What was optimised; decides who is on the front.
        rebuild: Rebuilds the network of a trial; ``None`` for numbers alone.
        metrics: Descriptions of the metrics of the task, those that are no objectives included.
        worthless: Loss of quality at which a network counts nothing in the hypervolume, as a share of its range.
        views: Draws the front and shows it in notebooks; ``None`` for numbers alone.
        outside: Numbers of complete trials that came out beyond a limit of the study; they are no outcomes here.
    """

    study: str
    dense: DenseRow
    outcomes: Sequence[Outcome]
    objectives: tuple[Objective, ...]
    rebuild: Rebuild | None = field(default=None, repr=False)
    metrics: tuple[Objective, ...] = ()
    worthless: float = DROP
    views: FrontViews | None = field(default=None, repr=False)
    outside: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.outcomes, key=lambda outcome: outcome.number))
        object.__setattr__(self, "outcomes", ordered)
        for outcome in ordered:
            if outcome.state != "complete":
                raise ValueError(f"trial {outcome.number} of study {self.study!r} is {outcome.state}")
            for objective in self.objectives:
                if objective.name not in outcome.metrics:
                    raise ValueError(f"trial {outcome.number} was not measured for {objective.name!r}")

    # What there is to tell

    @cached_property
    def shown(self) -> Mapping[str, Objective]:
        """What is known of every network by name: qualities, then the usual costs, then other objectives."""
        return list_shown_objectives(self.objectives, self.metrics, self.dense)

    @cached_property
    def quality(self) -> Objective:
        """What tells a good network: the first objective of the study that does."""
        return next(objective for objective in (*self.objectives, *self.shown.values()) if objective.quality)

    @cached_property
    def cost(self) -> Objective:
        """What is saved: the first objective of the study that is a cost; FLOPs if there is none."""
        return next((each for each in self.objectives if not each.quality), OBJECTIVES["flops"])

    @property
    def timed(self) -> bool:
        """Whether latency was measured in this study."""
        return self.dense.latency is not None

    def dense_value(self, objective: Objective) -> float | None:
        """Return a value of the dense network.

        Args:
            objective: What is asked for.

        Returns:
            The measured value. What only a decision can have, such as the damage that it does, is ideal for a network
            from which nothing was removed; ``None`` for anything else that was not measured.
        """
        ideal = objective.ideal if objective.quality and not objective.trained else None
        return self.dense.metrics.get(objective.name, ideal)

    # Who is on the front

    @cached_property
    def _split(self) -> tuple[tuple[Member, ...], tuple[Member, ...]]:
        """Members on the front and the others, both by ascending FLOPs."""
        shown = tuple(self.shown.values())
        html = None if self.views is None else self.views.member_html
        rows = [Member.from_outcome(outcome, self.dense, self.rebuild, shown, html) for outcome in self.outcomes]
        on_front = find_non_dominated(self._values(rows), self._maximise)
        # Among equal FLOPs (possible with other objectives) the best comes first.
        ranked = sorted(
            zip(rows, on_front, strict=True), key=lambda row: (row[0].flops, -self._measure_quality(row[0]))
        )
        front = tuple(member for member, best in ranked if best)
        return front, tuple(member for member, best in ranked if not best)

    @property
    def members(self) -> tuple[Member, ...]:
        """The networks that no other one beats in all objectives, by ascending FLOPs; of ties the first trial."""
        return self._split[0]

    @property
    def dominated(self) -> tuple[Member, ...]:
        """The other complete trials, by ascending FLOPs; also those that tie with a member."""
        return self._split[1]

    @cached_property
    def _ties(self) -> dict[int, tuple[Member, ...]]:
        places = {tuple(values): member.trial for member, values in self._pair_with_values(self.members)}
        found: dict[int, list[Member]] = {}
        for member, values in self._pair_with_values(self.dominated):
            if tuple(values) in places:
                found.setdefault(places[tuple(values)], []).append(member)
        return {trial: tuple(sorted(ties, key=lambda tie: tie.trial)) for trial, ties in found.items()}

    def ties(self, member: Member) -> tuple[Member, ...]:
        """Find the trials that reach exactly the same as a member of the front.

        Args:
            member: A member.

        Returns:
            Later trials with the same value of every objective, by number: often another method, sometimes chance.
        """
        return self._ties.get(member.trial, ())

    @property
    def _maximise(self) -> list[bool]:
        return [objective.maximise for objective in self.objectives]

    def _values(self, members: Sequence[Member]) -> list[list[float]]:
        """Return the values of the objectives, ``[members, objectives]``."""
        return [[member.metrics[objective.name] for objective in self.objectives] for member in members]

    def _pair_with_values(self, members: Sequence[Member]) -> zip[tuple[Member, list[float]]]:
        return zip(members, self._values(members), strict=True)

    def _measure_quality(self, member: Member) -> float:
        value = member.metrics[self.quality.name]
        return value if self.quality.maximise else -value

    # Choosing

    def filter(
        self,
        max_flops: str | float | None = None,
        min_accuracy: str | float | None = None,
        max_params: str | float | None = None,
        method: str | None = None,
        max_latency: str | None = None,
        limits: Sequence[str] = (),
    ) -> Front:
        """Keep the trials that meet all limits, and take the front among them.

        Args:
            max_flops: Upper limit, a share of the dense network (``"50%"``, ``0.5``) or a count (``"20M"``).
            min_accuracy: Least validation accuracy, a share (``0.95``, ``"95%"``).
            max_params: Upper limit, written like ``max_flops``.
            method: The only method to keep; one that no trial used is an ``InputError``, like a limit that
                cannot be read.
            max_latency: Upper limit on the measured latency, a time (``"2ms"``) or a share (``"50%"``); an
                ``InputError`` if latency was not measured. Networks that could not be timed do not meet it.
            limits: Limits on anything that was measured, such as ``"predicted_damage<=0.1"`` or ``"mean_iou>=60%"``.

        Returns:
            The front of what is left, possibly empty.
        """
        kept = list(self.outcomes)
        if method is not None:
            by_method = {outcome.method: outcome.method for outcome in self.outcomes}
            wanted = _look_up("method of this study", method, by_method)
            kept = [outcome for outcome in kept if outcome.method == wanted]
        asked = [
            ("max-flops", "flops", "<=", max_flops),
            ("max-params", "params", "<=", max_params),
            ("max-latency", "latency", "<=", max_latency),
            ("min-accuracy", "accuracy", ">=", min_accuracy),
            *((f"limit {text!r}", *self._parse_limit(text)) for text in limits),
        ]
        for option, name, relation, text in asked:
            if text is None:
                continue
            limit = self._describe(name, option).parse_limit(text, self.dense, option)
            holds = _HOLDS[relation]
            kept = [each for each in kept if name in each.metrics and holds(each.metrics[name], limit)]
        return replace(self, outcomes=kept)

    def _parse_limit(self, text: str) -> tuple[str, str, str]:
        found = _LIMIT.fullmatch(text)
        if found is None:
            raise InputError(
                f"limit {text!r} is not of the form NAME<=VALUE or NAME>=VALUE, such as "
                f"'{self.quality.name}{'>=' if self.quality.maximise else '<='}{self.quality.format(0.5)}'"
            )
        return found[1], found[2], found[3]

    def _describe(self, name: str, asked: str) -> Objective:
        """Look up what a name stands for, and refuse what was not measured."""
        if name in ("latency", "efficiency") and not self.timed:
            raise InputError(
                f"{asked}: no latency was measured in study {self.study!r}; run a sweep with --objectives "
                "accuracy,latency, or with --set 'latency.targets=[\"cpu\"]'"
            )
        if name not in self.shown:
            raise InputError(
                f"{asked}: {explain_unknown_name(f'measurement of study {self.study!r}:', name, self.shown)}"
            )
        return self.shown[name]

    @cached_property
    def orders(self) -> Mapping[str, Callable[[Member], Any]]:
        """Orders of the members by name: qualities best first, everything else ascending."""

        def by(objective: Objective) -> Callable[[Member], float]:
            sign = -1.0 if objective.maximise else 1.0
            return lambda member: sign * member.metrics.get(objective.name, sign * math.inf)

        found: dict[str, Callable[[Member], Any]] = {name: by(objective) for name, objective in self.shown.items()}
        if self.timed:
            found["efficiency"] = lambda member: -(member.efficiency or 0.0)
        return found | {"method": lambda member: member.method, "trial": lambda member: member.trial}

    def sort(self, by: str = "flops") -> tuple[Member, ...]:
        """Return the members in another order.

        Args:
            by: Any measurement of the study, ``"method"``, ``"trial"``, or ``"efficiency"`` where latency was measured
                (others are an ``InputError``). Qualities and efficiency come best first, everything else ascending.

        Returns:
            The members; equal ones stay in the order of their FLOPs.
        """
        if by in ("latency", "efficiency") and not self.timed:
            self._describe(by, f"sort {by}")
        return tuple(sorted(self.members, key=_look_up("order", by, self.orders)))

    def knee(self) -> Member:
        """Return the member at which the front bends most (see :func:`search.fronts.dominance.knee`).

        Returns:
            The knee; the better one where a front of two, or one without a bend, leaves the choice.
        """
        members = self._require_members()[::-1]
        return members[knee(self._values(members), self._maximise)]

    def best(self) -> Member:
        """Return the best member: the most accurate one, where accuracy is searched for.

        Returns:
            The member with the best :attr:`quality`; the cheapest of equals.
        """
        return max(self._sort_by_cost(), key=self._measure_quality)

    def cheapest(self, drop: float = 0.5) -> Member:
        """Return the cheapest member that is still good enough.

        Args:
            drop: How much :attr:`quality` may be lost against the dense network, as :meth:`drop` tells it: percentage
                points of accuracy, for instance.

        Returns:
            The member with the least :attr:`cost`.

        Raises:
            InputError: If ``drop`` is not in 0..100, or no member is good enough.
        """
        if not 0 <= drop <= 100:
            raise InputError(f"drop: {drop} is not in 0..100 {self.drop_unit} (example: 0.5)")
        for member in self._sort_by_cost():
            lost = self.drop(member)
            if lost is not None and lost <= drop:
                return member
        least = self.drop(self.best())
        told = f"the best lost {least:.2f}" if least is not None else f"its {self.quality.title} is not known"
        raise InputError(
            f"no network of study {self.study!r} is within {drop:g} {self.drop_unit} of the dense one; {told}"
        )

    def drop(self, member: Member) -> float | None:
        """Return how much a member lost.

        Args:
            member: A member.

        Returns:
            :attr:`quality` lost against the dense network, negative for a gain: in percentage points where it is a
            share, else in its own unit. ``None`` where the dense network's is not known.
        """
        whole = self.dense_value(self.quality)
        if whole is None:
            return None
        return self.quality.drop(member.metrics[self.quality.name], whole)

    @property
    def drop_unit(self) -> str:
        """What a drop is counted in."""
        return "percentage points" if self._in_points else f"({self.quality.unit or self.quality.title})"

    @property
    def _in_points(self) -> bool:
        return self.quality.style.endswith("%")

    def pick(self, rule: str, drop: float = 0.5) -> Member:
        """Choose one member by a named rule.

        Args:
            rule: A name in :data:`PICKS`: ``knee``, ``best`` or ``cheapest`` (others are an ``InputError``).
            drop: For ``cheapest``: what may be lost, see :meth:`cheapest`.

        Returns:
            The member.
        """
        return _look_up("rule", rule, PICKS)(self, drop)

    def _require_members(self) -> tuple[Member, ...]:
        # The members, when there are any to choose from.
        if not self.members:
            raise InputError(f"study {self.study!r} has no complete trial within these limits")
        return self.members

    def _sort_by_cost(self) -> list[Member]:
        return sorted(self._require_members(), key=lambda member: member.metrics[self.cost.name])

    def hypervolume(self) -> float:
        """Return how much of the space between the dense network and a small one as good the front commands.

        The scale is that of :mod:`search.fronts.scale`: quality from a loss of ``worthless`` (worth 0) to the dense
        network's (worth 1), costs on a logarithmic scale from the dense network's (worth 0) to a twentieth (worth 1).

        Returns:
            The volume; above 1 only where networks are better than the dense one.
        """
        front = GrowingFront(self.objectives, self.dense, self.worthless)
        for member in self.members:
            front.add(member.metrics)
        return front.hypervolume()

    def scale_note(self) -> str | None:
        """Say so where the hypervolume tells nothing, for every network loses more than the scale reaches.

        Returns:
            A sentence with a scale that would tell them apart; ``None`` where the hypervolume is above 0.
        """
        whole = self.dense_value(self.quality)
        if not self.members or whole is None or self.hypervolume() > 0:
            return None
        extent = abs(self.quality.ideal - self.quality.reference(self.dense))
        least = min(abs(whole - member.metrics[self.quality.name]) / extent for member in self.members)
        return (
            f"every network loses more than {100 * self.worthless:g} points, so that the hypervolume is 0 and tells "
            f"nothing; max_drop = {math.ceil(150 * least)} would tell them apart"
        )

    def linear_hypervolume(self) -> float:
        """Return the volume between the worst and the ideal value of every objective, on linear scales.

        Every objective is normalised by :meth:`search.objectives.Objective.gain`: 0 is its worst acceptable
        value, 1 its ideal. Any network that works is worth much on this scale, so it hardly tells fronts apart.

        Returns:
            The volume, 0..1.
        """
        gains = [
            [objective.gain(member.metrics[objective.name], self.dense) for objective in self.objectives]
            for member in self.members
        ]
        axes = len(self.objectives)
        return hypervolume(gains, reference=[0.0] * axes, maximise=[True] * axes)

    # Rows for other programs

    def records(self, members: Sequence[Member] | None = None) -> list[dict[str, Any]]:
        """Return the front as flat rows, the dense network first.

        Args:
            members: Members in the order of the rows; ascending FLOPs if not given.

        Returns:
            One mapping per row, all with the same keys: every measurement of :attr:`shown`, costs also as
            ``NAME_share`` of the dense network's, the :meth:`drop`, ``test_NAME`` for the metrics of the task, and the
            parameters as ``point.NAME`` (``None`` where a method has none such).
        """
        return self._rows.records(self.members if members is None else members)

    @property
    def _rows(self) -> Rows:
        return Rows(self.shown, self.quality, self.dense, self.timed, self.drop)

    def table(self) -> pandas.DataFrame:
        """Return the front as a data frame, the dense network first.

        Returns:
            The rows of :meth:`records`; ``trial`` is a nullable integer, missing for the dense network.
        """
        import pandas

        frame = pandas.DataFrame.from_records(self.records())
        tested = {name: "float64" for name in frame.columns if name.startswith("test_")}
        return frame.astype({"trial": "Int64", **tested})

    def to_json(self, members: Sequence[Member] | None = None) -> dict[str, Any]:
        """Return the front as ``front --json`` prints it.

        Args:
            members: Members in the order to tell them; ascending FLOPs if not given.

        Returns:
            A mapping in JSON's types: ``study``, ``objectives``, ``dense``, ``hypervolume``,
            ``linear_hypervolume``, ``members``.
        """
        usual = (name for name in self.shown if name != "seconds" and name in self.dense.metrics)
        counts = {"flops": self.dense.flops, "params": self.dense.params}
        return {
            "study": self.study,
            "objectives": [objective.name for objective in self.objectives],
            "dense": {name: counts.get(name, self.dense.metrics[name]) for name in usual},
            "hypervolume": self.hypervolume(),
            "linear_hypervolume": self.linear_hypervolume(),
            "members": [self.member_json(member) for member in (self.members if members is None else members)],
        }

    def member_json(self, member: Member) -> dict[str, Any]:
        """Return a member as ``front --json`` prints it.

        Args:
            member: The member.

        Returns:
            A mapping in JSON's types. What was not measured is left out; ``ties`` names the trials that reach exactly
            the same, where there are any.
        """
        row = {key: value for key, value in self._rows.record(member).items() if key != "drop" and value is not None}
        if member.latency is None:
            row.pop("noisy", None)
        tested = {key: row.pop(key) for key in list(row) if key.startswith("test_")}
        row |= {"point": dict(member.point)} | tested
        ties = [tie.trial for tie in self.ties(member)]
        return row | ({"ties": ties} if ties else {})

    def to_csv(self, members: Sequence[Member] | None = None) -> str:
        """Return the rows of :meth:`records` as CSV with a header.

        Args:
            members: Members in the order of the rows; ascending FLOPs if not given.

        Returns:
            The text; missing values are empty.
        """
        return csv_text(self.records(members))

    # Pictures

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw quality against cost: the front, the trials behind it, the dense network.

        Args:
            path: Where to write the picture as well (``.png``, ``.svg``, ``.pdf``; ``.html`` is interactive).

        Returns:
            The matplotlib figure.

        Raises:
            ValueError: If the front was made without a way to draw it.
        """
        if self.views is None:
            raise ValueError("this front holds numbers alone; load_front gives one that can be drawn")
        if path is not None:
            self.views.save(self, path)
        return self.views.figure(self)

    def _repr_html_(self) -> str | None:
        """Show the front in a notebook, its picture and its table; as text where nothing draws it."""
        return None if self.views is None else self.views.front_html(self)


PICKS: Mapping[str, Callable[[Front, float], Member]] = {
    "knee": lambda front, drop: front.knee(),
    "best": lambda front, drop: front.best(),
    "cheapest": lambda front, drop: front.cheapest(drop),
}
"""Rules that choose one member of a front."""


def _look_up(kind: str, name: str, known: Mapping[str, Found]) -> Found:
    # What the user's word stands for.
    if name not in known:
        raise InputError(explain_unknown_name(kind, name, known))
    return known[name]
