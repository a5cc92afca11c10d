"""Proofs that channels can be removed from a network, before an hour is spent on it.

What :func:`methods.network.channels.analyse` found is not taken on trust: here half of all units are removed, and

- the cut network must run, in both modes, and learn;
- it must give what the network of the whole width gives when the same units are silenced (in float64);
- its multiply–accumulates and parameters, counted, must be what the cost model says;
- described in JSON, rebuilt and loaded, it must give the same numbers to the last bit;
- frozen parameters must be frozen, and shared ones shared, as before.

A group that breaks one of these is left out, with the reason.
"""

from __future__ import annotations

import json
import random
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs, call, outputs_in
from methods.network.architecture import describe, rebuild
from methods.network.channels import Analysis, ChannelGroup, analyse, cut, mask_units
from methods.network.copying import copy_network
from methods.network.cost import Cost, CostModel, count
from methods.network.shaken import Shaken, vary_inputs
from methods.network.structure import name_shared
from spaces import InputError
from spaces.errors import shorten_error

PROOFS = ("runs", "equals masked", "cost", "rebuilds", "keeps frozen and shared", "trains")
"""What is proven, in this order."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Findings:
    """What is known of a network's channels, proven.

    Attributes:
        analysis: Groups that can be removed, and the reasons for what cannot.
        left_out: Reason by name, for groups that were found but failed a proof.
        cost: Cost of any choice of widths.
        dense: Cost of the network.
        least: Cost with one unit left in every group, counted on the network that was cut so.
        difference: Largest difference between the cut and the silenced network, relative to the largest output.
    """

    analysis: Analysis
    left_out: dict[str, str]
    cost: CostModel
    dense: Cost
    least: Cost
    difference: float

    @property
    def groups(self) -> list[ChannelGroup]:
        """The groups that passed everything."""
        return self.analysis.groups


def examine(
    model: nn.Module,
    example: Inputs,
    ignored: Collection[str] = (),
    frozen: Collection[str] = (),
    progress: Progress = lambda said: None,
) -> Findings:
    """Find the channel groups of a network and prove them.

    Args:
        model: The network; not changed.
        example: One input, ``[1, ...]``, or a tuple or mapping of inputs.
        ignored: Names of modules whose output channels must all stay.
        frozen: Names of modules that may be pruned although their parameters are frozen.
        progress: Is told what is being done.

    Returns:
        Groups that hold, reasons for all others, and costs.

    Raises:
        InputError: If the network cannot be followed, or nothing can be removed from it.
    """
    progress("following the network")
    analysis = analyse(model, example, ignored, frozen)
    prover = _Prover(model, example)
    left_out: dict[str, str] = {}
    groups = analysis.groups
    if groups:
        progress(f"removing half of the units of {len(groups)} groups")
        groups = prover.keep_sound(groups, left_out)
    if not groups:
        raise InputError(_explain_nothing_removable(model, analysis, left_out))
    cost = CostModel(model, example, groups)
    progress("removing all units but one of every group")
    least = count(cut(model, groups, {group.name: [0] for group in groups}), example)
    stays = {**analysis.stays, **left_out}
    names = {group.name for group in groups}
    proven = Analysis(groups, stays, {name: at for name, at in analysis.couplings.items() if name in names})
    dense = Cost(cost.dense, cost.dense_params)
    return Findings(proven, left_out, cost, dense, least, prover.difference)


def _explain_nothing_removable(model: nn.Module, analysis: Analysis, left_out: Mapping[str, str]) -> str:
    """Say that nothing can be removed, and why."""
    reasons = {**analysis.stays, **left_out}
    common: dict[str, list[str]] = defaultdict(list)
    for name, why in reasons.items():
        common[why].append(name)
    said = "; ".join(
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {why}" for why, names in common.items()
    )
    return (
        f"nothing to prune in {type(model).__name__}: no convolution or linear layer has output channels that may be "
        f"removed{'; ' if said else ''}{said}"
    )


class _Prover:
    """Removes units and looks whether the proofs hold."""

    def __init__(self, model: nn.Module, example: Inputs) -> None:
        self._model, self._example = model, example
        self._shaken = Shaken(model, example)
        self._names = name_shared(model)
        self.difference = 0.0

    def keep_sound(self, groups: list[ChannelGroup], left_out: dict[str, str]) -> list[ChannelGroup]:
        """Return the groups whose units can be removed together; the others get a reason."""
        why = self.find_fault(groups)
        if why is None:
            return groups
        sound: list[ChannelGroup] = []
        for group in self._narrow(groups, left_out):
            sound.append(group)
        if sound and (why := self.find_fault(sound)) is not None:  # each alone is sound, but not together
            kept: list[ChannelGroup] = []
            for group in sound:
                if (fault := self.find_fault([*kept, group])) is None:
                    kept.append(group)
                else:
                    left_out[group.name] = fault
            return kept
        return sound

    def _narrow(self, groups: list[ChannelGroup], left_out: dict[str, str]) -> list[ChannelGroup]:
        why = self.find_fault(groups)
        if why is None:
            return groups
        if len(groups) == 1:
            left_out[groups[0].name] = why
            return []
        half = len(groups) // 2
        return [*self._narrow(groups[:half], left_out), *self._narrow(groups[half:], left_out)]

    def find_fault(self, groups: Sequence[ChannelGroup]) -> str | None:
        """Remove half of the units of some groups, and return the first proof that fails."""
        draw = random.Random(0)
        kept = {g.name: sorted(draw.sample(range(g.channels), max(1, g.channels // 2))) for g in groups}
        try:
            with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
                warnings.simplefilter("ignore")
                return self._equals_masked(groups, kept) or self._find_network_fault(groups, kept)
        except InputError:
            raise
        except Exception as error:  # a network may fail in any way
            return f"the cut network fails: {shorten_error(error)}"

    def _equals_masked(self, groups: Sequence[ChannelGroup], kept: Mapping[str, Sequence[int]]) -> str | None:
        shaken, inputs = self._shaken.network, self._shaken.inputs
        smaller, silent = cut(shaken, groups, kept).eval(), mask_units(shaken, groups, kept).eval()
        found, wanted = _answers(smaller, inputs), _answers(silent, inputs)
        worst = 0.0
        for one, other in zip(found, wanted, strict=True):
            if one.shape != other.shape:
                return f"the cut network answers with shape {list(one.shape)} instead of {list(other.shape)}"
            scale = float(other.detach().abs().max().clamp_min(1e-30))
            worst = max(worst, float((one - other).abs().max()) / scale)
        inexact = groups[0].structure.inexact if groups[0].structure is not None else ()
        if not worst <= self._shaken.tolerance and not inexact:
            return f"the cut network and the masked one differ by {worst:.2g} of the largest output"
        self.difference = max(self.difference, worst if worst == worst else 0.0)
        return None

    def _find_network_fault(self, groups: Sequence[ChannelGroup], kept: Mapping[str, Sequence[int]]) -> str | None:
        smaller = cut(self._model, groups, kept).eval()
        cost = CostModel(self._model, self._example, groups)
        widths = {name: len(units) for name, units in kept.items()}
        expected, counted = Cost(cost.flops(widths), cost.params(widths)), count(smaller, self._example)
        if expected != counted:
            return f"the cost model says {expected.flops:,} FLOPs where {counted.flops:,} are counted"
        own = vary_inputs(self._example, None)
        description = json.loads(json.dumps(describe(self._model, smaller)))
        back = rebuild(self._model, description, smaller.state_dict())
        first, second = _answers(smaller, own), _answers(back, own)
        if not all(torch.equal(one, other) for one, other in zip(first, second, strict=True)):
            return "the rebuilt network gives other numbers"
        if (fault := self._check_frozen_and_shared(smaller)) is not None:
            return fault
        try:
            _train(smaller, own)
        except RuntimeError as error:
            try:
                _train(copy_network(self._model), own)
            except RuntimeError:
                raise InputError(f"{type(self._model).__name__} cannot be trained: {shorten_error(error)}") from error
            raise
        return None

    def _check_frozen_and_shared(self, smaller: nn.Module) -> str | None:
        before = dict(self._model.named_parameters())
        for name, parameter in smaller.named_parameters():
            if parameter.requires_grad != before[name].requires_grad:
                return f"{name} is no longer {'trained' if before[name].requires_grad else 'frozen'}"
        if name_shared(smaller) != self._names:
            return "parameters that were shared are so no longer"
        return None


def _train(model: nn.Module, inputs: Inputs) -> None:
    """Run a network forward and backward in training mode; an error of the network's goes through."""
    answers = [each for each in outputs_in(call(model.train(), inputs)) if each.requires_grad]
    if answers:
        torch.stack([each.float().sum() for each in answers]).sum().backward()


def _answers(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    with torch.no_grad():
        return outputs_in(call(model, inputs))
