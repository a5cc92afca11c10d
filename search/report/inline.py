"""Figures that a notebook shows by themselves, without pyplot and its state."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class InlineFigure(Figure):
    """A figure of matplotlib's that knows how to be shown in a notebook."""

    def _repr_png_(self) -> bytes:
        """Return the figure as a PNG file."""
        image = io.BytesIO()
        self.savefig(image, format="png", dpi=self.dpi)
        return image.getvalue()
