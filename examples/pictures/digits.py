"""The trials that the pictures show: the built-in digits, the network of the default study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from methods.contract.method import Problem
from paretoprune import load_config
from search.driver.dense_setting import dense_setting
from search.driver.plan import Plan
from search.driver.prepare import plan
from search.records.trial_spec import TrialSpec
from search.trials.trial import Finished, Setting, run_trial
from spaces import Value

SEED = 0
"""Of every trial."""


@dataclass(frozen=True)
class Digits:
    """What a trial on the digits needs.

    Attributes:
        plan: What is known before training: channel groups, exact FLOPs of any choice of widths.
        setting: What trials share: the trained dense network, data, recipe, budget.
    """

    plan: Plan
    setting: Setting

    def describe(self, flops: float) -> str:
        """Say what was run.

        Args:
            flops: Share of the dense FLOPs that is left.

        Returns:
            Half a line.
        """
        name = self.plan.config.model
        return f"Handwritten digits, {name}, to {100 * flops:g} % of its FLOPs within {self.setting.steps} steps"

    def row(self, group: str) -> int:
        """Return the place of a channel group in tables of units.

        Args:
            group: Its name.

        Returns:
            Its row.
        """
        return [each.name for each in self.plan.groups].index(group)

    def problem(self, steps: int) -> Problem:
        """Say what a method is given.

        Args:
            steps: Budget in optimiser steps.

        Returns:
            The problem; batch norms are left as they are after a cut.
        """
        setting = self.setting
        return Problem(
            model=setting.model,
            example=setting.example,
            train=setting.train,
            validation=setting.validation,
            recipe=setting.recipe.with_changes(recalibrate=0),
            steps=steps,
            generator=torch.Generator().manual_seed(SEED),
            analyses=setting.analyses,
        )

    def trial(self, method: str, point: dict[str, Value]) -> Finished:
        """Run one trial.

        Args:
            method: Name of the method.
            point: Values of its parameters; the others have their defaults.

        Returns:
            What came out.

        Raises:
            RuntimeError: If the trial failed.
        """
        finished = run_trial(self.setting, TrialSpec(0, method, point, SEED))
        if finished.outcome.error is not None:
            raise RuntimeError(f"the trial of {method} failed:\n{finished.outcome.error}")
        return finished


def digits(method: str, directory: Path, epochs: float, overrides: Sequence[str] = ()) -> Digits:
    """Load data and dense network, which is trained if the run store has none yet.

    Args:
        method: Name of the method.
        directory: The run store.
        epochs: Budget of a trial.
        overrides: Changes of the configuration, such as ``finetune.epochs=2``.

    Returns:
        What a trial needs; it runs on the CPU, so that the picture is the same everywhere.
    """
    options = [f"finetune.epochs={epochs}", "resources.gpus_per_trial=0", *overrides]
    planned = plan(load_config(None, options, methods=(method,), directory=directory))
    setting, _ = dense_setting(planned, lambda record, count: None)
    return Digits(planned, setting)
