"""An epoch of the trainer beside a lean loop written by hand and the usual script with a ``DataLoader``, in turns.

    python benchmarks/training.py --model digits_resnet --data digits --rounds 5

All three train the same network from the same weights with the same batch size, optimiser, precision, augmentation
and normalisation, and none of them evaluates. Printed are the median seconds of an epoch, and the medians of the
quotients of neighbours in time. The script makes its batches as torchvision's data sets do: one picture after the other
is cropped, mirrored, made a tensor and normalised by ``torchvision.transforms``, and a ``DataLoader`` in this process
collates them. With ``--plain`` the script is given tensors that are normalised already, and augments nothing.
``--data benchmarks.training:make_noise_like_cifar --augment cifar`` needs no files.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms

from methods.contract.data import Split
from methods.contract.recipe import Recipe, learning_rate
from methods.training.trainer import Trainer, build_optimizer
from search.tasks.data.augmentations import PaddedCrop
from search.tasks.data.sizes import SplitSizes
from search.tasks.data.splits import Augmentation, TensorSplit
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


def make_noise_like_cifar(count: int = 1600) -> tuple[Tensor, Tensor]:
    """Make noise of CIFAR-10's shape, to measure with where there is no CIFAR-10.

    Args:
        count: How many images.

    Returns:
        Images ``[count, 3, 32, 32]``, uint8, and labels.
    """
    source = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 32, 32), generator=source, dtype=torch.uint8)
    return images, torch.randint(10, (count,), generator=source)


class Pictures(Dataset[tuple[Tensor, int]]):
    """Pictures one by one, as torchvision's data sets hand them out.

    Args:
        train: Images in memory, uint8, with the usual augmentation.
    """

    def __init__(self, train: TensorSplit) -> None:
        usual = train.augmentation
        if isinstance(usual, PaddedCrop):
            usual = Augmentation(padding=train.inputs.shape[-1] // 8, flip=True)
        if not isinstance(usual, Augmentation) or train.inputs.dtype != torch.uint8:
            raise SystemExit("the usual script is that of images in bytes that are cropped and mirrored; give --plain")
        self.images, self.labels = train.inputs.movedim(1, -1).numpy(), train.targets.tolist()
        pixels = train.inputs.float() / 255
        mean, std = pixels.mean((0, 2, 3)).tolist(), pixels.std((0, 2, 3)).tolist()
        steps: list[Callable[..., object]] = []
        if usual.padding:
            steps.append(transforms.RandomCrop(pixels.shape[-1], padding=usual.padding))
        if usual.flip:
            steps.append(transforms.RandomHorizontalFlip())
        self.transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean, std)])

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return one picture, augmented and normalised, and its label."""
        image = self.images[index]
        return self.transform(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)), self.labels[index]


def run_usual_script(model: nn.Module, examples: Dataset[tuple[Tensor, ...]], recipe: Recipe, steps: int) -> None:
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
    parser.add_argument("--augment", help="what happens to training images; by default what the data set has")
    parser.add_argument("--plain", action="store_true", help="a script with normalised tensors and no augmentation")
    given = parser.parse_args()
    workload = Workload.load(given.model, given.data, given.data_root, SplitSizes(), 0, augment=given.augment)
    recipe, _ = default_recipe(given.data)
    recipe = recipe.with_changes(warmup=0.0, bf16=given.bf16, channels_last=given.bf16, label_smoothing=0.0)
    train, start = workload.data.train, workload.build()
    steps = train.steps(recipe.batch_size)
    examples: Dataset[tuple[Tensor, ...]]
    if given.plain:
        pairs = [(x, y) for x, y in train.batches(512) if isinstance(x, Tensor) and isinstance(y, Tensor)]
        examples = TensorDataset(torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]))
    elif isinstance(train, TensorSplit):
        examples = Pictures(train)  # type: ignore[assignment]  # a picture and a number, which are collated to tensors
    else:
        raise SystemExit("the usual script is that of images in memory; give --plain")
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
