"""What a sweep searches for, in the words of samplers; and the sampler that its configuration names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from search.driver.plan import Plan
from search.objectives import load_objectives
from search.objectives.limits import parse_drop
from search.records.outcome import DenseRow
from search.study.cost import PointCosts
from search.study.limits import read_limits
from search.study.samplers.base import Aim, Axis, Tried
from search.study.samplers.making import Maker, sampler_maker
from search.study.schedulers.ladder import Ladder
from search.study.schedulers.making import make_scheduler
from search.trials.trial import Setting, problem_of
from spaces import Space

COUNTED = "accuracy"
"""The quality that is a share of so many examples, and so has binomial noise."""


def study_aim(planned: Plan, dense: DenseRow, costs: PointCosts) -> Aim:
    """Say what a sweep searches for.

    Args:
        planned: The plan.
        dense: The dense network, measured.
        costs: Costs of points.

    Returns:
        Objectives, limits and scale.
    """
    axes = []
    for objective in load_objectives(planned.config.objectives, planned.workload.task):
        own = dense.metrics.get(objective.name)
        examples = planned.workload.data.validation.examples if objective.name == COUNTED else None
        axes.append(
            Axis(
                name=objective.name,
                maximise=objective.maximise,
                quality=objective.quality,
                ideal=objective.ideal,
                worst=objective.reference(dense),
                dense=own,
                examples=examples,
            )
        )
    limits = read_limits(planned.config, costs.dense, costs.least, dense.latency)
    return Aim(tuple(axes), limits, parse_drop(planned.config.max_drop))


def study_parts(
    planned: Plan,
    space: Space,
    setting: Setting,
    dense: DenseRow,
    trials: int,
    earlier: Sequence[Tried] = (),
) -> tuple[Maker, Callable[[], Ladder]]:
    """Prepare the sampler and the scheduler of a sweep.

    Args:
        planned: The plan.
        space: The space of the study.
        setting: What all trials share, with the trained dense network.
        dense: The dense network, measured.
        trials: How many trials the study was begun with.
        earlier: Trials of earlier studies that the sampler knows.

    Returns:
        What makes the sampler of each question, and what makes the ladder that trials climb, from its foot.
    """
    # Hard limits are worth an analysis before the first trial, on the device that trials compute on.
    strict = planned.limits.hard
    shared = setting.move_to_device() if strict else setting
    costs = PointCosts(problem_of(shared, planned.config.seed), planned.round_to, analysed=strict)
    aim = study_aim(planned, dense, costs)
    config = planned.config

    def make_ladder() -> Ladder:
        made = make_scheduler(config.scheduler, config.scheduler_options, aim, config.seed)
        return Ladder(made, setting.steps, costs)

    return sampler_maker(config.sampler, space, aim, costs, config.seed, trials, earlier), make_ladder
