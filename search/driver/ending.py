"""When a sweep ends before all of its trials are run: its time is spent, or its front does not grow any more."""

from __future__ import annotations

import time
from collections.abc import Callable

from search.objectives.limits import parse_budget
from search.study.config import StudyConfig


class Ending:
    """Says whether a sweep shall end early; asked before each trial is begun.

    Args:
        config: The budget and the patience, where there are any.
        flat: Tells for how many trials the front has not grown.
        spent: Tells how many seconds of devices all trials have taken.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        config: StudyConfig,
        flat: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._until = None if config.budget is None else clock() + parse_budget(config.budget)
        self._budget = config.budget
        self._devices = None if config.device_budget is None else parse_budget(config.device_budget, "device-budget")
        self._device_budget, self._spent = config.device_budget, spent
        self._patience = config.patience
        self._flat = flat
        self._clock = clock
        self.reason: str | None = None

    def __call__(self) -> bool:
        """Decide, once for all: a sweep that has ended does not begin again.

        Returns:
            Whether no further trial shall be begun.
        """
        if self.reason is None and self._until is not None and self._clock() >= self._until:
            self.reason = f"the budget of {self._budget} is spent"
        if self.reason is None and self._devices is not None and self._spent() >= self._devices:
            self.reason = f"the budget of {self._device_budget} of devices is spent"
        if self.reason is None and self._patience is not None and self._flat() >= self._patience:
            self.reason = f"the front has not grown for {self._flat()} trials"
        return self.reason is not None
