"""Drawing parts of a data set in which every class has its share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spaces import InputError


def part_size(size: float, examples: int, part: str) -> int:
    """Turn a share or a number of examples into a number of examples.

    Args:
        size: A share below 1, or a whole number of examples.
        examples: How many examples there are to choose from.
        part: Name of the part, for messages ("validation", "test").

    Returns:
        Number of examples, at least 1.

    Raises:
        InputError: If the size is not whole, or none or all of the examples would be taken.
    """
    count = round(size * examples) if size < 1 else round(size)
    if size > 1 and count != size:
        raise InputError(f"split.{part} = {size} must be a share below 1 or a whole number of examples")
    if not 1 <= count < examples:
        raise InputError(
            f"split.{part} = {size:g} takes {count} of {examples} examples; "
            "it must take at least one and leave at least one"
        )
    return count


def random_parts(examples: int, sizes: Sequence[int], generator: torch.Generator) -> list[Tensor]:
    """Draw disjoint parts at random, for targets that are not classes.

    Args:
        examples: How many examples there are.
        sizes: Examples of each part.
        generator: Decides which examples fall where.

    Returns:
        Ascending indices of each part, and of the remainder as the last part.

    Raises:
        InputError: If the parts take all the examples.
    """
    if sum(sizes) >= examples:
        raise InputError(f"parts of {' + '.join(map(str, sizes))} examples leave none of {examples} for training")
    shuffled = torch.randperm(examples, generator=generator)
    return [part.sort().values for part in shuffled.split([*sizes, examples - sum(sizes)])]


def stratify(labels: Tensor, sizes: Sequence[int], generator: torch.Generator) -> list[Tensor]:
    """Draw disjoint parts in which every class has its share to within one example.

    Args:
        labels: Class of each example, ``[examples]``, on the CPU.
        sizes: Examples of each part.
        generator: Decides which examples fall where.

    Returns:
        Ascending indices of each part, and of the remainder as the last part.

    Raises:
        InputError: If the parts take all the examples, or all those of a class.
    """
    if sum(sizes) >= len(labels):
        raise InputError(f"parts of {' + '.join(map(str, sizes))} examples leave none of {len(labels)} for training")
    shuffled = torch.randperm(len(labels), generator=generator)
    # Stable, so that each class is a run of its examples in random order.
    by_class = shuffled[torch.sort(labels[shuffled], stable=True).indices]
    left = torch.bincount(labels)
    pools = list(by_class.split(left.tolist()))
    parts = []
    for size in sizes:
        shares = _shares(left, size)
        parts.append(torch.cat([pool[:n] for pool, n in zip(pools, shares, strict=True)]))
        pools = [pool[n:] for pool, n in zip(pools, shares, strict=True)]
        left = left - torch.tensor(shares)
    present = torch.bincount(labels) > 0
    if bool((left[present] == 0).any()):
        emptied = int(torch.nonzero(present & (left == 0))[0])
        raise InputError(
            f"class {emptied} has too few examples ({int((labels == emptied).sum())}) to keep one for "
            f"training beside parts of {' and '.join(map(str, sizes))}; make the parts smaller"
        )
    return [part.sort().values for part in [*parts, torch.cat(pools)]]


def _shares(left: Tensor, size: int) -> list[int]:
    # By largest remainders; ties go to the first class.
    total = int(left.sum())
    exact = [n * size for n in left.tolist()]  # times `total`: integers, so that no rounding can creep in
    shares = [n // total for n in exact]
    order = sorted(range(len(exact)), key=lambda c: (-(exact[c] % total), c))
    for c in order[: size - sum(shares)]:
        shares[c] += 1
    return shares
