"""EigenDamage: the rise of the training loss that the analysis predicts, and the one that is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from methods import load_method
from methods.training.evaluation import evaluate, recalibrate
from search.report.palette import INK, MUTED
from spaces import Value

from .canvas import GONE, KEPT, THIRD, canvas, draw_legend, label_axes
from .digits import SEED, Digits, digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHARES = (0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Shares of the dense FLOPs that are left."""

LOOKS = {
    "eigendamage": ("eigendamage", KEPT, "o"),
    "eigendamage_ek": ("eigendamage_ek", THIRD, "D"),
    "magnitude": ("L1 magnitude of channels", GONE, "s"),
}
"""Variants, and the baseline: label, colour, marker."""


@dataclass(frozen=True)
class Rise:
    """What one cut does to the training loss.

    Attributes:
        share: Of the dense FLOPs that is left.
        predicted: Rise that the method expects; NaN if it expects nothing.
        plain: Rise with the batch norms of the dense network.
        settled: Rise once batch norms are estimated anew, as every method does before it fine-tunes.
    """

    share: float
    predicted: float
    plain: float
    settled: float


def rises(data: Digits, variant: str, shares: Sequence[float] = SHARES) -> list[Rise]:
    """Cut the dense network at several shares, and measure; nothing is fine-tuned.

    Args:
        data: Network and data.
        variant: Of :data:`LOOKS`.
        shares: Of the dense FLOPs.

    Returns:
        One rise per share.
    """
    dense = evaluate(data.setting.model, data.setting.train).loss
    name = "magnitude" if variant == "magnitude" else "eigendamage"
    own: dict[str, Value] = {} if variant == "magnitude" else {"variant": variant}
    found = []
    for share in shares:
        point = {"sparsity.mode": "flops", "sparsity.flops": share, **own}
        pruned = load_method(name).from_point(point).prune(data.problem(steps=0))
        plain = evaluate(pruned.model, data.setting.train).loss - dense
        recipe = data.setting.recipe
        recalibrate(pruned.model, data.setting.train, recipe.recalibrate, recipe.batch_size, SEED)
        settled = evaluate(pruned.model, data.setting.train).loss - dense
        found.append(Rise(share, pruned.extra.get("predicted_damage", float("nan")), plain, settled))
    return found


def draw_rises(axes: Axes, found: dict[str, list[Rise]]) -> None:
    """Draw the measured rise over the FLOPs that are left.

    Args:
        axes: Where to draw.
        found: By variant.
    """
    for variant, (label, colour, marker) in LOOKS.items():
        shares, values = [100 * each.share for each in found[variant]], [each.settled for each in found[variant]]
        axes.plot(shares, values, color=colour, marker=marker, markersize=6, linewidth=1.9, label=label)
    axes.set_yscale("log")
    axes.invert_xaxis()
    label_axes(
        axes, "FLOPs that are left, %", "rise of the training loss (cross-entropy)", "What a cut costs, measured"
    )
    draw_legend(axes, "lower right")


def draw_predictions(axes: Axes, found: dict[str, list[Rise]]) -> None:
    """Draw the measured rise over the predicted one.

    Args:
        axes: Where to draw.
        found: By variant; those that predict nothing are left out.
    """
    every: list[float] = []
    for variant, (label, colour, marker) in LOOKS.items():
        x = [each.predicted for each in found[variant]]
        if variant == "magnitude":
            continue
        plain, settled = [each.plain for each in found[variant]], [each.settled for each in found[variant]]
        axes.plot(x, settled, color=colour, marker=marker, markersize=6, linewidth=1.9, label=label)
        axes.plot(
            x, plain, color=colour, marker=marker, markersize=5, linewidth=1, linestyle=(0, (2, 2)), fillstyle="none",
            label=f"{label}, batch norms left as they were",
        )  # fmt: skip
        every += (value for value in (*x, *plain, *settled) if value > 0)  # a cut may lower the loss
    ends = [0.7 * min(every), 1.5 * max(every)]
    axes.plot(ends, ends, color=INK, linewidth=1, zorder=1)
    axes.annotate(
        "as predicted", (0.08, 0.08), xytext=(6, -4), textcoords="offset points", color=MUTED, va="top", fontsize=10
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.7 * min(every), 0.3)
    axes.set_ylim(0.1 * min(every), 1.5 * max(every))
    label_axes(
        axes, "predicted rise of the training loss", "measured rise", "What was predicted: right order, too small"
    )
    draw_legend(axes, "lower right")


def draw(directory: Path, overrides: Sequence[str] = (), shares: Sequence[float] = SHARES) -> Figure:
    """Draw what cuts do to the training loss, and what was predicted.

    Args:
        directory: The run store.
        overrides: Changes of the configuration.
        shares: Of the dense FLOPs.

    Returns:
        The figure.
    """
    data = digits("eigendamage", directory, 1, overrides)
    return draw_comparison(data, {variant: rises(data, variant, shares) for variant in LOOKS})


def draw_comparison(data: Digits, found: dict[str, list[Rise]]) -> Figure:
    """Draw what was measured.

    Args:
        data: Network and data.
        found: By variant of :data:`LOOKS`.

    Returns:
        The figure.
    """
    figure = canvas(
        "eigendamage: directions of least predicted damage cost far less than channels of least weight",
        f"Handwritten digits, {data.plan.config.model}, cut once and not fine-tuned; loss of all training images",
    )
    left, right = figure.subplots(1, 2)
    draw_rises(left, found)
    draw_predictions(right, found)
    return figure
