"""Forward and backward passes that show what enters a layer and which gradient reaches its output.

A network is run as it is, in eval mode, and left as it was: no parameter gets a gradient, no weight gradient is even
computed, because only the paths from the loss to the watched outputs are walked.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from methods.contract.classification import Classification
from methods.contract.data import Batch
from methods.contract.inputs import batch_size, call, get_first_tensor
from methods.contract.task import Task
from methods.curvature.finite import is_not_finite, origin
from methods.curvature.fisher import Gradients
from methods.training.evaluation import evaluation_mode
from spaces import InputError
from spaces.errors import explain_unknown_name

WatchedLayer = nn.Conv2d | nn.Linear
"""What can be watched."""


class Watcher(Protocol):
    """Is told what happens at one layer."""

    def on_call(self, x: Tensor, y: Tensor) -> object:
        """See one call of the layer.

        Args:
            x: The layer's input.
            y: The layer's output; only its shape may be used.

        Returns:
            Whatever :meth:`on_gradient` wants to see again for this call.
        """

    def on_gradient(self, kept: Any, gradient: Tensor) -> None:
        """See the gradient of one call in one backward pass.

        Args:
            kept: What :meth:`entered` returned for the call.
            gradient: Of the sum of per-sample losses at the layer's output.
        """

    def on_pass(self) -> None:
        """Know that a backward pass is complete."""


@dataclass(frozen=True)
class Seen:
    """What the passes covered.

    Attributes:
        samples: How many samples there were.
        order: Names of the watched layers, in the order of their first calls.
    """

    samples: int
    order: Sequence[str]


def watch_layers(model: nn.Module, names: Sequence[str]) -> dict[str, WatchedLayer]:
    """Find layers by name.

    Args:
        model: The network.
        names: Names of convolutions and linear layers.

    Returns:
        The layers, in the given order.

    Raises:
        InputError: If a name is unknown, or the layer is neither ``nn.Conv2d`` nor ``nn.Linear``.
    """
    modules = dict(model.named_modules())
    layers: dict[str, WatchedLayer] = {}
    for name in names:
        if name not in modules:
            raise InputError(explain_unknown_name("layer", name, modules))
        layer = modules[name]
        if not isinstance(layer, WatchedLayer):
            kind = type(layer).__name__
            raise InputError(f"layer {name!r} is a {kind}: only Conv2d and Linear have Kronecker factors")
        layers[name] = layer
    return layers


def run_passes(
    model: nn.Module,
    batches: Iterable[Batch],
    watchers: Mapping[str, Watcher],
    gradients: Gradients | None,
    task: Task | None = None,
) -> Seen:
    """Run a network over data and show its layers to their watchers.

    Args:
        model: The network.
        batches: Inputs and targets, on the device of the network.
        watchers: By name of layer.
        gradients: What goes backward from the outputs of a batch; ``None`` for forward passes alone.
        task: Finds the output in what the network returns; classification by default.

    Returns:
        How many samples there were, and in which order layers were called.

    Raises:
        InputError: If there were no samples, a watched layer is never called, or the network gives values that are
            not finite; the layer where they arise is named.
    """
    task = Classification() if task is None else task
    samples = 0
    order: dict[str, None] = {}
    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(keep_full_precision())
        stack.enter_context(torch.set_grad_enabled(gradients is not None))
        # Anything that requires a gradient will do to have one computed at every watched output.
        anchor = torch.zeros((), requires_grad=gradients is not None)
        for name, layer in watch_layers(model, list(watchers)).items():
            hook = _hook(watchers[name], anchor, partial(order.setdefault, name))
            stack.callback(layer.register_forward_hook(hook, with_kwargs=True).remove)
        for inputs, target in batches:
            with torch.autocast(get_first_tensor(inputs).device.type, enabled=False):
                outputs = task.output(call(model, inputs))
                if is_not_finite(outputs):  # nothing that follows would be worth waiting for
                    raise InputError(f"{origin(model, inputs) or 'the outputs of the network'} are not finite")
                if gradients is not None:
                    _send_back(outputs, gradients(outputs, target), anchor, watchers.values())
            samples += batch_size(inputs)
    if not samples:
        raise InputError("no data: there is no batch to run the network on")
    if unused := [name for name in watchers if name not in order]:
        raise InputError(f"layer {unused[0]!r} is not used: the network never calls it")
    return Seen(samples, list(order))


@contextmanager
def keep_full_precision() -> Generator[None]:
    """Keep products in float32 from being shortened to TF32 or bfloat16; settings are restored.

    Yields:
        Nothing.
    """
    backends: Any = torch.backends
    try:
        matmul, convolutions = torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32
    except RuntimeError:  # set through the interface of torch 2.9, after which this one does not answer
        parts = [backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv]
        before = [part.fp32_precision for part in parts]
        _set_precision(parts, ["ieee"] * len(parts))
        try:
            yield
        finally:
            _set_precision(parts, before)
        return
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        backends.cudnn.allow_tf32 = convolutions


def _set_precision(parts: Sequence[Any], values: Sequence[str]) -> None:
    for part, value in zip(parts, values, strict=True):
        part.fp32_precision = value


class _Tap(torch.autograd.Function):
    """The identity, in place, that shows the gradient which passes through it.

    In place, because the layer's output must stay one tensor: nothing is copied, and an in-place activation that
    follows does to it what it would have done without us. A hook of the module would break on such an activation.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor, show: Callable[[Tensor], None]) -> Tensor:
        ctx.show = show
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        ctx.show(gradients[0])
        return gradients[0], None, None


_Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Tensor], Tensor | None]


def _hook(watcher: Watcher, anchor: Tensor, called: Callable[[], object]) -> _Hook:
    def hook(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Tensor | None:
        called()
        x: Tensor = args[0] if args else named["input"]
        with torch.no_grad():
            kept = watcher.on_call(x.detach(), output.detach())
        if not torch.is_grad_enabled():
            return None

        def show(gradient: Tensor) -> None:
            with torch.no_grad():
                watcher.on_gradient(kept, gradient)

        tapped: Tensor = _Tap.apply(output, anchor, show)
        return tapped

    return hook


def _send_back(outputs: Tensor, gradients: Iterable[Tensor], anchor: Tensor, watchers: Iterable[Watcher]) -> None:
    """Run the backward passes of one batch; only what lies between outputs and watched layers is computed."""
    for gradient, following in pairwise(chain(gradients, [None])):
        if outputs.requires_grad:
            torch.autograd.grad(outputs, anchor, gradient, retain_graph=following is not None, allow_unused=True)
        for watcher in watchers:
            watcher.on_pass()
