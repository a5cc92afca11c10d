"""A training step on a GPU, its passes computed and replayed as a CUDA graph (``recipe.cuda_graph``), in turns.

    python -m benchmarks.cuda_graph --models resnet20,resnet56,vgg16 --batches 128,512

bfloat16 and channels last, on noise of CIFAR-10's shape cropped and mirrored as CIFAR-10 is; no files are needed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.training import make_noise_like_cifar
from methods.contract.recipe import Recipe
from methods.training.trainer import Trainer
from search.tasks.data.sizes import SplitSizes
from search.tasks.workload import Workload


def make_noise() -> tuple[Tensor, Tensor]:
    """Make as much noise of CIFAR-10's shape as an epoch of large batches needs.

    Returns:
        Images ``[16000, 3, 32, 32]``, uint8, and labels.
    """
    return make_noise_like_cifar(16000)


def time_step(workload: Workload, recipe: Recipe, steps: int) -> float:
    """Measure a step of training, after as many that are not measured.

    Args:
        workload: Network and data.
        recipe: How it is trained.
        steps: How many steps are measured.

    Returns:
        Milliseconds.
    """
    trainer = Trainer(workload.build().cuda(), workload.data.train.to("cuda"), recipe, 2 * steps, 0)
    trainer.run(until=steps)
    torch.cuda.synchronize()
    began = time.perf_counter()
    trainer.run()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps * 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default="resnet20,resnet56,vgg16", help="networks")
    parser.add_argument("--batches", default="128,512", help="examples per step")
    parser.add_argument("--steps", type=int, default=100, help="steps per measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each")
    given = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for model in given.models.split(","):
        workload = Workload.load(
            model, "benchmarks.cuda_graph:make_noise", Path("data"), SplitSizes(), 0, augment="cifar"
        )
        for batch in map(int, given.batches.split(",")):
            usual = Recipe(batch_size=batch, bf16=True, channels_last=True, nesterov=True)
            recipes = usual, usual.with_changes(cuda_graph=True)
            times = [[time_step(workload, recipe, given.steps) for recipe in recipes] for _ in range(given.rounds)]
            computed, replayed = (statistics.median(column) for column in zip(*times, strict=True))
            print(
                f"{model:<16}batch {batch:>5}  computed {computed:7.2f} ms  replayed {replayed:7.2f} ms"
                f"  {computed / replayed:5.2f} times as fast",
                flush=True,
            )


if __name__ == "__main__":
    main()
