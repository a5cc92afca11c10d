"""What is said about methods before anything is trained."""

from __future__ import annotations

import torch

from methods.contract.method import Problem
from methods.contract.recipe import Recipe
from methods.network.channels import channel_groups
from search.driver.feasible import check_methods
from search.study.space import study_space
from tests.methods import cases
from tests.methods.pivoting.test_method import make_wide_net


def problem_for() -> Problem:
    return Problem(
        model=cases.seeded(make_wide_net, trained=True),
        example=torch.zeros(1, *cases.IMAGE),
        train=cases.blobs(cases.IMAGE, 32),
        validation=cases.blobs(cases.IMAGE, 32, seed=1),
        recipe=Recipe(batch_size=16),
        steps=10,
        generator=torch.Generator().manual_seed(0),
    )


def test_warnings_are_those_of_all_shares_that_can_be_reached() -> None:
    problem = problem_for()
    layers = [group.layer for group in channel_groups(problem.model, problem.example)]
    space = study_space(("pivoting",), layers, "flops", {"pivoting": {"min_side": 2}})
    assert check_methods(space, ("pivoting",), (0.5,), problem, 1) == []
    harder = check_methods(space, ("pivoting",), (0.5, 0.1, 0.08), problem, 1)
    assert [warning.split(" of the FLOPs")[0][-4:].strip() for warning in harder] == ["0.1", "0.08"]
