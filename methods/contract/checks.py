"""What a task and a layer with equal forms promise, checked by one call each; plain assertions."""

from __future__ import annotations

import copy
import json
import pickle

import torch
from torch import Tensor, nn

from methods.contract.forms import EqualForms, FormsWithTail
from methods.contract.inputs import Target, batch_size, take
from methods.contract.task import Task
from methods.network.architecture import describe, has_settings, rebuild


def check_task(task: Task, output: Tensor, target: Target) -> None:
    """Check what a task promises, on one batch of outputs and targets that fit.

    Args:
        task: The task.
        output: What a network gives for a few examples, ``[batch, ...]``.
        target: The targets of these examples.
    """
    assert task.name and task.metrics and task.quality == task.metrics[0]
    assert len({metric.name for metric in task.metrics}) == len(task.metrics)
    assert pickle.loads(pickle.dumps(task)).metrics == task.metrics, "a task goes to every worker"
    task.check(output, target)
    free = output.detach().clone().requires_grad_(True)
    loss = task.loss(free, target)
    assert loss.ndim == 0 and bool(loss.isfinite())
    torch.autograd.backward(loss)
    assert free.grad is not None and bool(free.grad.isfinite().all()), "the loss has a gradient"
    whole = task.sums(output, target)
    assert {"loss", "count"} <= whole.keys()
    examples = batch_size(target)
    parts = [task.sums(output[i : i + 1], take(target, slice(i, i + 1))) for i in range(examples)]
    added = {name: torch.stack([part[name].double() for part in parts]).sum(0).cpu() for name in whole}
    for name, value in whole.items():
        assert torch.allclose(added[name], value.double().cpu(), rtol=1e-4), f"{name} must add up over batches"
    found = task.metrics_from(added)
    assert set(found) >= {metric.name for metric in task.metrics}
    assert all(isinstance(value, float) for value in found.values())
    losses = task.sample_losses(output, target)
    assert losses.shape == (examples,)
    if task.draws:
        drawn = task.draw_target(output, torch.Generator(output.device).manual_seed(0), target)
        task.check(output, drawn)
        again = task.draw_target(output, torch.Generator(output.device).manual_seed(0), target)
        assert bool(task.loss(output, drawn) == task.loss(output, again)), "draws follow from the generator"


def check_layer(layer: nn.Module, inputs: Tensor, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Check a layer with equal forms: that they are equal, and that the layer can be described and rebuilt.

    Args:
        layer: The layer.
        inputs: An input of it.
        rtol: By how much answers may differ, as a share.
        atol: By how much they may differ at least.
    """
    layer = layer.eval()
    assert isinstance(layer, EqualForms), "the layer has no equal_forms()"
    with torch.no_grad():
        expected = layer(inputs)
        found = layer.equal_forms()
        if isinstance(layer, FormsWithTail):
            found = found | layer.forms_with_tail(())
        own = {tensor.data_ptr() for tensor in layer.state_dict().values() if tensor.numel()}
        assert type(next(iter(found.values()))) is type(layer), "the layer as it is comes first"
        for name, form in found.items():
            answer = form.eval()(inputs)
            assert torch.allclose(answer, expected, rtol=rtol, atol=atol), f"{name} does not give the same answer"
            shared = own & {tensor.data_ptr() for tensor in form.state_dict().values() if tensor.numel()}
            assert not shared, f"{name} shares tensors with the layer"
    assert has_settings(type(layer)), "without settings() a network with this layer cannot be stored"
    dense, pruned = nn.Sequential(nn.Identity()), nn.Sequential(copy.deepcopy(layer))
    text = json.dumps(describe(dense, pruned))
    dense[0].register_parameter("sample", nn.Parameter(torch.zeros(1)))
    rebuilt = rebuild(dense, json.loads(text), pruned.state_dict(), (type(layer),))
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(inputs), expected)
