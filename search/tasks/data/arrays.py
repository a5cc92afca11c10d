"""The user's own arrays: what ``package.module:function`` may return.

Either ``(inputs, labels)``, which is split in three, or ``((train_inputs, train_labels), (test_inputs,
test_labels))``, which keeps its test set. Arrays are NumPy's or torch's:

* inputs ``[examples, channels, ...]``: uint8 are normalised by mean and standard deviation of each channel
  over the training part, floats are taken as they are;
* labels ``[examples]``: whole numbers from 0 to classes - 1, each of them present.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from methods.contract.named import call_named
from search.tasks.data.memory import Examples, Source, split_in_memory
from search.tasks.data.parts import Data
from search.tasks.data.sizes import SplitSizes
from spaces import InputError


def user_arrays(function: Callable[..., Any], reference: str, sizes: SplitSizes) -> Data:
    """Call the user's function and split what it returns.

    Args:
        function: The function; called without arguments.
        reference: The name it was given by, for messages.
        sizes: Sizes of the parts, and the seed that draws them.

    Returns:
        The three parts.

    Raises:
        InputError: If the function fails, or returns anything else than described above.
    """
    returned = call_named(function, reference, "data")
    if not _is_pair(returned):
        raise InputError(
            f"data {reference!r} must return (inputs, labels) or ((train_inputs, train_labels), "
            f"(test_inputs, test_labels)), not {type(returned).__name__}"
        )
    first, second = returned
    test = None
    if _is_pair(first) and _is_pair(second):
        train = _examples(first[0], first[1], f"data {reference!r}, training part")
        test = _examples(second[0], second[1], f"data {reference!r}, test part")
    else:
        train = _examples(first, second, f"data {reference!r}")
    classes = _classes(train.labels, reference)
    if test is not None:
        _check_test(train, test, classes, reference)
    return split_in_memory(Source(reference, classes, train, test), sizes)


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _examples(inputs: Any, labels: Any, where: str) -> Examples:
    x, y = _tensor(inputs, f"{where}: inputs"), _tensor(labels, f"{where}: labels")
    if x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or x.numel() == 0:
        raise InputError(
            f"{where}: inputs {list(x.shape)} and labels {list(y.shape)} must have the shapes "
            "[examples, channels, ...] and [examples]"
        )
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool or int(y.min()) < 0:
        raise InputError(f"{where}: labels must be whole numbers from 0, not {y.dtype} from {y.min().item()}")
    if x.is_floating_point():
        if not bool(torch.isfinite(x).all()):
            raise InputError(f"{where}: inputs hold NaN or infinite values; remove or replace them")
        x = x.to(torch.float32)
    elif x.dtype != torch.uint8:
        raise InputError(f"{where}: inputs must be uint8 or floats, not {x.dtype}")
    return Examples(x.contiguous(), y.to(torch.int64))


def _tensor(value: Any, what: str) -> Tensor:
    try:
        return torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} must be an array of numbers, not {type(value).__name__}") from error


def _classes(labels: Tensor, reference: str) -> int:
    counts = torch.bincount(labels)
    absent = torch.nonzero(counts == 0).flatten().tolist()
    if absent:
        raise InputError(
            f"data {reference!r}: labels go up to {len(counts) - 1}, but no example has label {absent[0]}; "
            "number the classes from 0 without gaps"
        )
    if len(counts) < 2:
        raise InputError(f"data {reference!r}: there must be at least 2 classes, all labels are 0")
    return len(counts)


def _check_test(train: Examples, test: Examples, classes: int, reference: str) -> None:
    if train.inputs.shape[1:] != test.inputs.shape[1:] or train.inputs.dtype != test.inputs.dtype:
        raise InputError(
            f"data {reference!r}: inputs of the test part are {test.inputs.dtype} {list(test.inputs.shape[1:])}"
            f", those of the training part {train.inputs.dtype} {list(train.inputs.shape[1:])}"
        )
    if int(test.labels.max()) >= classes:
        raise InputError(
            f"data {reference!r}: the test part has label {int(test.labels.max())}, "
            f"the training part has {classes} classes"
        )
