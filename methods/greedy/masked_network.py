"""A network as a function of the mask of one layer, for many masks at once.

Two ways to the same numbers. :class:`WholeNetwork` runs the network from the start, with hooks, whatever it is.
:class:`Replay` follows the network's graph (``torch.fx``): what does not depend on the mask runs once per batch,
what the first readers compute from a step of the mask is a rank-one update, and only what comes behind them runs
for every mask. A network that cannot be followed, or gives other numbers that way, is run whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from methods.contract.classification import Classification
from methods.contract.inputs import Inputs, arguments, batch_size, call, repeat, take
from methods.contract.task import Task
from methods.greedy.rank_one import Linearised
from methods.greedy.readers import Reader, readers
from methods.greedy.small_maps import find_faster
from methods.network.channels import ChannelGroup
from methods.network.folding import fold_norms

CHECKED_INPUTS = 4
"""On so many inputs the two ways are compared before the faster one is used."""

_NOT_FOLLOWED = (
    fx.proxy.TraceError,
    TypeError,
    ValueError,
    RuntimeError,
    AttributeError,
    LookupError,
    AssertionError,
    NameError,
)


class MaskedNetwork(Protocol):
    """Outputs for one batch under masks of one layer."""

    def load(self, inputs: Inputs) -> None:
        """Take the batch that all masks are applied to.

        Args:
            inputs: The batch.
        """

    def outputs(self, masks: Tensor) -> Tensor:
        """Run under each of several masks.

        Args:
            masks: ``[masks, units]``.

        Returns:
            ``[masks, batch, ...]``.
        """

    def run_candidates(
        self, mask: Tensor, candidates: Tensor, keep: Tensor, add: Tensor, at_once: int
    ) -> Iterator[Tensor]:
        """Run under ``keep mask + add e_c`` for each candidate ``c``, some of them at a time.

        Args:
            mask: ``[units]``.
            candidates: ``[candidates]``.
            keep: ``[candidates]``.
            add: ``[candidates]``.
            at_once: How many candidates at a time.

        Yields:
            ``[candidates at a time, batch, ...]``.
        """


def step_masks(mask: Tensor, candidates: Tensor, keep: Tensor, add: Tensor) -> Tensor:
    """Compute the masks after a step towards each candidate.

    Args:
        mask: Present mask, ``[units]``.
        candidates: ``[candidates]``.
        keep: What the present mask is multiplied with, ``[candidates]``.
        add: What is added at the candidate, ``[candidates]``.

    Returns:
        ``[candidates, units]``.
    """
    masks = keep.to(mask)[:, None] * mask
    masks[torch.arange(len(candidates)), candidates] += add.to(mask)
    return masks


class WholeNetwork:
    """Runs the network from the start for every mask: slow, obvious, for any network.

    Args:
        model: The network, in eval mode; not changed.
        group: The layer to be masked.
        task: Finds the output in what the network returns; classification by default.
    """

    def __init__(self, model: nn.Module, group: ChannelGroup, task: Task | None = None) -> None:
        self._model = model
        self._task: Task = Classification() if task is None else task
        self._weight = next(model.parameters())
        self._readers = readers(model, group)

    def load(self, inputs: Inputs) -> None:
        """Take the batch that all masks are applied to.

        Args:
            inputs: The batch.
        """
        self._inputs = inputs

    def outputs(self, masks: Tensor) -> Tensor:
        """Run under each of several masks.

        Args:
            masks: ``[masks, units]``.

        Returns:
            ``[masks, batch, ...]``.
        """
        masks = masks.to(self._weight.device, self._weight.dtype)
        handles = [
            self._model.get_submodule(reader.module).register_forward_pre_hook(
                _make_masking_hook(reader, reader.factors(masks))
            )
            for reader in self._readers
        ]
        try:
            outputs = self._task.output(call(self._model, repeat(self._inputs, len(masks))))
        finally:
            for handle in handles:
                handle.remove()
        return _unstack(outputs, len(masks))

    def run_candidates(
        self, mask: Tensor, candidates: Tensor, keep: Tensor, add: Tensor, at_once: int
    ) -> Iterator[Tensor]:
        """Run under ``keep mask + add e_c`` for each candidate ``c``, some of them at a time.

        Args:
            mask: ``[units]``.
            candidates: ``[candidates]``.
            keep: ``[candidates]``.
            add: ``[candidates]``.
            at_once: How many candidates at a time.

        Yields:
            ``[candidates at a time, batch, ...]``.
        """
        for part in _parts(candidates, keep, add, at_once):
            yield self.outputs(step_masks(mask, *part))


class Replay:
    """Runs only what depends on the mask; the rest is kept from :meth:`load`.

    Args:
        graph: The network as :func:`follow` gave it.
        group: The layer to be masked.
        task: Finds the output in what the network returns; classification by default.
    """

    def __init__(self, graph: fx.GraphModule, group: ChannelGroup, task: Task | None = None) -> None:
        self._interpreter = fx.Interpreter(graph)
        self._task: Task = Classification() if task is None else task
        self._weight = next(graph.parameters())
        self._inputs: Inputs = torch.empty(0)
        self._names = [str(node.target) for node in graph.graph.nodes if node.op == "placeholder"]
        self._readers = {reader.module: reader for reader in readers(graph, group)}
        nodes = list(graph.graph.nodes)
        reading = {node for node in nodes if node.op == "call_module" and node.target in self._readers}
        behind = _find_dependents(reading, nodes)
        first = reading - behind
        self._suffix = [node for node in nodes if node in behind or node in first]
        self._prefix = [node for node in nodes if node not in behind and node not in first]
        self._read = {node: node.all_input_nodes[0] for node in first}
        self._passed = {used for node in behind for used in node.all_input_nodes} & set(self._prefix)
        data = {node for node in nodes if node.op == "placeholder"}
        self._from_data = data | _find_dependents(data, nodes)
        last_use = {used: node for node in self._suffix for used in node.all_input_nodes}
        self._done_after = {node: [used for used, last in last_use.items() if last is node] for node in self._suffix}
        self._linear = {
            node: Linearised(graph.get_submodule(str(node.target)), self._readers[str(node.target)])
            for node in first
            if not self._readers[str(node.target)].lane
        }
        self._faster = find_faster(graph, set(nodes) - reading)

    def load(self, inputs: Inputs) -> None:
        """Take a batch, and run what does not depend on the mask.

        Args:
            inputs: The batch.
        """
        if inputs is self._inputs:
            return  # the same images as before
        self._batch, self._inputs = batch_size(inputs), inputs
        self._interpreter.args_iter = iter(arguments(inputs, self._names))
        env: dict[fx.Node, Any] = {}
        self._interpreter.env = env
        with torch.no_grad():
            for node in self._prefix:
                env[node] = self._run(node, env)
        self._kept = {node: env[node] for node in {*self._read.values(), *self._passed}}

    def outputs(self, masks: Tensor) -> Tensor:
        """Run under each of several masks.

        Args:
            masks: ``[masks, units]``.

        Returns:
            ``[masks, batch, ...]``.
        """
        return self._replay(masks.to(self._weight.device, self._weight.dtype), {})

    def run_candidates(
        self, mask: Tensor, candidates: Tensor, keep: Tensor, add: Tensor, at_once: int
    ) -> Iterator[Tensor]:
        """Run under ``keep mask + add e_c`` for each candidate ``c``, some of them at a time.

        Args:
            mask: ``[units]``.
            candidates: ``[candidates]``.
            keep: ``[candidates]``.
            add: ``[candidates]``.
            at_once: How many candidates at a time.

        Yields:
            ``[candidates at a time, batch, ...]``.
        """
        reads = {node: self._kept[self._read[node]] for node in self._linear}
        present = {node: linear.compute_parts(reads[node], mask) for node, linear in self._linear.items()}
        for part in _parts(candidates, keep, add, at_once):
            known = {
                node: linear.run_candidates(present[node], reads[node], *part) for node, linear in self._linear.items()
            }
            masks = step_masks(mask, *part)
            yield self._replay(masks.to(self._weight.device, self._weight.dtype), known)

    def _replay(self, masks: Tensor, known: dict[fx.Node, Tensor]) -> Tensor:
        """Run the suffix for all masks, stacked along the batch."""
        env: dict[fx.Node, Any] = {node: self._copies(node, len(masks)) for node in self._passed}
        self._interpreter.env = env
        for node in self._suffix:
            if node in known:
                env[node] = known[node]
            elif node.op == "call_module" and node.target in self._readers:
                env[node] = self._read_masked(node, env, masks)
            else:
                env[node] = self._run(node, env)
            for used in self._done_after[node]:
                env.pop(used, None)  # activations are large
        return _unstack(self._task.output(env[self._suffix[-1]]), len(masks))

    def _run(self, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        """Run what is not masked itself."""
        if node in self._faster:
            return self._faster[node](env[node.all_input_nodes[0]])
        return self._interpreter.run_node(node)

    def _read_masked(self, node: fx.Node, env: dict[fx.Node, Any], masks: Tensor) -> Any:
        """Run a reader on its masked input."""
        reader = self._readers[str(node.target)]
        if node in self._read:
            inputs = self._kept[self._read[node]][None]
        else:
            inputs = _unstack(env[node.all_input_nodes[0]], len(masks))
        module = self._interpreter.submodules[str(node.target)]
        return module(reader.mask_inputs(inputs, reader.factors(masks)))

    def _copies(self, node: fx.Node, count: int) -> Any:
        """Repeat what was computed from the batch; a parameter or a number stays as it is."""
        value = self._kept[node]
        of_batch = node in self._from_data and isinstance(value, Tensor) and value.shape[:1] == (self._batch,)
        return repeat(value, count) if of_batch else value


def build_masked_network(
    model: nn.Module, graph: fx.GraphModule | None, group: ChannelGroup, inputs: Inputs, task: Task | None = None
) -> MaskedNetwork:
    """Choose how to run a network under masks of one layer.

    Args:
        model: The network, in eval mode.
        graph: The same network as :func:`follow` gave it.
        group: The layer to be masked.
        inputs: A batch to compare the two ways on.
        task: Finds the output in what the network returns; classification by default.

    Returns:
        A :class:`Replay` where it gives the numbers of the whole network, which is what is returned otherwise.
    """
    whole = WholeNetwork(model, group, task)
    if graph is None:
        return whole
    sample = take(inputs, slice(CHECKED_INPUTS))
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(group.channels, generator=generator, dtype=torch.float64) + 0.5
    mask[::3] = 0
    step = (mask, torch.tensor([0, group.channels - 1]), torch.tensor([0.5, 0.75]), torch.tensor([2.0, 1.0]))
    try:
        replay = Replay(graph, group, task)
        with torch.no_grad():
            for network in (whole, replay):
                network.load(sample)
            (expected,), (found,) = whole.run_candidates(*step, at_once=2), replay.run_candidates(*step, at_once=2)
            direct = replay.outputs(step_masks(*step))
    except _NOT_FOLLOWED:
        return whole
    if expected.shape != found.shape:
        return whole
    close = 1e-3 * float(expected.nan_to_num().abs().max())
    same = all(bool(torch.allclose(one, expected, rtol=0, atol=close, equal_nan=True)) for one in (found, direct))
    return replay if same else whole


def follow(model: nn.Module) -> fx.GraphModule | None:
    """Read off a network's graph what it computes from what.

    Args:
        model: The network, in eval mode; not changed.

    Returns:
        The graph, whose nodes are modules without children and free functions; None if the network's flow
        depends on its data or is hidden from ``torch.fx`` otherwise. Batch norms are folded into the layers before
        them: it computes the same up to rounding.
    """
    still = fold_norms(model)
    try:
        return fx.GraphModule(still, _Tracer().trace(still))
    except _NOT_FOLLOWED:
        return None


class _Tracer(fx.Tracer):
    """Leaves modules without children whole, also those that are not torch's."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None or super().is_leaf_module(m, module_qualified_name)


def _find_dependents(sources: set[fx.Node], nodes: list[fx.Node]) -> set[fx.Node]:
    """Find the nodes that use the sources, directly or not; a source only where it uses another one."""
    behind: set[fx.Node] = set()
    for node in nodes:
        if any(used in behind or used in sources for used in node.all_input_nodes):
            behind.add(node)
    return behind


def _parts(candidates: Tensor, keep: Tensor, add: Tensor, at_once: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Take steps apart, some at a time."""
    yield from zip(candidates.split(at_once), keep.split(at_once), add.split(at_once), strict=True)


def _unstack(stacked: Tensor, count: int) -> Tensor:
    """Take a stack of batches apart, ``[count, batch, ...]``."""
    return stacked.reshape(count, -1, *stacked.shape[1:])


def _make_masking_hook(reader: Reader, factors: Tensor) -> Any:
    """Make the hook that multiplies what a reader reads."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        read = _unstack(inputs[0], len(factors))
        return (reader.mask_inputs(read, factors), *inputs[1:])

    return hook
