"""An epoch of the trainer beside a lean loop written by hand and the usual script with a ``DataLoader``, in turns.

    python benchmarks/training.py --model digits_resnet --data digits --rounds 5

All three train the same network from the same weights with the same batch size, optimiser and precision, and none of
them evaluates. Printed are the median seconds of an epoch, and the medians of the quotients of neighbours in time. The
script builds its batches as scripts do: one example after the other, collated by a ``DataLoader`` in this process.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from methods.contract.data import Split
from methods.contract.recipe import Recipe, learning_rate
from methods.training.trainer import Trainer, build_optimizer
from search.tasks.data.sizes import SplitSizes
from search.tasks.recipes import default_recipe
from search.tasks.workload import Workload


def lean_loop(model: nn.Module, train: Split, recipe: Recipe, steps: int) -> None:
    """Train for one epoch with nothing around it.

    Args:
        model: The network, trained in place.
        train: The data.
        recipe: Optimiser, schedule, precision.
        steps: Steps of the epoch.
    """
    optimizer = build_optimizer(model, recipe)
    model.train()
    for step, (inputs, labels) in enumerate(train.epoch(recipe.batch_size, seed=0)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, steps)
        _step(model, optimizer, inputs, labels, recipe)  # type: ignore[arg-type]  # tensors, for these data sets


def run_usual_script(model: nn.Module, examples: TensorDataset, recipe: Recipe, steps: int) -> None:
    """Train for one epoch as scripts do: a ``DataLoader``, an optimiser with default settings, a loss read every step.

    Args:
        model: The network, trained in place.
        examples: The data.
        recipe: Optimiser, schedule, precision.
        steps: Steps of the epoch.
    """
    loader = DataLoader(examples, recipe.batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    total = 0.0
    for inputs, labels in loader:
        total += float(_step(model, optimizer, inputs, labels, recipe))
        schedule.step()


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    if recipe.channels_last and inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=recipe.bf16):
        loss = F.cross_entropy(model(inputs), labels)
    torch.autograd.backward(loss)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="digits_resnet", help="network")
    parser.add_argument("--data", default="digits", help="data set")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="where data sets lie")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 and channels last")
    given = parser.parse_args()
    workload = Workload.load(given.model, given.data, given.data_root, SplitSizes(), 0)
    recipe, _ = default_recipe(given.data)
    recipe = recipe.with_changes(warmup=0.0, bf16=given.bf16, channels_last=given.bf16, label_smoothing=0.0)
    train, start = workload.data.train, workload.build()
    steps = train.steps(recipe.batch_size)
    pairs = [(x, y) for x, y in train.batches(512) if isinstance(x, Tensor) and isinstance(y, Tensor)]
    examples = TensorDataset(torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]))
    arms: dict[str, Callable[[nn.Module], object]] = {
        "trainer": lambda model: Trainer(model, train, recipe, steps, 0).run(),
        "lean loop": lambda model: lean_loop(model, train, recipe, steps),
        "usual script": lambda model: run_usual_script(model, examples, recipe, steps),
    }
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(given.rounds + 1):
        for name, run in arms.items():
            model = copy.deepcopy(start)
            began = time.process_time()
            run(model)
            times[name].append(time.process_time() - began)
    times = {name: found[1:] for name, found in times.items()}  # the first round warms up
    for name, found in times.items():
        quotient = statistics.median(a / b for a, b in zip(found, times["trainer"], strict=True))
        print(f"{name:<13}{statistics.median(found):8.3f} s CPU time per epoch  {quotient:6.2f} of the trainer's")


if __name__ == "__main__":
    main()
