"""The mixing condition: every output of a run of blocked layers must be able to depend on every input.

If consecutive layers cut a channel space into the same classes, the network falls apart into as many networks
that know nothing of each other. Whether that happens is seen from products of masks: entry ``(i, j)`` of
``M_t ... M_1`` is positive where a path leads from input ``j`` of the first layer to output ``i`` of the last.
With ``w`` columns per row all paths are there after ``log_w n`` layers at the earliest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from methods.pivoting.block_matrices import Booleans, Part

Layout = tuple[Part, ...]


def is_mixed(masks: Sequence[Booleans]) -> bool:
    """Test whether every output of a chain of masked layers is reached by every input.

    Args:
        masks: Kept entries of each layer, ``[rows, columns]``; the columns of one are the rows of the one
            before.

    Returns:
        Whether the product of the masks is positive everywhere.
    """
    reach = np.asarray(masks[0], dtype=np.float32)
    for mask in masks[1:]:
        reach = (mask.astype(np.float32) @ reach > 0).astype(np.float32)
    return bool(reach.all())


def find_unmixed_layers(
    order: Sequence[str],
    masks: Mapping[str, Booleans],
    reads: Mapping[str, Layout],
    makes: Mapping[str, Layout],
    fans: Mapping[str, int],
    slack: int = 1,
) -> list[str]:
    """Find the layers at which a run of blocked layers should have mixed everything, but has not.

    Every run of consecutive blocked layers is followed until it is mixed, a layer that is not blocked mixes it,
    or it is as long as mixing takes at the earliest times ``slack``.

    Args:
        order: Names of all layers in order of execution.
        masks: Kept entries of the blocked ones, ``[rows, columns]``.
        reads: What the columns of each layer are.
        makes: What the rows of each layer are.
        fans: How many rows of the layer before, of different reach, a row of each blocked layer can read: its
            columns, or where it reads whole slabs that the layer before makes, its slabs.
        slack: How much longer than the earliest a run may take.

    Returns:
        Names, in order.
    """
    place = {name: index for index, name in enumerate(order)}
    failing: set[str] = set()

    def follow(name: str, reach: Booleans, width: int, length: int, earliest: int | None) -> None:
        """Go on from one layer's rows."""
        if reach.all():
            return
        if width >= reach.shape[1] and earliest is None:
            earliest = length
        if earliest is not None and length >= earliest * slack:
            failing.add(name)
            return
        (part,) = makes[name]
        for reader in masks:
            if place[reader] > place[name]:
                columns = _columns_of(part.slot, masks[reader], reads[reader])
                if columns is not None:
                    grown = columns.astype(np.float32) @ reach.astype(np.float32) > 0
                    follow(reader, grown, width * fans[reader], length + 1, earliest)

    for name, mask in masks.items():
        follow(name, mask, int(mask.sum(axis=1).min()), 1, None)
    return sorted(failing, key=place.__getitem__)


def _columns_of(space: int, mask: Booleans, layout: Layout) -> Booleans | None:
    """Return which channels of a space each row reads, ``[rows, channels]``; None if the layer does not read it."""
    found: list[Booleans] = []
    offset = 0
    for part in layout:
        size = part.channels * part.repeat
        if part.slot == space:
            pixels = mask[:, offset : offset + size].reshape(len(mask), part.channels, part.repeat)
            found.append(np.asarray(pixels.any(axis=2)))
        offset += size
    return np.any(found, axis=0) if found else None
