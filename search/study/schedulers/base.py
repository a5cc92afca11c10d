"""The port for schedulers: who decides at a rung whether a trial goes on.

A trial runs in *legs*: from its beginning, or from where it paused, to its next rung or to its end. A scheduler says
how far the next leg goes (:meth:`Scheduler.next_rung`), what becomes of a trial that stands at a rung
(:meth:`Scheduler.decide`), and which of those that wait there goes on (:meth:`Scheduler.promote`). A trial that is
never let go on has no network: what it measured at its rungs never enters a front.

It is made for each sweep as ``Name(aim, seed, **scheduler_options)``, and made again when the sweep is resumed; then it
is asked everything again, from the first leg on. Its answers must follow from what it is given alone, never from the
clock or from what it was asked before.

In a configuration, ``scheduler = "package.module:Name"`` takes a scheduler of somebody else's.

Example:
    A scheduler that stops, a tenth of the way, what is not better than the median of its method::

        class Median:
            def __init__(self, aim: Aim, seed: int) -> None: ...

            def next_rung(self, trial: Standing) -> float | None:
                return None if trial.rungs else 0.1

            def decide(self, trial: Standing, trials: Sequence[Standing]) -> Decision:
                own = [each for each in trials if each.rungs and each.method == trial.method]
                losses = [each.rungs[0].record["val_loss"] for each in own]
                return "continue" if trial.rungs[0].record["val_loss"] <= median(losses) else "stop"

            def promote(self, trials: Sequence[Standing]) -> int | None:
                return None
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from methods.contract.session import Decision
from search.study.samplers.base import PointCost
from spaces import Value


@dataclass(frozen=True)
class Reached:
    """A rung that a trial stood at.

    Attributes:
        share: Optimiser steps taken by then, as a share of the trial's budget.
        record: The record of the epoch: ``epoch``, ``step``, ``loss``, the metrics on validation, ``val_loss``, and the
            method's own numbers. The network is as cut as it will be: only such rungs are waited at.
    """

    share: float
    record: Mapping[str, float]


@dataclass(frozen=True)
class Standing:
    """How far a trial is, as a scheduler sees it.

    Attributes:
        number: Its number in the study.
        method: The method that it tries.
        point: The method's parameters, by their own names.
        cost: What its network costs, exactly; ``None`` where only training tells.
        rungs: The rungs that it was judged at so far, in order.
        state: ``"running"``, ``"paused"`` at the last of its rungs, ``"stopped"`` there for good, ``"complete"`` or
            ``"failed"``.
        metrics: Measurements by name; empty unless it is complete.
    """

    number: int
    method: str
    point: Mapping[str, Value]
    cost: PointCost | None
    rungs: tuple[Reached, ...] = ()
    state: Literal["running", "paused", "stopped", "complete", "failed"] = "running"
    metrics: Mapping[str, float] | None = None


@runtime_checkable
class Scheduler(Protocol):
    """Who decides at a rung whether a trial goes on."""

    def next_rung(self, trial: Standing) -> float | None:
        """Say how far the next leg of a trial goes.

        Args:
            trial: A trial that begins, or goes on.

        Returns:
            A share of its budget of steps: the trial pauses at the first epoch from there on at which its network is as
            cut as it will be. ``None`` lets it run to its end.
        """

    def decide(self, trial: Standing, trials: Sequence[Standing]) -> Decision:
        """Say what becomes of a trial that stands at a rung.

        Args:
            trial: The trial.
            trials: All trials so far, this one included, by number.

        Returns:
            ``"continue"`` begins its next leg at once, ``"pause"`` lets it wait for :meth:`promote`, and ``"stop"``
            ends it.
        """

    def promote(self, trials: Sequence[Standing]) -> int | None:
        """Choose a trial that waits at a rung to go on, before a new one is begun.

        Args:
            trials: All trials so far, by number.

        Returns:
            Number of a paused trial; ``None`` begins a new trial where there is one. Those that still wait when
            nothing else is left are stopped.
        """
