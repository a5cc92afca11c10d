"""Networks and data in hand: pruned or searched without files and names, from a script or a notebook."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import torch
from torch import nn

from methods import load_method
from methods.contract.data import Split
from methods.contract.inputs import Inputs, call, move, take
from methods.contract.loop import LoopTask
from methods.contract.method import Method, Problem, Pruned
from methods.contract.recipe import check_seed
from methods.contract.task import Task
from methods.training.damage import is_worth_measuring
from search.driver.sweep import Sweep
from search.fronts.front import Front
from search.records.listener import Listener
from search.store.studies import IN_HAND
from search.study.config_file import load_config
from search.study.points import make_first_points
from search.study.space import AUTO, METHOD, MODE, study_space
from search.tasks.data.arrays import user_data
from search.tasks.data.own_loop import make_loop_data
from search.tasks.data.parts import Data
from search.tasks.data.sizes import SplitSizes
from search.tasks.models.weights import Fit
from search.tasks.named_tasks import load_task
from search.tasks.recipes import default_recipe
from search.tasks.workload import Workload
from spaces import InputError


@dataclass(frozen=True)
class InHand(Workload):
    """A trained network that was handed in, and its data.

    Attributes:
        network: The network; never changed.
    """

    network: nn.Module = field(default_factory=nn.Identity)

    def build_with_fit(self) -> tuple[nn.Module, Fit]:
        """Copy the network.

        Returns:
            The copy in training mode; all its weights are its own.
        """
        return copy.deepcopy(self.network).cpu().train(), Fit()


@dataclass(frozen=True)
class NoData:
    """Stands for data that were not handed in (a :class:`methods.contract.data.Split`): nothing can be learned from it.

    A method that only looks whether the cut network runs gets the example, with what the dense network says of it.

    Attributes:
        inputs: The example.
        target: A target drawn from the dense network's own answer.
    """

    inputs: Inputs
    target: Any
    examples: int = 1

    def to(self, device: str) -> NoData:
        """Return itself.

        Args:
            device: Not used; the example lies where the network does.

        Returns:
            Itself.
        """
        return self

    def steps(self, batch_size: int) -> int:
        """Count the batches of an epoch.

        Args:
            batch_size: Not used.

        Returns:
            1.
        """
        return 1

    def epoch(self, batch_size: int, seed: int, start: int = 0) -> Any:
        """Refuse to be learned from.

        Args:
            batch_size: Not used.
            seed: Not used.
            start: Not used.

        Raises:
            InputError: Always.
        """
        raise InputError(_NEEDS_DATA)

    def batches(self, batch_size: int) -> Iterator[tuple[Inputs, Any]]:
        """Yield the example.

        Args:
            batch_size: Not used.

        Yields:
            The example and its target.
        """
        yield self.inputs, self.target


_NEEDS_DATA = "this method needs training data: hand in train=, a Dataset, a DataLoader or (inputs, targets)"


def prune(
    model: nn.Module,
    example: Inputs,
    *,
    method: str = "magnitude",
    flops: float = 0.5,
    train: Any = None,
    validation: Any = None,
    task: str | Task = "classification",
    epochs: float | None = None,
    steps: int | None = None,
    recipe: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    ignored: Sequence[str] = (),
    seed: int = 0,
) -> Pruned:
    """Prune a network in hand with one method.

    In short: ``small = paretoprune.prune(model, example, flops=0.5, train=data).model``.

    Args:
        model: The trained network, on the device to compute on; not changed.
        example: One input or a batch: a tensor, a tuple or a dict of tensors.
        method: Name of the method, or ``package.module:Class``.
        flops: Share of the FLOPs that is to be left, for methods that take one.
        train: Training data: a ``Dataset``, a ``DataLoader`` or ``(inputs, targets)``. Without them nothing is
            fine-tuned, which only methods that need no data can do.
        validation: Validation data, likewise; drawn from ``train`` if they are not handed in.
        task: What the network is for; a :class:`methods.contract.loop.LoopTask` trains in its own loop, on data of its
            own.
        epochs: How long is pruned and fine-tuned together, in passes over the training data; 10 by default.
        steps: The same in optimiser steps, instead of ``epochs``.
        recipe: Fields of :class:`methods.contract.recipe.Recipe` that differ from the usual fine-tuning.
        settings: Values of the method's own parameters, such as ``{"round_to": 8}``.
        ignored: Names of modules whose output channels must all stay.
        seed: Decides everything random.

    Returns:
        The smaller network as ``model``, with what was kept and the history.

    Raises:
        InputError: If network, data and method do not belong together; what was given and what would do.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"prune needs a torch.nn.Module, not {type(model).__name__}")
    if epochs is not None and steps is not None:
        raise InputError("give epochs or steps, not both")
    check_seed(seed)
    purpose = task if isinstance(task, Task) else load_task(task)
    device = str(next(model.parameters()).device)
    usual, usual_epochs = default_recipe(IN_HAND, "finetune")
    chosen = usual.with_changes(**(recipe or {}))
    data = _choose_data(purpose, train, validation, seed)
    if data is None:
        if epochs or steps:
            raise InputError("epochs and steps need training data: hand in train=")
        chosen, budget = chosen.with_changes(recalibrate=0), 0
    else:
        length = usual_epochs if epochs is None else epochs
        budget = max(1, round(length * data.train.steps(chosen.batch_size))) if steps is None else steps
    network, one = copy.deepcopy(model).eval(), move(take(example, slice(0, 1)), device)
    splits: tuple[Split, Split]
    if data is None:
        nothing = _make_no_data(network, one, purpose, seed)
        splits = nothing, nothing
    else:
        splits = data.train.to(device), data.validation.to(device)
    problem = Problem(
        model=network,
        example=one,
        train=splits[0],
        validation=splits[1],
        recipe=chosen,
        steps=budget,
        generator=torch.Generator().manual_seed(seed),
        ignored=frozenset(ignored),
        task=purpose,
    )
    built = _method(method, problem, flops, settings or {})
    try:
        built.check(problem)
    except InputError as error:
        if data is not None:
            raise
        raise InputError(f"without training data: {error}; hand in train=") from error
    pruned = built.prune(problem)
    pruned.model.eval()
    if data is not None:
        return pruned
    measured = {f"{metric.name}_cut" for metric in purpose.metrics}  # on one example, which says nothing
    return replace(pruned, history=[], extra={name: v for name, v in pruned.extra.items() if name not in measured})


def search(
    model: nn.Module,
    train: Any,
    validation: Any = None,
    test: Any = None,
    *,
    overrides: Sequence[str] = (),
    listener: Listener | None = None,
    executor: str = "inline",
    **options: Any,
) -> Front:
    """Search for the best pruned forms of a network in hand, and return their Pareto front.

    Args:
        model: The trained network; not changed.
        train: Training data: a ``Dataset``, a ``DataLoader`` or ``(inputs, targets)``.
        validation: Validation data, likewise; drawn from ``train`` if they are not handed in.
        test: Test data, likewise; drawn from ``train`` if they are not handed in.
        overrides: Settings as ``--set`` takes them, such as ``"finetune.epochs=5"``.
        listener: Receives progress; shown by default.
        executor: ``"inline"`` runs trials in this process, ``"ray"`` on all cores.
        **options: Keys of the configuration, such as ``trials``, ``methods``, ``objectives``, ``seed``, ``name``,
            ``directory`` and ``task``.

    Returns:
        The front; ``front.knee().model()`` is one of its networks.

    Raises:
        InputError: If the configuration is not valid, or network and data do not belong together.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"search needs a torch.nn.Module, not {type(model).__name__}")
    for name in ("model", "data", "weights"):
        if name in options:
            raise InputError(f"{name!r} is handed in as an object; leave it out, or use Sweep(load_config(...))")
    named = f"{IN_HAND} ({type(model).__name__})"
    config = load_config(None, overrides, model=named, data=IN_HAND, executor=executor, **options)
    task = load_task(config.task, config.task_options)
    data = _data(train, validation, test, task, config.seed)
    digest = sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    weights = f"{IN_HAND} {digest.hexdigest()[:16]}"
    workload = InHand(named, data, config.split, config.seed, weights, task, network=model)
    return Sweep(config, listener, workload).run()


def _choose_data(task: Task, train: Any, validation: Any, seed: int) -> Data | None:
    """The data of a loop of the user's own, or those that were handed in; ``None`` where there are none."""
    if not isinstance(task, LoopTask):
        return None if train is None else _data(train, validation, None, task, seed)
    if train is not None or validation is not None:
        raise InputError(f"the {task.name} task reads its own data: leave train= and validation= out")
    return make_loop_data(task)


def _data(train: Any, validation: Any, test: Any, task: Task, seed: int) -> Data:
    """Bring data in hand into three parts."""
    parts = {"train": train, "validation": validation, "test": test}
    given = {name: part for name, part in parts.items() if part is not None}
    if "validation" in given and "test" not in given:
        given["test"] = given["validation"]  # nothing is taken away from the training data
    whole = given["train"] if len(given) == 1 else given
    return user_data(lambda: whole, IN_HAND, SplitSizes(seed=seed), task)


def _make_no_data(model: nn.Module, example: Inputs, task: Task, seed: int) -> NoData:
    """Make the stand-in for data that were not handed in."""
    if not task.draws:
        raise InputError(_NEEDS_DATA)
    with torch.inference_mode():
        output = task.output(call(model, example))
        return NoData(example, task.draw_target(output, torch.Generator().manual_seed(seed)))


def _method(name: str, problem: Problem, flops: float, settings: Mapping[str, Any]) -> Method:
    """Build a method at a share of the FLOPs, by damage as in a sweep unless its settings are of another way."""
    if not problem.groups:
        raise InputError(f"there is nothing to prune in {type(problem.model).__name__}")
    if not 0 < flops < 1:
        raise InputError(f"flops = {flops!r} is not a share between 0 and 1 of the dense network's FLOPs")
    images = problem.steps * problem.recipe.batch_size
    if MODE not in settings and is_worth_measuring(problem.groups, problem.task, images):
        with suppress(InputError):  # which is raised again below, if these settings fit no allocation
            return _build(name, problem, flops, settings, AUTO)
    return _build(name, problem, flops, settings, "flops")


def _build(name: str, problem: Problem, flops: float, settings: Mapping[str, Any], allocation: str) -> Method:
    """Build a method that gives out its sparsity in one way."""
    space = study_space([name], [group.layer for group in problem.groups], allocation, {})
    points = make_first_points(space, [name], [flops])
    if not points:
        raise InputError(f"method {name!r} cannot be asked for {flops:.0%} of the FLOPs of this network")
    point = {key.removeprefix(f"{name}."): value for key, value in points[0].items() if key != METHOD}
    if settings.get(MODE, point.get(MODE)) != point.get(MODE):  # values of the usual mode say nothing in another one
        shared = ("sparsity.flops",) if settings[MODE] == "damage" else ()
        point = {key: value for key, value in point.items() if not key.startswith("sparsity.") or key in shared}
    return load_method(name).from_point({**point, **settings})
