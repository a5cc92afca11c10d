"""Lists of things with words about each: a table where there is room, else one entry below the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GAP = 2
"""Blanks between two columns."""

READABLE = 24
"""Characters that a column of sentences needs to be read with ease."""


@dataclass(frozen=True)
class ListedTable:
    """A table of words that folds them at blanks alone; where that leaves no room, entries stand below each other.

    Attributes:
        title: Heading; empty for none.
        headings: Headings of the columns; the first column names the entries and is never folded.
        rows: Texts of each entry, as many as there are headings.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str | Text]]

    def widths(self, room: int) -> list[int] | None:
        """Share out a line among the columns.

        Args:
            room: Characters in a line.

        Returns:
            Characters of each column; ``None`` where words would have to be cut, or sentences stand in a narrow column.
        """
        columns = list(zip(self.headings, *self.rows, strict=True))
        natural = [max(_measure_longest_line(cell) for cell in column) for column in columns]
        least = [
            natural[0]
            if place == 0
            else min(natural[place], max(READABLE, *(_measure_longest_word(cell) for cell in column)))
            if natural[place] > room // 2
            else max(_measure_longest_word(cell) for cell in column)
            for place, column in enumerate(columns)
        ]
        widths = list(natural)
        while sum(widths) + GAP * (len(widths) - 1) > room:
            place = max(range(len(widths)), key=lambda each: (widths[each] > least[each], widths[each]))
            if widths[place] <= least[place]:
                return None
            widths[place] -= 1
        return widths

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Lay the list out for the width that there is.

        Args:
            console: Where it is printed.
            options: Holds the width.

        Yields:
            A table, or the entries.
        """
        if self.title:
            yield Text(self.title, style="bold")
        widths = self.widths(options.max_width)
        if widths is not None:
            yield self._table(widths)
            return
        for name, *others in self.rows:
            yield Text.assemble(name, style="bold")
            for heading, cell in zip(self.headings[1:], others, strict=True):
                if len(cell):
                    yield Padding(Text.assemble((f"{heading}: ", "dim"), cell), (0, 0, 0, 2))

    def _table(self, widths: Sequence[int]) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0))
        for place, (heading, width) in enumerate(zip(self.headings, widths, strict=True)):
            last = place == len(widths) - 1
            table.add_column(Text(heading), width=width, no_wrap=place == 0, overflow="fold", ratio=1 if last else None)
        for row in self.rows:
            table.add_row(*(Text.assemble(cell) for cell in row))
        return table


def _lines(cell: str | Text) -> list[str]:
    return str(cell).splitlines() or [""]


def _measure_longest_line(cell: str | Text) -> int:
    return max(cell_len(line) for line in _lines(cell))


def _measure_longest_word(cell: str | Text) -> int:
    return max(cell_len(word) for line in _lines(cell) for word in line.split() or [""])
