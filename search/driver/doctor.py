"""Whether a network can be pruned, proven before anything is trained: what ``paretoprune doctor`` says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from methods import load_method, method_names
from methods.contract.data import Batch
from methods.contract.inputs import Inputs, call, move, outputs_in, repeat, take
from methods.contract.method import Problem
from methods.contract.recipe import Recipe
from methods.network.anatomy import Anatomy
from methods.network.copying import copy_network
from methods.network.preflight import PROOFS, Findings, examine
from search.driver.feasible import check_methods
from search.driver.training_step import Training, measure_training
from search.study.config import StudyConfig
from search.study.space import study_space
from spaces import InputError

HANDFUL = 8
"""Made-up examples that methods are shown."""


@dataclass(frozen=True)
class Diagnosis:
    """What can be pruned in a network.

    Attributes:
        model: Name of the network.
        findings: Groups, reasons and costs, proven.
        methods: For each method, why it does not apply; empty text if it does.
        training: What a step of training takes; None where it could not be measured.
        steps: Steps of a trial, and examples in each; None where no data are known.
    """

    model: str
    findings: Findings
    methods: dict[str, str]
    training: Training | None
    steps: tuple[int, int] | None = None

    @property
    def seconds_per_trial(self) -> float | None:
        """A guess of the time of a trial on one CPU; None where no data are known."""
        if self.training is None or self.steps is None:
            return None
        return self.training.step_seconds(self.steps[1]) * self.steps[0]

    @property
    def megabytes(self) -> float | None:
        """A guess of the memory of a trial; of the batch that was timed where no data are known."""
        if self.training is None:
            return None
        return self.training.megabytes(self.training.batch if self.steps is None else self.steps[1])

    def to_json(self) -> dict[str, Any]:
        """Return everything in JSON's types.

        Returns:
            Proofs, groups, reasons, reachable costs, methods and guesses.
        """
        return {
            "model": self.model,
            **describe_findings(self.findings),
            "methods": {name: {"applies": not why, "why": why} for name, why in self.methods.items()},
            "training": None if self.training is None else self.training.to_json(),
            "steps_per_trial": None if self.steps is None else self.steps[0],
            "batch_size": None if self.steps is None else self.steps[1],
            "seconds_per_trial": self.seconds_per_trial,
            "megabytes_per_trial": self.megabytes,
        }


def describe_findings(found: Findings) -> dict[str, Any]:
    """Return what is proven of a network's channels in JSON's types.

    Args:
        found: What was proven.

    Returns:
        Proofs, costs that can be reached, groups, and the reasons for what stays whole.
    """
    return {
        "proofs": list(PROOFS),
        "difference": found.difference,
        "dense": {"flops": found.dense.flops, "params": found.dense.params},
        "least": {"flops": found.least.flops, "params": found.least.params},
        "reachable_flops_share": [found.least.flops / found.dense.flops, 1.0],
        "reachable_params_share": [found.least.params / found.dense.params, 1.0],
        "groups": [
            {
                "name": group.name,
                "units": group.channels,
                "stage": group.stage,
                "flops_share": flops,
                "params_share": params,
                "modules": sorted({member.module for member in group.members}),
                "couplings": found.analysis.couplings.get(group.name, []),
            }
            for group, (flops, params) in zip(found.groups, _shares(found), strict=True)
        ],
        "stays": found.analysis.stays,
        "left_out": found.left_out,
    }


def _shares(found: Findings) -> list[tuple[float, float]]:
    """Say which shares of FLOPs and parameters go when one group alone is reduced to a single unit."""
    cost, dense = found.cost, found.dense
    return [
        (1 - cost.flops({name: 1}) / max(1, dense.flops), 1 - cost.params({name: 1}) / dense.params)
        for name in cost.units
    ]


def doctor(
    model: nn.Module,
    example: Inputs,
    methods: Sequence[str] | None = None,
    ignored: Collection[str] = (),
    name: str | None = None,
    progress: Callable[[str], None] = lambda said: None,
    steps: tuple[int, int] | None = None,
) -> Diagnosis:
    """Prove what can be pruned in a network, before anything is trained.

    Args:
        model: The network; not changed.
        example: One input, ``[1, ...]``, or a tuple or dict of inputs.
        methods: Names of the methods that are asked for; all of them by default.
        ignored: Names of modules whose output channels must stay.
        name: How to call the network; its class by default.
        progress: Called with what is being done.
        steps: Steps of a trial, and examples in each, to guess its time and memory; None where no data are known.

    Returns:
        What can be pruned, and the reasons for what cannot; an ``InputError`` if nothing can.
    """
    findings = examine(model, example, ignored, progress=progress)
    progress("timing a step of training")
    problem = _problem(model, example, ignored)
    progress("asking the methods")
    return Diagnosis(
        model=name or type(model).__name__,
        findings=findings,
        methods=find_applicable_methods(findings, problem, methods or method_names()),
        training=measure_training(model, example),
        steps=steps,
    )


def find_applicable_methods(findings: Findings, problem: Problem, methods: Sequence[str]) -> dict[str, str]:
    """Ask methods whether they can work on a network.

    Args:
        findings: What is known of its channels.
        problem: The network with some data.
        methods: Names of methods.

    Returns:
        For each method why it does not apply; empty text if it does.
    """
    layers = [group.layer for group in findings.groups]
    defaults = StudyConfig()
    known = Anatomy.from_groups(problem.model, problem.example, problem.ignored, findings.groups, findings.cost)
    problem = replace(problem, known=known)
    answers = {}
    for name in methods:
        load_method(name)  # an unknown name is an error of the user's
        try:
            # By a share of the FLOPs: what damage would be measured here is that of made-up data.
            space = study_space([name], layers, "flops", {}, preset=defaults.preset)
            check_methods(space, [name], defaults.shares, problem, 1)
            answers[name] = ""
        except InputError as error:
            answers[name] = str(error)
    return answers


def _problem(model: nn.Module, example: Inputs, ignored: Collection[str]) -> Problem:
    """Make up a handful of data that fit the network, for methods to check."""
    with torch.no_grad():
        answers = outputs_in(call(copy_network(model).eval(), example))
    classes = answers[0].shape[-1] if answers and answers[0].ndim > 1 else 2
    generator = torch.Generator().manual_seed(0)
    split = Handful(repeat(example, HANDFUL), torch.randint(classes, (HANDFUL,), generator=generator))
    return Problem(
        model=model,
        example=example,
        train=split,
        validation=split,
        recipe=Recipe(batch_size=HANDFUL),
        steps=1_000_000,  # no method is refused for want of steps
        generator=generator,
        ignored=frozenset(ignored),
    )


@dataclass(frozen=True)
class Handful:
    """A few made-up examples, where a network is looked at without its data.

    Attributes:
        inputs: Inputs of the network.
        labels: ``[examples]``.
    """

    inputs: Inputs
    labels: Tensor

    @property
    def examples(self) -> int:
        """How many examples there are."""
        return len(self.labels)

    def to(self, device: str) -> Handful:
        """Move the examples.

        Args:
            device: Where to.

        Returns:
            The same examples there.
        """
        return Handful(move(self.inputs, device), self.labels.to(device))

    def steps(self, batch_size: int) -> int:
        """Count the batches of an epoch.

        Args:
            batch_size: Examples in each.

        Returns:
            At least 1.
        """
        return max(1, self.examples // batch_size)

    def epoch(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Give the batches of an epoch, which are all the same.

        Args:
            batch_size: Examples in each.
            seed: Decides nothing here.
            start: The first batch that is given.

        Yields:
            Inputs and labels.
        """
        for _ in range(start, self.steps(batch_size)):
            yield take(self.inputs, slice(batch_size)), self.labels[:batch_size]

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Give every example once.

        Args:
            batch_size: Examples in each batch.

        Yields:
            Inputs and labels.
        """
        for begin in range(0, self.examples, batch_size):
            part = slice(begin, begin + batch_size)
            yield take(self.inputs, part), self.labels[part]
