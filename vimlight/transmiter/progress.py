"""A progress bar on the terminal, on the standard error so that results can be piped."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

__all__ = ["track"]

T = TypeVar("T")


def track(items: Iterable[T], text: str, show: bool, total: int | None = None) -> Iterator[T]:
    """Yields the items and shows how many are done, if there is a terminal to show it on.

    Args:
        items: What is worked on.
        text: What the bar is called.
        show: Whether there may be a bar.
        total: Number of items where they cannot be counted.
    """
    if not (show and sys.stderr.isatty()):
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    count = total if total is not None else len(items) if isinstance(items, Sized) else None
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(items, total=count, description=text)
