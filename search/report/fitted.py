"""Tables that fit the terminal: where room is short, whole columns go, never digits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

GAP = 2
"""Blanks between two columns."""
WORDS = 24
"""Characters of a column of words that are folded only where nothing else can give way."""
LONGEST = 32
"""Characters of a single word, such as the name of a layer, for which other columns give way."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        heading: Its heading.
        cells: Its texts, one per row, perhaps of several lines.
        rank: Columns with the highest rank are left out first; those of rank 0 always stay.
        words: Whether it holds words (they stand on the left, and may be folded as a last resort) and no numbers.
    """

    heading: str
    cells: Sequence[str | Text]
    rank: int = 0
    words: bool = False

    @property
    def width(self) -> int:
        """Room that it needs, in characters; long words can be folded."""
        lines = [line for text in (self.heading, *self.cells) for line in str(text).splitlines() or [""]]
        longest = max(map(cell_len, lines))
        if not self.words:
            return longest
        word = max(cell_len(word) for line in lines for word in line.split() or [""])
        return min(longest, max(WORDS, word if word <= LONGEST else 0))

    @property
    def least(self) -> int:
        """Room below which a number, or a word of usual length, would be cut: folding words is the last resort."""
        if not self.words:
            return self.width
        words = [cell_len(word) for text in (self.heading, *self.cells) for word in str(text).split()]
        return min(self.width, max(words, default=0))


@dataclass(frozen=True)
class FittedTable:
    """A table that leaves out columns where it would not fit otherwise, and says which.

    Attributes:
        title: Heading of the table; empty for none.
        columns: The columns, from left to right, with as many cells each.
        caption: Text below the table; empty for none.
        strong: Numbers of the rows in bold, from 0.
        faint: Numbers of the rows that stand back.
    """

    title: str
    columns: Sequence[Column]
    caption: str = ""
    strong: frozenset[int] = frozenset()
    faint: frozenset[int] = frozenset()

    def choose_columns(self, width: int) -> list[Column]:
        """Choose the columns that fit.

        Args:
            width: Characters in a line.

        Returns:
            The columns, from left to right.
        """
        kept = list(self.columns)
        while sum(column.width + GAP for column in kept) - GAP > width:
            worst = max(reversed(kept), key=lambda column: column.rank)  # of equals the last one
            if worst.rank == 0:
                break
            kept.remove(worst)
        return kept

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Lay the table out for the width that there is.

        Args:
            console: Where it is printed.
            options: Holds the width.

        Yields:
            The table in rich's words.
        """
        kept = self.choose_columns(options.max_width)
        left_out = [column.heading for column in self.columns if column not in kept]
        notes = [self.caption, f"left out for want of room: {', '.join(left_out)}" if left_out else ""]
        caption = "\n".join(note for note in notes if note)
        table = Table(
            title=Text(self.title, style="bold") if self.title else None,
            caption=Text(caption) if caption else None,
            title_justify="left",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            show_edge=False,
            padding=(0, 1, 0, 0),
        )
        for column in kept:
            justify: Literal["left", "right"] = "left" if column.words else "right"
            table.add_column(
                Text(column.heading), justify=justify, no_wrap=not column.words, min_width=column.least, overflow="fold"
            )
        for number, cells in enumerate(zip(*(column.cells for column in kept), strict=True)):
            style = "bold" if number in self.strong else "dim" if number in self.faint else None
            table.add_row(*(Text.assemble(cell) for cell in cells), style=style)
        yield table
