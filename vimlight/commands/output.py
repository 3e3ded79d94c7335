"""What the tools print: tables that are drawn on a terminal and easy to cut elsewhere, and JSON."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from vimlight.errors import printable

__all__ = ["one_line", "print_json", "print_table", "print_text"]


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table: drawn on a terminal, one line a row with tabs in between elsewhere.

    Args:
        columns: Their headings.
        rows: Their cells.
    """
    # What is printed may come from somebody else: nothing in it may break a line or steer the terminal.
    lines = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
    if not sys.stdout.isatty():
        print("\n".join("\t".join(line) for line in [columns, *lines]))
        return
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(column, overflow="fold") for column in columns), box=SIMPLE)
    for line in lines:
        table.add_row(*map(Text, line))
    Console().print(table)


def print_text(text: str) -> None:
    """Prints a sentence or two: broken between words on a terminal, one line elsewhere.

    Args:
        text: The text.
    """
    width = shutil.get_terminal_size().columns
    print(textwrap.fill(text, width, break_long_words=False) if sys.stdout.isatty() else text)


def print_json(value: Any) -> None:
    """Prints a plain value as JSON."""
    print(json.dumps(value, indent=2))


def one_line(value: Any) -> str:
    """Writes a plain value, nested or not, on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_nested(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_nested(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _nested(value: Any) -> str:
    return f"({one_line(value)})" if isinstance(value, (dict, list, tuple)) else one_line(value)
