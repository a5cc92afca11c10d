"""Pictures and pages of a front, for those who make one; what draws is imported when something is drawn."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from search.fronts.front import Front, Member


class ReportViews:
    """Draws fronts with this room: see :class:`search.fronts.front.FrontViews`."""

    def figure(self, front: Front) -> Figure:
        """Draw quality against cost.

        Args:
            front: The front.

        Returns:
            A matplotlib figure.
        """
        from search.report.plots import front_figure

        return front_figure(front)

    def save(self, front: Front, path: str | os.PathLike[str]) -> None:
        """Write the picture into a file.

        Args:
            front: The front.
            path: Ends in ``.png``, ``.svg``, ``.pdf`` or, interactive, ``.html``.
        """
        from search.report.plots import save_front

        save_front(front, path)

    def front_html(self, front: Front) -> str:
        """Show a front in a notebook: its picture and its table.

        Args:
            front: The front.

        Returns:
            HTML without scripts.
        """
        from search.report.notebook import front_html

        return front_html(front)

    def member_html(self, member: Member) -> str:
        """Show one network in a notebook: its numbers beside the dense network's, and its parameters.

        Args:
            member: The network.

        Returns:
            HTML.
        """
        from search.report.notebook import member_html

        return member_html(member)
