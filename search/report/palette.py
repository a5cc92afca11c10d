"""One colour and one shape per method: either alone tells methods apart, also to the colour-blind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from methods import METHODS

# Okabe and Ito (2008); wine stands for their yellow, which is lost on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255")
# Matplotlib's marker beside plotly's symbol. One more than there are colours: 72 pairs before one repeats.
_SHAPES = (
    ("o", "circle"),
    ("s", "square"),
    ("^", "triangle-up"),
    ("D", "diamond"),
    ("v", "triangle-down"),
    ("P", "cross"),
    ("X", "x"),
    ("p", "pentagon"),
    ("h", "hexagon"),
)

INK = "#22272E"
"""Titles and labels."""
MUTED = "#6B7280"
"""Texts of second rank."""
RULE = "#E5E7EB"
"""Grid lines."""
DENSE = "#22272E"
"""The dense network."""


@dataclass(frozen=True)
class Style:
    """How a method looks.

    Attributes:
        colour: Colour as ``#RRGGBB``.
        marker: Marker in matplotlib's words.
        symbol: The same shape in plotly's words.
    """

    colour: str
    marker: str
    symbol: str


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """Give each method its look; a method of ours looks the same in the pictures of all studies.

    Args:
        methods: Names; order and repetitions do not matter.

    Returns:
        A style per name, in alphabetical order.
    """
    names = sorted(set(methods))
    ours = sorted(METHODS)
    places = {name: place for place, name in enumerate([*ours, *(name for name in names if name not in METHODS)])}
    return {name: _style(places[name]) for name in names}


def _style(place: int) -> Style:
    return Style(_COLOURS[place % len(_COLOURS)], *_SHAPES[place % len(_SHAPES)])
