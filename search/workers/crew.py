"""The workers of a Ray cluster: started where there is room, replaced when they are lost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import ray
import ray.exceptions

from search.records.errors import RunError
from search.study.config import Resources
from search.workers.cluster import cluster_address, count_room, wait_for_room

LOOKED_EVERY = 5.0
"""Seconds between two looks whether a cluster has grown."""

NODES_PATIENCE = 600.0
"""Seconds for which a cluster may have no room for any trial."""

FALSE_STARTS = 3
"""Workers that may die, one after another, while they start before a sweep is given up."""


class Crew:
    """One worker for each slot; a worker is an actor of Ray with a method ``ready``.

    Args:
        kind: The class of the workers.
        resources: Where trials run.
        gpus: GPUs each trial takes, may be a fraction.
        say: Hears that there is a wait for nodes.
    """

    def __init__(self, kind: type, resources: Resources, gpus: float, say: Callable[[str], None]) -> None:
        self._kind: Any = ray.remote(kind).options(num_cpus=resources.cpus_per_trial, num_gpus=gpus, max_restarts=0)
        self._cpus, self._gpus, self._most = resources.cpus_per_trial, gpus, resources.max_concurrent
        self._say = say
        self.of_cluster = cluster_address(resources) is not None
        self.slots = self._wanted(wait_for_room(self._cpus, gpus, say, *(() if self.of_cluster else (0.0,))))
        self._staff: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self.idle: deque[Any] = deque()
        self._false_starts = 0
        self._deserted: float | None = None
        self._looked = 0.0
        self.hire()

    @property
    def starting(self) -> list[Any]:
        """References, for ``ray.wait``, that become ready when a worker has started."""
        return list(self._starting)

    def hire(self) -> None:
        """Start the workers for which there is room."""
        self._looked = time.monotonic()
        lacking = self._wanted(count_room(self._cpus, self._gpus)) - len(self._staff)
        for _ in range(lacking):
            worker = self._kind.remote()
            self._staff.append(worker)
            self._starting[worker.ready.remote()] = worker

    def take_in(self) -> None:
        """Look, on a cluster, whether there is room for more; count workers that have started as idle.

        Raises:
            RunError: If workers cannot start.
        """
        if not self._staff or (self.of_cluster and time.monotonic() - self._looked > LOOKED_EVERY):
            self.hire()
        started = ray.wait(self.starting, num_returns=len(self._starting), timeout=0)[0] if self._starting else []
        for reference in started:
            worker = self._starting.pop(reference)
            try:
                ray.get(reference)
            except ray.exceptions.RayError as error:
                self.dismiss(worker)
                self._false_starts += 1
                text = str(error)
                if "ModuleNotFoundError" in text or self._false_starts >= FALSE_STARTS:
                    raise RunError(
                        f"a worker could not start: {named_error(error)}; is everything installed on every node? "
                        "--working-dir sends your modules and this package"
                    ) from error
            else:
                self._false_starts = 0
                self.idle.append(worker)

    def dismiss(self, worker: Any) -> None:
        """End a worker, alive or not.

        Args:
            worker: The worker.
        """
        ray.kill(worker)
        self._staff = [each for each in self._staff if each is not worker]

    def wait_for_nodes(self) -> None:
        """Wait a second, where there is no worker nor one on its way: nodes may come back.

        Raises:
            RunError: If none has for :data:`NODES_PATIENCE`.
        """
        now = time.monotonic()
        if self._deserted is None:
            self._deserted = now
            self._say(f"no node has room for a trial any more; waiting up to {NODES_PATIENCE:g} s for one")
        elif now - self._deserted > NODES_PATIENCE:
            raise RunError(f"no node has had room for a trial for {NODES_PATIENCE:g} s")
        time.sleep(1.0)

    def nodes_are_back(self) -> None:
        """Note that there are workers."""
        self._deserted = None

    def close(self) -> None:
        """End all workers."""
        for worker in self._staff:
            ray.kill(worker)
        self._staff.clear()
        self._starting.clear()
        self.idle.clear()

    def _wanted(self, room: int) -> int:
        """How many workers there should be: what is asked for beyond the room makes a cluster grow, where it can."""
        if self._most is None:
            return room
        return self._most if self.of_cluster else min(room, self._most)


def named_error(error: Exception) -> str:
    """Find what is to be told of an error that holds the traceback of another process.

    Args:
        error: What Ray raised.

    Returns:
        The last line that names an error, else the first line.
    """
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return next((line for line in reversed(lines) if "Error:" in line), lines[0])
