"""Reading files on several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["on_threads"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Applies a function to each item on several threads; worth it where it mostly reads and decodes files.

    Args:
        function: May use torch.
        items: What it is called with.

    Returns:
        What it returned, in the order of the items.
    """
    # In a forked process the first thread that computes makes torch's own pool anew; two first ones would race.
    torch.set_num_threads(torch.get_num_threads())
    with ThreadPoolExecutor() as pool:
        return list(pool.map(function, items))
