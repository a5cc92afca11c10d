"""Costly analyses of the dense network, shared by all trials of a sweep.

Some methods look long before they cut. What they look at is the dense network and the data, not the trial's
hyperparameters: the same analysis serves every trial with the same settings. A method asks for it by name,

    factors = problem.analyses.get("kronecker_factors", {"fisher": "mc", "samples": 2560, "seed": 0}, compute)

and the maker of the problem decides whether it is computed now, remembered or read from disk. The result must
depend on the network, the data and the settings alone: randomness comes from a seed among the settings, never
from the trial's generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from spaces import InputError

Progress = Callable[[str, int, int], None]
"""Called, while something takes long, with what is done now, how many parts of it are done, and of how many."""

Settings = Mapping[str, str | int | float | bool | None]
Tensors = dict[str, Tensor]


def ignore_progress(what: str, done: int, total: int) -> None:
    """Report no progress.

    Args:
        what: What is done now, ignored.
        done: How many parts are done, ignored.
        total: How many there are, ignored.
    """


class Analyses(Protocol):
    """Where analyses come from."""

    def get(self, name: str, settings: Settings, compute: Callable[[], Tensors]) -> Tensors:
        """Return an analysis.

        Args:
            name: Which analysis.
            settings: All that decides it beside the network and the data.
            compute: Computes it, as tensors on the CPU.

        Returns:
            Tensors by name; not to be changed, for others share them.
        """


@dataclass(frozen=True)
class Fresh:
    """Computes every analysis when it is asked for, and keeps none."""

    def get(self, name: str, settings: Settings, compute: Callable[[], Tensors]) -> Tensors:
        """Compute the analysis.

        Args:
            name: Which analysis.
            settings: All that decides it beside the network and the data.
            compute: Computes it.

        Returns:
            Tensors by name.
        """
        return compute()


class NotMeasured(InputError):
    """An analysis was asked for before there is a trained dense network to analyse."""


@dataclass(frozen=True)
class Later:
    """Refuses every analysis: before the dense network is trained, what is found would be of another network."""

    def get(self, name: str, settings: Settings, compute: Callable[[], Tensors]) -> Tensors:
        """Refuse the analysis.

        Args:
            name: Which analysis.
            settings: All that decides it.
            compute: Computes it; not called.

        Raises:
            NotMeasured: Always.
        """
        raise NotMeasured(f"the analysis {name!r} is made once the dense network is trained")
