"""No scheduler: every trial runs to its end."""

from __future__ import annotations

from collections.abc import Sequence

from methods.contract.session import Decision
from search.study.samplers.base import Aim
from search.study.schedulers.base import Standing


class NoScheduler:
    """Lets every trial run to its end.

    Args:
        aim: Not used.
        seed: Not used.
    """

    def __init__(self, aim: Aim | None = None, seed: int = 0) -> None: ...

    def next_rung(self, trial: Standing) -> float | None:
        """Say that a trial has no rung.

        Args:
            trial: A trial.

        Returns:
            ``None``.
        """
        return None

    def decide(self, trial: Standing, trials: Sequence[Standing]) -> Decision:
        """Let a trial go on.

        Args:
            trial: A trial.
            trials: Not used.

        Returns:
            ``"continue"``.
        """
        return "continue"

    def promote(self, trials: Sequence[Standing]) -> int | None:
        """Choose none.

        Args:
            trials: Not used.

        Returns:
            ``None``.
        """
        return None
