"""Where the blocks of a layer lie in its matrix, and how inputs are brought into them.

A layer of blocks is specified by the positions that each block reads (:class:`PivotSpec`). From these positions
alone follows how inputs are best brought into the blocks (:func:`find_reading`): as they lie, by a perfect shuffle,
slab by slab, or, where nothing else is possible, one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Reading = Literal["natural", "shuffle", "slabs", "index"]
"""How inputs get into blocks: as they lie; each block every ``blocks``-th one; whole slabs; one by one."""


@dataclass(frozen=True)
class PivotSpec:
    """Which entries of a layer's matrix are kept, in terms of the positions of its input and output channels.

    Attributes:
        columns: Input positions that each block reads, ``[blocks, width]``.
        clusters: Cluster of rows that each block belongs to, ``[blocks]``, ascending.
        rows: Output position of each row, cluster by cluster, ``[rows]``.
    """

    columns: Tensor
    clusters: Tensor
    rows: Tensor

    @property
    def height(self) -> int:
        """Rows of a block."""
        return len(self.rows) // (int(self.clusters[-1]) + 1)

    def mask(self, inputs: int) -> Tensor:
        """Return which entries are kept.

        Args:
            inputs: Number of input channels.

        Returns:
            ``[rows, inputs]``, bool.
        """
        found = torch.zeros(len(self.rows), inputs, dtype=torch.bool)
        rows = self.rows.reshape(-1, self.height)
        for cluster, columns in zip(self.clusters.tolist(), self.columns, strict=True):
            found[rows[cluster][:, None], columns[None, :]] = True
        return found


def find_reading(columns: Tensor, inputs: int) -> tuple[Reading, Tensor]:
    """Find the cheapest way to bring inputs into blocks.

    Args:
        columns: Input positions that each block reads, ``[blocks, width]``.
        inputs: Number of input channels.

    Returns:
        The way, and what it needs: nothing, the numbers of slabs, or an index of channels.
    """
    flat, (blocks, width) = columns.flatten(), columns.shape
    nothing = torch.empty(0, dtype=torch.long)
    if len(flat) == inputs:
        natural = torch.arange(inputs)
        if torch.equal(flat, natural):
            return "natural", nothing
        if torch.equal(flat, natural.reshape(width, blocks).T.flatten()):
            return "shuffle", nothing
    for side in range(width, 1, -1):
        if width % side == 0 and inputs % side == 0:
            slabs = flat.reshape(-1, side)
            starts = slabs[:, 0]
            if bool((starts % side == 0).all()) and torch.equal(slabs, starts[:, None] + torch.arange(side)):
                return "slabs", starts // side
    return "index", flat


class Arrangement(nn.Module):
    """How the inputs of a layer are brought into its blocks, and where its rows go.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
        blocks: Number of blocks.
        width: Columns of a block.
        clusters: Number of clusters of rows; blocks of one cluster are added up.
        reading: How inputs get into blocks.
        slab: Channels of a slab, where slabs are read.
        placed: Whether the rows have to be put into another order.

    Raises:
        ValueError: If the numbers do not make a layer.
    """

    reads: Tensor
    sums: Tensor
    places: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        blocks: int,
        width: int,
        clusters: int,
        reading: Reading,
        slab: int,
        placed: bool,
    ) -> None:
        super().__init__()
        lengths = {"natural": 0, "shuffle": 0, "slabs": blocks * width // max(slab, 1), "index": blocks * width}
        whole = reading not in ("natural", "shuffle") or blocks * width == inputs
        if reading not in lengths or not whole or outputs % clusters or clusters > blocks:
            raise ValueError(
                f"{blocks} blocks of {width} columns in {clusters} clusters, read by {reading!r}, do not make a layer "
                f"from {inputs} to {outputs} channels"
            )
        self.inputs, self.outputs, self.blocks, self.width = inputs, outputs, blocks, width
        self.clusters, self.slab, self.placed = clusters, slab, placed
        self.reading: Reading = reading
        self.register_buffer("reads", torch.zeros(lengths[reading], dtype=torch.long))
        self.register_buffer("sums", torch.zeros(blocks if clusters < blocks else 0, dtype=torch.long))
        self.register_buffer("places", torch.zeros(outputs if placed else 0, dtype=torch.long))

    @property
    def height(self) -> int:
        """Rows of a block."""
        return self.outputs // self.clusters

    @property
    def gathers(self) -> int:
        """How many times channels are put into another order, one by one, when the layer runs."""
        return int(self.reading == "index") + int(self.placed)

    def settings(self) -> dict[str, Any]:
        """Return what builds an arrangement of the same shapes, but for inputs and outputs.

        Returns:
            Arguments by name, plain JSON.
        """
        return {
            "blocks": self.blocks,
            "width": self.width,
            "clusters": self.clusters,
            "reading": self.reading,
            "slab": self.slab,
            "placed": self.placed,
        }

    def read(self, x: Tensor, dim: int) -> Tensor:
        """Bring the inputs into the order of the blocks.

        Args:
            x: Inputs.
            dim: Their channel dimension.

        Returns:
            ``blocks * width`` channels, block by block.
        """
        if self.reading == "natural":
            return x
        if self.reading == "index":
            return x.index_select(dim, self.reads)
        if self.reading == "slabs":
            slabs: Tensor = x.unflatten(dim, (-1, self.slab))
            return slabs.index_select(dim, self.reads).flatten(dim, dim + 1)
        if x.ndim == 4 and dim == 1:
            return F.channel_shuffle(x, self.width)  # keeps the memory format
        strides: Tensor = x.unflatten(dim, (self.width, self.blocks))
        return strides.transpose(dim, dim + 1).flatten(dim, dim + 1)

    def pieces(self, x: Tensor, dim: int) -> tuple[Tensor, ...]:
        """Return the inputs of each block, as views of what comes in where there is an order to them.

        Args:
            x: Inputs.
            dim: Their channel dimension.

        Returns:
            ``width`` channels for each block.
        """
        if self.reading == "shuffle":
            strides: Tensor = x.unflatten(dim, (self.width, self.blocks))
            return strides.unbind(dim + 1)
        parts: tuple[Tensor, ...] = self.read(x, dim).split(self.width, dim)
        return parts

    def collect(self, y: Tensor, dim: int) -> Tensor:
        """Add up blocks of the same rows.

        Args:
            y: Outputs block by block.
            dim: Their channel dimension.

        Returns:
            Outputs cluster by cluster.
        """
        if not len(self.sums):
            return y
        parts: Tensor = y.unflatten(dim, (self.blocks, self.height))
        total = parts.new_zeros([*parts.shape[:dim], self.clusters, *parts.shape[dim + 1 :]])
        return total.index_add(dim, self.sums, parts).flatten(dim, dim + 1)

    def place(self, y: Tensor, dim: int) -> Tensor:
        """Put the rows where the next layer looks for them.

        Args:
            y: Outputs, cluster by cluster.
            dim: Their channel dimension.

        Returns:
            The layer's outputs.
        """
        return y.index_select(dim, self.places) if self.placed else y

    def follow(self, spec: PivotSpec) -> None:
        """Take over the numbers of a specification.

        Args:
            spec: What the arrangement was built for.
        """
        self.reads.copy_(find_reading(spec.columns, self.inputs)[1])
        if len(self.sums):
            self.sums.copy_(spec.clusters)
        if self.placed:
            self.places.copy_(spec.rows.argsort())

    def spec(self) -> PivotSpec:
        """Return which entries of the dense matrix are kept.

        Returns:
            The specification, on the CPU.
        """
        positions = torch.arange(self.inputs, device=self.reads.device)
        columns = self.read(positions[None], 1)[0].cpu().reshape(self.blocks, self.width)
        rows = self.places.argsort().cpu() if self.placed else torch.arange(self.outputs)
        return PivotSpec(columns, self.sums.cpu() if len(self.sums) else torch.arange(self.blocks), rows)


def arrange(spec: PivotSpec, inputs: int) -> dict[str, Any]:
    """Find the arrangement for a specification.

    Args:
        spec: Which entries are kept.
        inputs: Number of input channels.

    Returns:
        The arguments of :class:`Arrangement`, but for inputs and outputs.
    """
    reading, reads = find_reading(spec.columns, inputs)
    blocks, width = spec.columns.shape
    return {
        "blocks": blocks,
        "width": width,
        "clusters": int(spec.clusters[-1]) + 1,
        "reading": reading,
        "slab": blocks * width // len(reads) if reading == "slabs" else 0,
        "placed": not torch.equal(spec.rows, torch.arange(len(spec.rows))),
    }


def blocks_of(spec: PivotSpec, weight: Tensor) -> Tensor:
    """Cut the blocks out of a dense weight.

    Args:
        spec: Which entries are kept.
        weight: ``[outputs, inputs, ...]``.

    Returns:
        ``[blocks, height, width, ...]``.
    """
    rows = spec.rows.reshape(-1, spec.height)[spec.clusters].to(weight.device)
    return weight[rows[:, :, None], spec.columns.to(weight.device)[:, None, :]]
