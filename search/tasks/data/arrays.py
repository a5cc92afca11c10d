"""The user's own data: what ``package.module:function`` may return.

* ``(inputs, targets)``, which is split in three;
* ``((train_inputs, train_targets), (test_inputs, test_targets))``, which keeps its test set;
* ``((train_inputs, train_targets), (validation_inputs, ...), (test_inputs, ...))``, which is taken as it is;
* the same as a dict with the keys ``train``, ``validation`` and ``test``, of which only ``train`` must be there;
* instead of any pair a ``torch.utils.data.Dataset`` or ``DataLoader`` (see :mod:`search.tasks.data.datasets`).

Arrays are NumPy's or torch's:

* inputs ``[examples, channels, ...]``, or a tuple or dict of such arrays: uint8 are normalised by mean and standard
  deviation of each channel over the training part, floats are taken as they are, other whole numbers too where there
  are several arrays;
* targets as the task takes them: for classification labels ``[examples]``, whole numbers from 0 to classes - 1, each of
  them present; for segmentation labels ``[examples, height, width]``; for regression numbers ``[examples]`` or
  ``[examples, outputs]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from methods.contract.inputs import Inputs, batch_size, check_inputs, shapes_of, tensors
from methods.contract.named import call_named
from methods.contract.task import Task
from search.tasks.data.datasets import dataset_parts
from search.tasks.data.labels import check_labels
from search.tasks.data.memory import Examples, Source, split_in_memory
from search.tasks.data.parts import Data
from search.tasks.data.sizes import SplitSizes
from search.tasks.data.splits import Augment, Augmentation
from spaces import InputError, explain_unknown_name

PARTS = ("train", "validation", "test")


def user_data(
    function: Callable[[], Any],
    reference: str,
    sizes: SplitSizes,
    task: Task,
    augmentation: Augmentation | Augment | None = None,
) -> Data:
    """Call the user's function and split what it returns.

    Args:
        function: The user's function; called without arguments.
        reference: The name it was given by.
        sizes: Sizes of the parts, and the seed that draws them.
        task: What the data are for.
        augmentation: What happens to training inputs; nothing by default.

    Returns:
        The three parts.

    Raises:
        InputError: If the function fails, or returns anything else than described above.
    """
    returned = call_named(function, reference, "data")
    parts = _parts(returned, reference)
    if any(isinstance(part, Dataset | DataLoader) for part in parts.values()):
        return dataset_parts(reference, parts, sizes, task, augmentation)
    if not all(_is_pair(part) for part in parts.values()):
        raise InputError(_explain_wrong_data(reference, returned))
    whole = len(parts) == 1
    read = {
        name: _examples(
            part[0], part[1], f"data {reference!r}" if whole else f"data {reference!r}, {_WORDS[name]}", task
        )
        for name, part in parts.items()
    }
    train = read["train"]
    outputs = task.count_outputs(train.targets, f"data {reference!r}")
    for name, part in read.items():
        if name != "train":
            _check_part(train, part, outputs, reference, name, task)
    source = Source(reference, outputs, train, read.get("test"), validation=read.get("validation"), task=task)
    return split_in_memory(source, sizes, augmentation)


_WORDS = {"train": "training part", "validation": "validation part", "test": "test part"}


def _explain_wrong_data(reference: str, returned: Any) -> str:
    kind = f"a {type(returned).__name__} of {len(returned)}" if isinstance(returned, list | tuple) else None
    return (
        f"data {reference!r} must return (inputs, labels) or ((train_inputs, train_labels), (test_inputs, "
        "test_labels)) or three such pairs (training, validation, test), a torch Dataset or DataLoader in place of any "
        f"pair, or a dict of them with the keys train, validation and test, not {kind or type(returned).__name__}"
    )


def _parts(returned: Any, reference: str) -> dict[str, Any]:
    """Name the parts that were returned."""
    if isinstance(returned, Mapping):
        for name in returned:
            if name not in PARTS:
                raise InputError(explain_unknown_name(f"part in data {reference!r}:", str(name), PARTS))
        if "train" not in returned:
            raise InputError(f"data {reference!r} has no part 'train', only {', '.join(map(repr, returned))}")
        return {name: returned[name] for name in PARTS if name in returned}
    if isinstance(returned, Dataset | DataLoader):
        return {"train": returned}
    if isinstance(returned, list | tuple) and len(returned) in (2, 3) and all(_is_part(each) for each in returned):
        names = PARTS if len(returned) == 3 else ("train", "test")
        return dict(zip(names, returned, strict=True))
    mixed = isinstance(returned, list | tuple) and any(isinstance(each, Dataset | DataLoader) for each in returned)
    if mixed or not _is_pair(returned):  # a dataset beside something that is none has no meaning as an array
        raise InputError(_explain_wrong_data(reference, returned))
    return {"train": returned}


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _is_part(value: Any) -> bool:
    return _is_pair(value) or isinstance(value, Dataset | DataLoader)


def _examples(inputs: Any, targets: Any, where: str, task: Task) -> Examples:
    x = _inputs(inputs, f"{where}: inputs")
    y = task.convert_target(targets, where)
    if batch_size(x) != batch_size(y) or batch_size(x) == 0:
        raise InputError(f"{where}: {batch_size(x)} inputs {shapes_of(x)} for {batch_size(y)} labels {shapes_of(y)}")
    return Examples(x, y)


def _inputs(value: Any, what: str) -> Inputs:
    """Bring inputs into tensors, floats in float32."""
    if isinstance(value, Mapping):
        return check_inputs({name: _array(each, f"{what} {name!r}", True) for name, each in value.items()}, what)
    if isinstance(value, tuple):
        return check_inputs(tuple(_array(each, what, True) for each in value), what)
    return check_inputs(_array(value, what, False), what)


def _array(value: Any, what: str, several: bool) -> Tensor:
    x = Task.as_tensor(value, what)
    if x.ndim < 1 + (not several):
        raise InputError(f"{what} {list(x.shape)} must have the shape [examples, channels, ...]")
    _refuse_channels_last(x, what)
    if x.is_floating_point():
        if not bool(torch.isfinite(x).all()):
            raise InputError(f"{what} hold NaN or infinite values; remove or replace them")
        return x.to(torch.float32).contiguous()
    if x.dtype != torch.uint8 and not (several and not x.is_complex()):
        raise InputError(
            f"{what} must be uint8 or floats, not {x.dtype}: x.astype('uint8') of images from 0 to 255, "
            "x.astype('float32') of anything else"
        )
    return (x if x.dtype == torch.uint8 else x.to(torch.int64)).contiguous()


def _refuse_channels_last(x: Tensor, what: str) -> None:
    """Say how images with channels last are turned; they would be read as images of 32 channels and 3 columns."""
    if x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4) and x.shape[2] > 4:
        raise InputError(
            f"{what} {list(x.shape)} look like images with channels last; give [examples, channels, height, width], as "
            "by numpy.moveaxis(images, -1, 1) or tensor.movedim(-1, 1)"
        )


def _check_part(train: Examples, part: Examples, outputs: int, reference: str, name: str, task: Task) -> None:
    """Refuse a part that does not go with the training part."""
    kinds = [[(each.dtype, list(each.shape[1:])) for each in tensors(some.inputs)] for some in (part, train)]
    if kinds[0] != kinds[1] or type(part.inputs) is not type(train.inputs):
        found, wanted = (", ".join(f"{dtype} {shape}" for dtype, shape in kind) for kind in kinds)
        raise InputError(
            f"data {reference!r}: inputs of the {name} part are {found}, those of the training part {wanted}"
        )
    check_labels(part.targets, outputs, f"data {reference!r}: the {name} part", task)
