"""The processes that build a cache together; one if nobody started more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from os import environ
from typing import TypeVar

from torch import distributed

__all__ = ["barrier", "from_first", "process_group", "rank", "world_size"]

T = TypeVar("T")
# One process may be at work for long while others wait; that one has died shows at once.
_PATIENCE = timedelta(days=1)


@contextmanager
def process_group() -> Iterator[None]:
    """Joins the processes that `torchrun` started, if it did, for as long as the block runs."""
    if int(environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    # They exchange names and wait for each other, which needs no GPU.
    distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Returns the number of this process."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Returns the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def barrier() -> None:
    """Waits for the other processes."""
    if world_size() > 1:
        distributed.barrier()


def from_first(value: T) -> T:
    """Returns the first process's value in all of them."""
    values = [value]
    if world_size() > 1:
        distributed.broadcast_object_list(values)
    return values[0]
