"""Pivoting: the matrix of one layer as it is, permuted, after its weight has moved into the blocks, and cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from methods.network.architecture import rebuild
from methods.pivoting.block_matrices import Floats, Matrix, Pivots
from methods.pivoting.blocks import PivotedConv2d, dense
from methods.pivoting.concentration import Concentration
from search.records.outcome import Outcome
from search.report.palette import INK, MUTED
from search.trials.trial import Finished

from .canvas import GONE, KEPT, canvas
from .digits import Digits, digits
from .tracks import watch_hook

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

LAYER = "layer3.0.conv2"


@dataclass(frozen=True)
class Stage:
    """The matrix of a layer in some order of rows and columns.

    Attributes:
        entries: Sums of squared weights, ``[rows, columns]``, block by block.
        title: What it is.
    """

    entries: Floats
    title: str

    def measure_inside(self, blocks: int) -> float:
        """Return the share of the squares that lies in the blocks on the diagonal.

        Args:
            blocks: How many.

        Returns:
            From 0 to 1.
        """
        rows, columns = (np.arange(size) * blocks // size for size in self.entries.shape)
        return float(self.entries[rows[:, None] == columns[None, :]].sum() / self.entries.sum())


@dataclass(frozen=True)
class Watched:
    """What was seen of a layer.

    Attributes:
        stages: From the dense network to that of blocks.
        blocks: How many blocks are left.
        outcome: Of the trial.
    """

    stages: tuple[Stage, ...]
    blocks: int
    outcome: Outcome


def permute_to_blocks(entries: Floats, matrix: Matrix, pivots: Pivots, kept: int) -> Floats:
    """Permute the entries of a matrix of one block per cluster of rows, so that the blocks lie on the diagonal.

    Args:
        entries: ``[rows, columns]``.
        matrix: How rows and columns are cut into clusters.
        pivots: What was found.
        kept: Which of the matrices it is.

    Returns:
        The same entries.
    """
    rows, columns = (axis.clusters_of_entries(pivots.orders) for axis in (matrix.rows, matrix.columns))
    reader = pivots.kept[kept].argmax(0)  # of each cluster of columns, the cluster of rows
    permuted: Floats = entries[rows.argsort(kind="stable")][:, reader[columns].argsort(kind="stable")]
    return permuted


def watch(data: Digits, flops: float) -> Watched:
    """Run a gradual trial, and note the matrix of the layer and its pivots.

    Args:
        data: Network, data and budget.
        flops: Share of the dense FLOPs that is left.

    Returns:
        Four stages.
    """
    before: list[Stage] = []
    after: list[Stage] = []
    matrices: list[Matrix] = []

    def look(hook: Concentration) -> None:
        place, entries = hook.plan.names.index(LAYER), hook.scores.entries()[LAYER]
        matrix = hook.plan.matrices[place]
        now = permute_to_blocks(entries, matrix, hook.pivots, place)
        if not matrices:  # after the first step, which changes next to nothing
            matrices.append(matrix)
            before[:] = [Stage(entries, "as trained"), Stage(now, "the same, pivoted")]
        after[:] = [Stage(now, "after moving weight")]

    with watch_hook(Concentration, look):
        finished = data.trial("pivoting", {"sparsity.mode": "flops", "sparsity.flops": flops, "mode": "gradual"})
    cut = Stage(blocks_alone(data, finished), "cut and fine-tuned")
    return Watched((*before, *after, cut), matrices[0].blocks, finished.outcome)


def blocks_alone(data: Digits, finished: Finished) -> Floats:
    """Return the matrix of the layer in the pruned network, block by block.

    Args:
        data: The dense network.
        finished: The trial.

    Returns:
        Sums of squared weights, ``[rows, columns]``.
    """
    assert finished.architecture is not None
    network = rebuild(data.setting.model, finished.architecture, finished.weights, (PivotedConv2d,))
    layer = network.get_submodule(LAYER)
    assert isinstance(layer, PivotedConv2d)
    places = layer.arrangement.spec()
    weight = dense(layer).weight.detach()[places.rows][:, places.columns.flatten()]
    return np.asarray(weight.double().square().sum((2, 3)))


def draw_matrix(axes: Axes, stage: Stage, blocks: int, outlined: bool, brightest: float, colours: Colormap) -> None:
    """Draw a matrix as a heat map.

    Args:
        axes: Where to draw.
        stage: The matrix.
        blocks: How many blocks.
        outlined: Whether blocks are outlined.
        brightest: Largest size that has a colour of its own.
        colours: From nothing to the brightest.
    """
    from matplotlib.patches import Rectangle

    axes.imshow(np.sqrt(stage.entries), cmap=colours, vmin=0, vmax=brightest, interpolation="nearest")
    rows, columns = stage.entries.shape
    height, width = rows / blocks, columns / blocks
    for block in range(blocks if outlined else 0):
        corner = (block * width - 0.5, block * height - 0.5)
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=GONE, linewidth=1.4))
    axes.set_title(stage.title, loc="left", fontsize=12, color=INK, pad=8)
    order = ", in new order" if outlined else ""
    share = f"{100 * stage.measure_inside(blocks):.0f} % of the squares"
    where = "in the blocks" if outlined else f"in {blocks} blocks of the diagonal"
    axes.set_xlabel(f"input channels{order}", color=INK, fontsize=10.5)
    axes.set_ylabel(f"output channels{order}", color=INK, fontsize=10.5)
    axes.text(0.5, -0.16, f"{share}\n{where}", transform=axes.transAxes, ha="center", va="top", fontsize=11, color=INK)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(MUTED)


def draw(directory: Path, overrides: Sequence[str] = (), flops: float = 0.5) -> Figure:
    """Draw the matrix of one layer before, pivoted and after training.

    Args:
        directory: The run store.
        overrides: Changes of the configuration.
        flops: Share of the dense FLOPs that is left.

    Returns:
        The figure.
    """
    from matplotlib.colors import LinearSegmentedColormap

    data = digits("pivoting", directory, 40, overrides)
    found = watch(data, flops)
    accuracy = 100 * found.outcome.metrics["accuracy"]
    figure = canvas(
        "pivoting: a new order of channels gathers weight in blocks, training gathers more, the rest goes",
        f"{data.describe(flops)}, {accuracy:.1f} % on validation; mode gradual, all else at its default; layer {LAYER}",
        height=4.6,
    )
    colours = LinearSegmentedColormap.from_list("sizes", ["#FFFFFF", "#56B4E9", KEPT, "#0B2545"])
    brightest = float(np.quantile(np.sqrt([stage.entries for stage in found.stages[:3]]), 0.995))
    panels = figure.subplots(1, 4)
    for number, (axes, stage) in enumerate(zip(panels, found.stages, strict=True)):
        draw_matrix(axes, stage, found.blocks, number > 0, brightest, colours)
    bar = figure.colorbar(panels[0].images[0], ax=panels, shrink=0.7, pad=0.01, aspect=28, extend="max")
    bar.set_label("length of a kernel (L2 norm)", color=INK, fontsize=11)
    bar.ax.tick_params(colors=INK, labelsize=10, length=0)
    bar.outline.set_visible(False)
    return figure
