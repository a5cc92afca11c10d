"""What a sweep will do, known before anything is trained, and said in lines and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from methods import load_method
from methods.contract.loop import LoopTask
from methods.contract.method import Problem
from methods.contract.recipe import Recipe
from methods.network.channels import ChannelGroup
from methods.network.cost import CostModel
from methods.network.preflight import Findings
from search.driver.training_step import measure_training
from search.report.notebook import plan_html
from search.speed.conditions import Conditions
from search.study.config import Allocation, StudyConfig, places
from search.study.limits import limit_words
from search.study.samplers.base import Limits, PointCost
from search.tasks.workload import Workload
from spaces import Space, Value


@dataclass(frozen=True)
class Plan:
    """What a sweep will do, known before anything is trained.

    Attributes:
        config: The resolved configuration.
        workload: Network and data.
        groups: Prunable channel groups.
        cost: Exact FLOPs of any choice of widths.
        params: Parameters of the dense network.
        allocation: How sparsity is given out over layers; ``"auto"`` is by damage, in methods that can be told so.
        space: The whole space, method included.
        first: The points that are tried first.
        recipe: How every trial fine-tunes.
        steps: Budget of every trial in optimiser steps.
        device: Where trials compute, ``"cpu"`` or ``"cuda"``.
        gpus_per_trial: GPUs that each trial takes.
        timed: How trials are timed; ``None`` if they are not.
        round_to: Kept widths are multiples of this in every method that is given its sparsity.
        limits: What every network must keep to.
        problem: What methods are given, with a dense network that is not trained.
        warnings: What methods warn of.
        findings: What was proven of the network's channels.
        ignored: Names of modules whose channels all stay: the user's, and those that failed a proof.
    """

    config: StudyConfig
    workload: Workload
    groups: list[ChannelGroup]
    cost: CostModel
    params: int
    allocation: Allocation
    space: Space
    first: list[dict[str, Value]]
    earlier: list[dict[str, Any]]
    recipe: Recipe
    steps: int
    device: str
    gpus_per_trial: float
    timed: Conditions | None
    round_to: int
    limits: Limits
    problem: Problem
    warnings: list[str]
    findings: Findings
    ignored: frozenset[str]

    @property
    def smallest(self) -> int:
        """FLOPs with one unit left in every group: less is not reachable by removing channels."""
        return self.cost.flops(dict.fromkeys(self.cost.units, 1))

    def guess(self) -> dict[str, Any]:
        """Time a step of training on this machine's CPU, and guess what a trial takes there.

        Returns:
            What :func:`search.report.diagnosis.training_lines` says.
        """
        training = measure_training(self.problem.model, self.problem.example)
        batch = self.recipe.batch_size
        return {
            "training": None if training is None else training.to_json(),
            "steps_per_trial": self.steps,
            "batch_size": batch,
            "seconds_per_trial": None if training is None else training.step_seconds(batch) * self.steps,
            "megabytes_per_trial": None if training is None else training.megabytes(batch),
        }

    def to_json(self) -> dict[str, Any]:
        """Return the plan in JSON's types.

        Returns:
            Configuration, sizes, reachable shares of FLOPs and parameters, and the space.
        """
        return {
            "config": self.config.model_dump(mode="json") | places(self.config),
            "dense": {"flops": self.cost.dense, "params": self.params},
            "reachable_flops_share": [self.smallest / self.cost.dense, 1.0],
            "reachable_params_share": [self.findings.least.params / self.findings.dense.params, 1.0],
            "groups": [{"name": group.name, "channels": group.channels, "stage": group.stage} for group in self.groups],
            "allocation": self.allocation,
            "trials": self.config.trials,
            "steps_per_trial": self.steps,
            "recipe": self.recipe.model_dump(mode="json"),
            "device": self.device,
            "latency": None if self.timed is None else asdict(self.timed),
            "round_to": self.round_to,
            "warnings": self.warnings,
            "least": {"flops": self.findings.least.flops, "params": self.findings.least.params},
            "stays": self.findings.analysis.stays,
            "left_out": self.findings.left_out,
            "couplings": self.findings.analysis.couplings,
            "space": self.space.to_json(),
        }

    def lines(self) -> list[str]:
        """Say the plan in a few lines.

        Returns:
            Lines of text.
        """
        channels = sum(group.channels for group in self.groups)
        share = self.smallest / self.cost.dense
        return [
            f"model     {self.config.model}: {self.cost.dense:,} FLOPs, {self.params:,} parameters, "
            f"{channels} prunable channels in {len(self.groups)} groups",
            f"data      {self._data_line()}",
            f"methods   {', '.join(self.config.methods)}; objectives {', '.join(self.config.objectives)}",
            f"trials    {self.config.trials}, each {self.steps} steps of {self.recipe.batch_size} on {self.device}",
            f"reachable {share:.1%} to 100% of the dense FLOPs",
            *_channel_lines(self.findings),
            f"space     {len(self.space)} parameters{self._widths_note()}",
            *self._limit_lines(),
            *self._timing_lines(),
            *(f"warning   {warning}" for warning in self.warnings),
        ]

    def _widths_note(self) -> str:
        """Say so where widths follow from measured damage."""
        by_damage = self.allocation in ("auto", "damage")
        return "; widths of least measured damage, in methods that can be told so" if by_damage else ""

    def _data_line(self) -> str:
        """Name the data and count its examples."""
        data, task = self.workload.data, self.workload.task
        if isinstance(task, LoopTask):
            return f"read by the loop of {self.config.task}: {task.steps_per_epoch} steps in an epoch"
        purpose = "" if self.config.task == "classification" else f"for {task.name}, "
        return (
            f"{self.config.data}: {purpose}{data.train.examples} training, {data.validation.examples} validation, "
            f"{data.test.examples} test examples"
        )

    def _repr_html_(self) -> str:
        """Show the plan in a notebook."""
        return plan_html(self.lines())

    def _limit_lines(self) -> list[str]:
        words = limit_words(self.limits, PointCost(self.cost.dense, self.params))
        return [f"limits    {words}"] if words else []

    def _timing_lines(self) -> list[str]:
        """Say how latency is measured and what widths are multiples of, where that is not the usual."""
        lines = []
        if self.timed is not None:
            threads = f"{self.timed.threads} thread{'s' * (self.timed.threads > 1)}"
            lines.append(f"latency   {', '.join(self.timed.targets)}; batch of {self.timed.batch_size}, {threads}")
        if self.round_to > 1:
            free = [name for name in self.config.methods if not load_method(name).rounds_widths]
            but = f" (but {', '.join(free)}, which choose their own)" if free else ""
            lines.append(f"widths    multiples of {self.round_to}{but}")
        return lines


def list_by_damage(planned: Plan) -> list[str]:
    """List the methods of a study in which widths follow from measured damage, whatever the search chooses.

    Args:
        planned: The plan.

    Returns:
        Names of methods that are fixed so.
    """
    return [
        method
        for method in planned.config.methods
        if any(
            (name := f"{method}.{key}") in planned.space and planned.space[name].only == value
            for key, value in load_method(method).by_damage.items()
        )
    ]


def _channel_lines(findings: Findings) -> list[str]:
    """Say what was proven, and what stays whole for another reason than that it is the network's output."""
    share = findings.least.params / findings.dense.params
    lines = [
        f"proven    groups were cut, compared, counted, rebuilt and trained; down to {share:.1%} of the parameters"
    ]
    reasons: dict[str, list[str]] = {}
    for name, why in findings.analysis.stays.items():
        if "the network's output" not in why:
            reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"whole     {names[0]}{more}: {why}")
    if findings.analysis.couplings:
        first = next(iter(findings.analysis.couplings))
        lines.append(
            f"coupled   {len(findings.analysis.couplings)} groups pass sums over their channels ({first}), "
            "where the units that are left change when one goes"
        )
    return lines
