"""The contract of a pruning method: what it is, what it is given and what it gives back.

A method is a frozen, validated set of hyperparameters. Its one abstract act, :meth:`Method.prune`, turns a
:class:`Problem` (a trained network, data, a budget of optimiser steps, a generator) into a :class:`Pruned`
network that is physically smaller. The budget covers everything the method does with gradients, fine-tuning
included, so that methods are compared at equal cost:

* methods that act while training put a hook between ``backward`` and ``step`` (``methods.training.trainer``);
* methods that analyse once and cut spend no steps on pruning and the whole budget on fine-tuning;
* methods that rewrite layers describe the new layers in ``methods.network.architecture``;
* methods whose sparsity is an outcome simply report where they landed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from torch import nn

from methods.contract.analyses import Analyses, Fresh, Progress, ignore_progress
from methods.contract.classification import Classification
from methods.contract.data import Split
from methods.contract.inputs import Inputs
from methods.contract.recipe import Recipe
from methods.contract.session import Session, Uninterrupted
from methods.contract.task import Task
from methods.network.anatomy import Anatomy
from methods.network.blocks import Block, find_blocks
from methods.network.channels import ChannelGroup, channel_groups
from methods.network.cost import CostModel
from spaces import InputError, LayerGroup, Point, Space, Value, explain_unknown_name
from spaces.errors import explain

Record = dict[str, float]
Report = Callable[[Record], None]


def ignore_record(record: Record) -> None:
    """Report nothing (the default of :attr:`Problem.report`).

    Args:
        record: One line of history, ignored.
    """


@dataclass(frozen=True)
class Preview:
    """What a method will come to, before any training.

    Attributes:
        flops: Multiply–accumulates of the pruned network for one input, exactly.
        params: Its parameters, exactly.
        damage: Predicted increase of the training loss; ``None`` where the method predicts none.
        kept: Kept units by name of group, where widths are all that changes; ``None`` where a layer changes otherwise.
        removed: Residual blocks that go as a whole; of groups that lie in them nothing is kept.
    """

    flops: int
    params: int
    damage: float | None = None
    kept: Mapping[str, int] | None = None
    removed: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Problem:
    """Everything a method is given.

    Attributes:
        model: The trained dense network on the device to use. A method works on a copy and never changes it.
        example: One input, ``[1, ...]``, for tracing and counting.
        train: Training data.
        validation: Validation data; the only data that decisions may look at besides ``train``.
        recipe: How to fine-tune: optimiser, schedule, batch size, precision.
        steps: Budget in optimiser steps for pruning and fine-tuning together.
        generator: The only source of randomness (a CPU generator).
        report: Called with one record per epoch, as soon as it is known.
        ignored: Names of modules whose output channels must stay; the classifier is protected without being
            named.
        analyses: Where costly analyses of the dense network come from.
        progress: Is called with how far an analysis is, or anything else that takes minutes and has no epochs.
        task: What the network is for: loss, metrics, drawn targets.
        session: Where the costly parts of the trial run, so that it can be interrupted and gone on with.
        known: Groups and costs of the dense network, where they were found before; used where they fit it.
    """

    model: nn.Module
    example: Inputs
    train: Split
    validation: Split
    recipe: Recipe
    steps: int
    generator: torch.Generator
    report: Report = ignore_record
    ignored: frozenset[str] = frozenset()
    analyses: Analyses = Fresh()
    progress: Progress = ignore_progress
    task: Task = field(default_factory=Classification)
    session: Session = Uninterrupted()
    known: Anatomy | None = field(default=None, repr=False)

    @cached_property
    def groups(self) -> list[ChannelGroup]:
        """The prunable channel groups of the dense network, in order of execution; found once, if not known."""
        if self._known is not None:
            return list(self._known.groups)
        return channel_groups(self.model, self.example, self.ignored)

    @cached_property
    def cost(self) -> CostModel:
        """Exact FLOPs and parameters of any choice of widths; made once, if not known."""
        return CostModel(self.model, self.example, self.groups) if self._known is None else self._known.cost

    @cached_property
    def blocks(self) -> list[Block]:
        """The residual blocks that can go as a whole, none of them the name of a group; found once, if not known."""
        known = None if self._known is None else self._known.blocks
        groups = {group.name for group in self.groups}
        found = find_blocks(self.model, self.example, self.ignored) if known is None else known
        return [block for block in found if block.name not in groups]

    @cached_property
    def cost_with_blocks(self) -> CostModel:
        """Exact FLOPs and parameters of any choice of widths and of :attr:`blocks`; made once."""
        return CostModel(self.model, self.example, self.groups, {block.name: block.modules for block in self.blocks})

    @cached_property
    def _known(self) -> Anatomy | None:
        """What is known, if it is of this network: one that has changed since is followed again."""
        fits = self.known is not None and self.known.is_of(self.model, self.example, self.ignored)
        return self.known if fits else None

    def preview(self, kept: Mapping[str, int]) -> Preview:
        """Say what a choice of widths costs.

        Args:
            kept: Kept units by name of group; groups that are not named are whole.

        Returns:
            The cost of the network with these widths.
        """
        return Preview(self.cost.flops(kept), self.cost.params(kept), kept=dict(kept))


@dataclass(frozen=True)
class Pruned:
    """What a method gives back.

    Attributes:
        model: The pruned network: smaller tensors, in eval mode.
        kept: Indices of the kept channel units of each group, ascending, by group name; none for a group that went with
            its residual block.
        history: One record per epoch (``phase``-less numbers: ``epoch``, ``loss``, ``accuracy`` on
            validation, and the method's own quantities).
        steps: Optimiser steps used; at most the budget.
        extra: The method's own results (forced groups, predicted damage, saving of a special kernel, ...),
            logged under these names and never mixed with the objectives.
        profiles: Numbers along an axis of the method's own, by name: pairs of position and value in order of
            position, such as the training loss on the way between two networks.
    """

    model: nn.Module
    kept: Mapping[str, Sequence[int]]
    history: Sequence[Record]
    steps: int
    extra: Mapping[str, float] = field(default_factory=dict)
    profiles: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


class Method(BaseModel, ABC):
    """A pruning method: a frozen, validated set of hyperparameters that can prune a network.

    A subclass is final (nothing inherits from a concrete method), names its fields as the parameters of its
    space, and declares what cannot be seen from them in the class variables below.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    title: ClassVar[str]
    """One line for tables: what the method does."""
    source: ClassVar[str]
    """The paper: authors, year, identifier."""
    fixed_by_default: ClassVar[frozenset[str]] = frozenset()
    """Parameters of the space that a study leaves at their default unless its configuration names them: what a unit is,
    say, or an alternative that is seldom better. Searching them is a decision."""
    flops_parameter: ClassVar[str | None] = None
    """The parameter of the space that asks for a share of the dense FLOPs (in 0..1), if there is one: a study tries the
    method first at a few such shares."""
    rounds_widths: ClassVar[bool] = False
    """Whether kept widths are multiples of the field ``round_to``, which such a method must have."""
    by_damage: ClassVar[Mapping[str, Value]] = {}
    """Values of parameters or fields with which a share of the FLOPs is given out by measured damage
    (:mod:`methods.training.damage`); none where the method cannot be told so."""
    removes_blocks: ClassVar[bool] = False
    """Whether residual blocks can go as a whole: what ``sparsity.blocks`` and ``sparsity.without`` ask for."""
    layers: ClassVar[tuple[type[nn.Module], ...]] = ()
    """Layer classes of its own that may stand in a pruned network (see :mod:`methods.network.architecture`)."""
    exact_with: ClassVar[Mapping[str, Value]] = {}
    """Values of parameters with which :meth:`preview` tells the very cost that comes out, where others leave it to
    training: a study with limits searches no others."""
    predicts_damage: ClassVar[bool] = False
    """Whether :meth:`preview` predicts a damage, and :meth:`prune` reports it in ``extra`` as ``predicted_damage``."""
    presets: ClassVar[Mapping[str, Mapping[str, Value]]] = {}
    """Named settings: values by name of parameter or field. ``"default"``, in which nothing is set, and ``"paper"``,
    the authors' procedure as far as it is known, are there in any case; the latter is empty where nothing differs."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a class whose declarations do not fit its fields.

        Args:
            **kwargs: Keywords of the class statement.

        Raises:
            TypeError: If it says that it rounds widths without a field for it, or has the field and does not say so.
        """
        super().__pydantic_init_subclass__(**kwargs)
        if cls.rounds_widths != ("round_to" in cls.model_fields):
            has = "has no field round_to" if cls.rounds_widths else "has a field round_to"
            raise TypeError(f"{cls.__name__}.rounds_widths is {cls.rounds_widths}, but the class {has}")

    @classmethod
    @abstractmethod
    def space(cls, groups: Sequence[LayerGroup]) -> Space:
        """Return the method's search space for a network with these channel groups.

        Args:
            groups: The prunable channel groups, in order of depth.

        Returns:
            The space; a point of it builds the method with :meth:`from_point`.
        """

    def check(self, problem: Problem) -> None:
        """Refuse what cannot work on this network within this budget, and warn of what may not.

        This is asked before anything is trained, the dense network included: weights do not count. A method that
        has nothing to add to what its fields and its space allow leaves this as it is.

        Args:
            problem: The network, the data and the budget; not changed, and its generator is not used.

        Raises:
            InputError: If this cannot work.
        """

    def preview(self, problem: Problem) -> Preview | None:
        """Say what the pruned network will cost, before any training.

        A method whose sparsity is an input knows this exactly; a search may ask it for many points, so it should be
        quick where the problem's analyses are known.

        Args:
            problem: The network, the data and the budget; not changed, and its generator is not used.

        Returns:
            Cost, and damage if :attr:`predicts_damage`; ``None`` if only training will tell.
        """
        return None

    @property
    def has_costly_preview(self) -> bool:
        """Whether :meth:`preview` looks at trained weights or data for longer than a search can wait at every step.

        It is asked all the same where limits must be kept to, once the dense network is trained.
        """
        return False

    @abstractmethod
    def prune(self, problem: Problem) -> Pruned:
        """Prune and fine-tune within the budget.

        Args:
            problem: The network, the data and the budget.

        Returns:
            The smaller network, what was kept, and the history.
        """

    @classmethod
    def preset(cls, name: str) -> Mapping[str, Value]:
        """Return named settings.

        Args:
            name: ``"default"``, ``"paper"``, or what the method has besides.

        Returns:
            Values by name of parameter or field; what is not named keeps its default.

        Raises:
            InputError: If the method has no such preset.
        """
        known: dict[str, Mapping[str, Value]] = {"default": {}, "paper": {}, **cls.presets}
        if name not in known:
            raise InputError(explain_unknown_name(f"preset of {cls.__name__}:", name, known))
        return known[name]

    @classmethod
    def check_field(cls, name: str, value: object) -> None:
        """Refuse a value that a field of the method must not have, whatever the others are.

        Args:
            name: Name of the field.
            value: The value.

        Raises:
            InputError: If it is not allowed.
        """
        field = cls.model_fields[name]
        wanted: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        try:
            TypeAdapter(wanted).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise InputError(f"method {cls.__name__}: {name} = {value!r} is not allowed: {message}") from error

    @classmethod
    def from_point(cls, point: Point) -> Self:
        """Build the method from a point of its space.

        Dotted names become nested fields: ``sparsity.flops`` sets ``flops`` of ``sparsity``, and
        ``sparsity.layers[conv1]`` sets the entry ``conv1`` of the mapping ``sparsity.layers``.

        Args:
            point: Values by parameter name, without the method's prefix.

        Returns:
            The validated method.

        Raises:
            InputError: If a name is unknown or a value is not allowed.
        """
        try:
            return cls.model_validate(nest_names(point))
        except ValidationError as error:
            raise InputError(explain(error, cls, f"method {cls.__name__}")) from error


def nest_names(point: Point) -> dict[str, Any]:
    """Turn dotted and bracketed names into nested mappings.

    Args:
        point: Values by flat name.

    Returns:
        The same values, nested.

    Example:
        >>> nest_names({"a": 1, "s.mode": "layer", "s.layers[conv1.0]": 0.5})
        {'a': 1, 's': {'mode': 'layer', 'layers': {'conv1.0': 0.5}}}
    """
    tree: dict[str, Any] = {}
    for name, value in point.items():
        head, bracket, key = name.partition("[")
        path = head.split(".") + ([key.removesuffix("]")] if bracket else [])
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value
    return tree
