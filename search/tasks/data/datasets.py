"""The user's own torch datasets: read example by example, in workers, never held in memory as a whole."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, default_collate
from torchvision.datasets.folder import IMG_EXTENSIONS

from methods.contract.data import Batch
from methods.contract.inputs import Inputs, Target, check_inputs, leaves, map_tensors, move
from methods.contract.recipe import derive_seed
from methods.contract.task import Task
from search.tasks.data.images import ImageFiles, check_images
from search.tasks.data.labels import check_labels
from search.tasks.data.loader_split import Key, ShuffledKeys
from search.tasks.data.parts import Data
from search.tasks.data.sizes import SplitSizes
from search.tasks.data.splits import Augment, Augmentation
from search.tasks.data.stratify import part_size, random_parts, stratify
from spaces import InputError
from spaces.errors import kind_and_line

SHARES = {"validation": 0.1, "test": 0.2}
"""Shares of parts that are not given."""

LOOKED_AT = 64
"""So many examples, evenly spaced, decide the fingerprint of a part."""


class DatasetSplit:
    """One part of a data set as a torch dataset (a :class:`methods.contract.data.Split`).

    The dataset's own transforms are its augmentation. Each example is read with the global generators of torch, NumPy
    and Python seeded for it alone, so that the number of workers makes no difference; for evaluation the seed is the
    same every time.

    Args:
        dataset: Examples by index, ``(inputs, target)``.
        index: Which examples belong to the part, in order.
        task: What the data are for.
        reference: The name the data were asked for by, for messages.
        collate: Makes a batch of a list of examples; torch's default by default.
        augmentation: What happens to the inputs of :meth:`epoch` beside the dataset's own transforms.
        workers: Processes that read examples; 0 reads in this process.
        device: Where batches are handed out.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        index: Sequence[int],
        task: Task,
        reference: str,
        collate: Any = default_collate,
        augmentation: Augment | None = None,
        workers: int = 0,
        device: str = "cpu",
    ) -> None:
        self.dataset, self.index, self.task, self.reference = dataset, tuple(index), task, reference
        self.collate, self.augmentation, self.workers = collate, augmentation, workers
        self.device = torch.device(device)

    @property
    def examples(self) -> int:
        """How many examples the split holds."""
        return len(self.index)

    def to(self, device: str) -> DatasetSplit:
        """Return the split with its batches on a device.

        Args:
            device: ``"cpu"``, ``"cuda"`` and so on.

        Returns:
            The same examples, handed out there.
        """
        return DatasetSplit(
            self.dataset, self.index, self.task, self.reference, self.collate, self.augmentation, self.workers, device
        )

    def steps(self, batch_size: int) -> int:
        """Return how many batches one shuffled epoch has (an incomplete last batch is left out).

        Args:
            batch_size: Examples per batch; a split with fewer examples makes one batch of all.

        Returns:
            Batches per epoch, at least 1.
        """
        return max(1, self.examples // batch_size)

    def epoch(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Yield one epoch in random order.

        Args:
            batch_size: Examples per batch.
            seed: Decides order and augmentation entirely.
            start: Index of the first batch to yield.

        Yields:
            Inputs and targets.
        """
        for step, (inputs, target) in enumerate(
            self._load(ShuffledKeys(self.examples, batch_size, seed, start)), start
        ):
            if self.augmentation is not None:
                generator = torch.Generator().manual_seed(derive_seed(seed, step, 1))
                inputs, target = self.augmentation(inputs, target, generator)
            yield inputs, target

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield every example once, in stored order, with the same random numbers every time.

        Args:
            batch_size: Examples per batch; the last batch may be smaller.

        Yields:
            Inputs and targets.
        """
        starts = range(0, self.examples, batch_size)
        yield from self._load([[(i, i) for i in range(s, min(s + batch_size, self.examples))] for s in starts])

    def fingerprint(self) -> str:
        """Return a hash of what the split holds.

        Returns:
            Hexadecimal digits; equal for equally many examples of which some, evenly spaced, are equal.
        """
        digest = hashlib.sha256(repr((type(self.dataset).__qualname__, self.index)).encode())
        for position in range(0, self.examples, max(1, self.examples // LOOKED_AT)):
            for inputs, target in self._load([[(position, position)]], workers=0):
                for each in leaves((inputs, target)):
                    digest.update(each.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def _load(self, keys: Any, workers: int | None = None) -> Iterator[Batch]:
        loader: DataLoader[Any] = DataLoader(
            _Seeded(self.dataset, self.index),
            batch_sampler=keys,
            num_workers=self.workers if workers is None else workers,
            collate_fn=self.collate,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator().manual_seed(0),  # torch would draw from its global generator
        )
        for batch in self._read(loader):
            inputs, target = read_batch(batch, self.task, f"data {self.reference!r}")
            yield move(inputs, self.device), move(target, self.device)

    def _read(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """Yield batches; what the dataset or the making of a batch raises is said in a sentence."""
        batches = iter(loader)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except Exception as error:  # anything may go wrong in somebody else's dataset
                raise InputError(f"data {self.reference!r}: {_explain_error(error)}") from error
            yield batch


def _explain_error(error: Exception) -> str:
    """Say what went wrong, also where a worker has wrapped it into its traceback."""
    text = str(error).strip()
    if isinstance(error, InputError):
        return text.rpartition("InputError: ")[2]
    said = text.splitlines()[-1] if text.startswith("Caught ") else kind_and_line(error)
    if "default_collate" in said:
        return f"{said}; torchvision.transforms.ToTensor() makes tensors of images"
    if "equal size" in said:
        return f"the examples of a batch differ in their shapes: {said}"
    return said


def read_batch(batch: Any, task: Task, where: str) -> tuple[Inputs, Target]:
    """Take a batch of a user's dataset apart.

    Args:
        batch: What was collated: ``(inputs, target)``, or a dict whose ``target``, ``labels`` or ``label`` is the
            target and whose other entries are the inputs.
        task: What the data are for.
        where: Where it comes from, for messages.

    Returns:
        Inputs (floats in float32, images of uint8 scaled to 0..1) and the target as the task takes it.

    Raises:
        InputError: If it is anything else.
    """
    if isinstance(batch, Mapping):
        key = next((name for name in ("target", "labels", "label") if name in batch), None)
        if key is None:
            raise InputError(f"{where}: examples are dicts with {sorted(batch)}, none of them 'target' or 'labels'")
        inputs: Any = {name: each for name, each in batch.items() if name != key}
        target = batch[key]
    elif isinstance(batch, list | tuple) and len(batch) == 2:
        inputs, target = batch
    else:
        raise InputError(f"{where}: each example must be (input, target), not {type(batch).__name__}")
    checked = check_inputs(inputs, f"{where}: inputs")
    return map_tensors(checked, _convert_to_float), task.convert_target(target, where)


def _convert_to_float(tensor: Tensor) -> Tensor:
    if tensor.is_floating_point():
        return tensor.to(torch.float32)
    return tensor.to(torch.float32) / 255 if tensor.dtype == torch.uint8 else tensor


def dataset_parts(
    reference: str,
    parts: Mapping[str, Any],
    sizes: SplitSizes,
    task: Task,
    augmentation: Augmentation | Augment | None = None,
) -> Data:
    """Make the three parts of the user's datasets.

    Args:
        reference: The name the data were asked for by.
        parts: Datasets or loaders by name of the part; of a loader the dataset, the workers and ``collate_fn`` are
            used, while order and batch size are the recipe's.
        sizes: Sizes of the parts that are drawn from ``train`` (10 % for validation and 20 % for test by default), and
            the seed that draws them.
        task: What the data are for.
        augmentation: A function that changes training batches, beside the transforms that the datasets have.

    Returns:
        The three parts.

    Raises:
        InputError: If a part is no dataset with a length, is empty, or its examples are not pairs.
    """
    if isinstance(augmentation, Augmentation) and augmentation != Augmentation():
        raise InputError(
            f"data {reference!r} are torch datasets, which augment in their own transforms: set augment = 'none', or "
            "name a function"
        )
    change = None if isinstance(augmentation, Augmentation) else augmentation
    whole = {name: _make_whole_split(part, reference, task, name) for name, part in parts.items()}
    train = whole["train"]
    wanted = {"validation": sizes.validation, "test": sizes.test}
    for name, size in wanted.items():
        if name in whole and size is not None:
            raise InputError(f"data {reference!r} has a {name} set of its own: leave split.{name} = {size:g} out")
    missing = [name for name in wanted if name not in whole]
    targets = _collect_targets(train)
    outputs = task.count_outputs(targets, f"data {reference!r}")
    counts = [part_size(wanted[name] or SHARES[name], train.examples, name) for name in missing]
    generator = torch.Generator().manual_seed(sizes.seed)
    drawn = stratify(targets, counts, generator) if task.stratified else random_parts(train.examples, counts, generator)
    found = dict(zip([*missing, "train"], (_part(train, index) for index in drawn), strict=True))
    found |= {name: split for name, split in whole.items() if name != "train"}
    for name in ("validation", "test"):
        if name not in missing:
            check_labels(_collect_targets(found[name]), outputs, f"data {reference!r}: the {name} part", task)
    example, _ = next(_part(found["train"], torch.tensor([0])).batches(1))
    training = found["train"]
    training.augmentation = change
    return Data(reference, outputs, training, found["validation"], found["test"], example)


def _make_whole_split(part: Any, reference: str, task: Task, name: str) -> DatasetSplit:
    """Make a split of all examples of a dataset or loader."""
    where = f"data {reference!r}, {name} part"
    workers, collate, dataset = 0, default_collate, part
    if isinstance(part, DataLoader):
        dataset, workers, collate = part.dataset, part.num_workers, part.collate_fn
    if not isinstance(dataset, Dataset):
        raise InputError(f"{where} must be a torch Dataset or DataLoader like the others, not {type(part).__name__}")
    try:
        examples = len(dataset)  # type: ignore[arg-type]  # not every dataset has a length
    except TypeError as error:
        raise InputError(
            f"{where}: the dataset has no length; order and parts need one (map-style datasets)"
        ) from error
    if examples == 0:
        raise InputError(f"{where}: the dataset is empty")
    split = DatasetSplit(dataset, range(examples), task, reference, collate, None, workers)
    next(split.batches(1))
    _check_files(dataset)
    return split


def _check_files(dataset: Dataset[Any]) -> None:
    """Look at the image files that a dataset of torchvision lists, so that a broken one is known before the sweep."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    samples = getattr(dataset, "samples", None)  # pairs of a path and a class
    if not isinstance(samples, list) or not all(isinstance(each, tuple) and len(each) == 2 for each in samples):
        return
    paths = [Path(path) for path, _ in samples if isinstance(path, str | Path)]
    images = tuple(str(path) for path in paths if path.suffix.lower() in IMG_EXTENSIONS)
    check_images([ImageFiles(Path(), images, torch.zeros(len(images), dtype=torch.int64))])


def _part(split: DatasetSplit, index: Tensor) -> DatasetSplit:
    chosen = [split.index[i] for i in index.tolist()]
    return DatasetSplit(split.dataset, chosen, split.task, split.reference, split.collate, None, split.workers)


def _collect_targets(split: DatasetSplit) -> Target:
    """Collect the targets of all examples: from the dataset's ``targets``, or by reading every example once."""
    known = getattr(split.dataset, "targets", None)
    if known is not None and split.task.stratified and len(known) == split.examples:
        return split.task.convert_target(known, f"data {split.reference!r}")
    parts = [target for _, target in split.batches(64)]
    return _join_parts(parts)


def _join_parts(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, Mapping):
        return {name: _join_parts([part[name] for part in parts]) for name in first}
    return tuple(_join_parts([part[place] for part in parts]) for place in range(len(first)))


class _Seeded(Dataset[Any]):
    """Examples by key, read with random numbers of their own; runs in workers."""

    def __init__(self, dataset: Dataset[Any], index: Sequence[int]) -> None:
        self.dataset, self.index = dataset, index

    def __getitem__(self, key: Key) -> Any:
        position, seed = key
        states = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            return self.dataset[self.index[position]]
        except Exception as error:  # anything may go wrong in somebody else's dataset
            raise InputError(f"reading example {self.index[position]} failed: {kind_and_line(error)}") from error
        finally:
            torch.random.set_rng_state(states[0])
            np.random.set_state(states[1])
            random.setstate(states[2])
