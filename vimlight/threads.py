"""Reading files on several threads, or on one that is ahead of whoever needs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

import torch

__all__ = ["ahead", "on_threads"]

Item = TypeVar("Item")
Result = TypeVar("Result")
_END = object()


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


def ahead(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """Yields items that a thread fetched beforehand.

    Args:
        items: What to fetch; an error of theirs is raised in the place of the item.
        depth: How many are fetched before they are asked for.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = deque(pool.submit(next, iterator, _END) for _ in range(depth))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, iterator, _END))
            yield cast(Item, item)
