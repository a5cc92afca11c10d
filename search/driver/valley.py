"""Whether a stored trial lies in the valley of the dense network: the training loss on the way between them."""

from __future__ import annotations

import copy

import torch
from torch import nn

from methods.contract.data import Split
from methods.contract.recipe import check_seed
from methods.training.evaluation import recalibrate
from methods.training.paths import Paths, expand_to_dense_shape, paths_between
from search.driver.dense_setting import dense_setting
from search.driver.prepare import plan
from search.records.listener import Listener
from search.store.studies import StudyFiles
from search.trials.trial import problem_of
from spaces import InputError

FAITHFUL = 0.01
"""How far answers may differ, in units of their size, between a network and its twin in dense shape."""


def trial_valley(
    files: StudyFiles, number: int, listener: Listener, points: int, steps: int | None = None, seed: int = 0
) -> Paths:
    """Measure the training loss on a line and on a curve from the dense network to the network of a trial.

    The pruned network is put back into the dense one's shape, with zeros where channels are gone.

    Args:
        files: The study.
        number: A finished trial that did nothing but remove channels.
        listener: Receives progress.
        points: How many points of either way, both ends included.
        steps: Steps for which the curve is trained; by default half of a trial's budget.
        seed: Decides everything random.

    Returns:
        The losses.

    Raises:
        InputError: If the trial has no network, or its network cannot be put into the dense one's shape.
    """
    check_seed(seed)
    kept, smaller = files.read_kept(number), files.rebuild(number)
    listener.stage("loading data and network")
    planned = plan(files.config())
    listener.stage("dense network")
    setting = dense_setting(planned, listener.dense_epoch)[0].move_to_device()
    groups = problem_of(setting, seed).groups
    smaller = smaller.to(setting.device)
    pruned = expand_to_dense_shape(setting.model, smaller, groups, kept)
    if not _is_same_function(pruned, smaller, setting.train):
        raise InputError(
            f"the network of trial {number} computes something else in the shape of the dense one: a layer of it "
            "depends on the number of its channels, as group and layer norms do"
        )
    listener.stage("measuring the training loss on the way")
    count = (points, points)
    budget = setting.steps // 2 if steps is None else steps
    return paths_between(setting.model, pruned, setting.train, setting.recipe, budget, seed, count)


def _is_same_function(one: nn.Module, other: nn.Module, train: Split) -> bool:
    """Whether two networks give the same answers once their batch norms have seen the same data."""
    answers = []
    for model in (one, other):
        twin = copy.deepcopy(model).eval()
        recalibrate(twin, train, 1, 128, 0)
        with torch.no_grad():
            answers.append(twin(next(iter(train.batches(128)))[0]))
    return bool((answers[0] - answers[1]).abs().max() <= FAITHFUL * answers[1].abs().max())
