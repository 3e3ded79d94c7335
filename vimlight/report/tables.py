"""What tables of results are made of: a value for each seed, costs in a few characters, and nothing that is cut off."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from vimlight.files.text import markdown_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "MISSING", "Statistic", "count_text", "markdown_table", "multiple_text", "print_whole", "whole_width",
]  # fmt: skip

MISSING = "—"


@dataclasses.dataclass(frozen=True)
class Statistic:
    """One method on one task: a value for each seed.

    Attributes:
        seeds: The values by seed.
    """

    seeds: Mapping[int, float]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.seeds.values())

    @property
    def std(self) -> float:
        """The sample standard deviation over the seeds (n - 1 below the fraction), NaN for a single seed."""
        return statistics.stdev(self.seeds.values()) if len(self.seeds) > 1 else math.nan


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[tuple[str, bool]]]) -> str:
    """Returns a table in Markdown; the first column to the left, all others to the right.

    Args:
        columns: Titles of the columns.
        rows: Texts of the cells, and whether they are bold.
    """
    rule = ["---", *["---:"] * (len(columns) - 1)]
    cells = [[f"**{markdown_text(text)}**" if bold else markdown_text(text) for text, bold in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (map(markdown_text, columns), rule, *cells))


def print_whole(table: Table, console: Console | None = None) -> None:
    """Prints a table with nothing cut off, however narrow the terminal is.

    Args:
        table: The table.
        console: Where to print; the terminal if left out.
    """
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    table.width = whole_width(table, console)
    if console.is_terminal and isinstance(table.title, Text):
        # The title is no cell: it may be broken between words.
        table.title.no_wrap, table.title.overflow = False, "fold"
    console.print(table, crop=False, soft_wrap=True)


def whole_width(table: Table, console: Console) -> int:
    """Returns how many columns of a terminal a table takes where nothing is cut off."""
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum


def count_text(number: int) -> str:
    """Returns a number of parameters in a few characters."""
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1e3:.1f} k" if number < 1e6 else f"{number / 1e6:.1f} M"


def multiple_text(cost: float) -> str:
    """Returns a cost by the bare backbone's in a few characters."""
    return f"{cost:.2f} x"
