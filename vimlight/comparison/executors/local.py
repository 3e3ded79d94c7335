"""Processes of this machine: one a GPU, or one a core with one thread each, which small models like best."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from vimlight.workers import end_with_parent, ending_workers, leave_signals_to_parent, worker_context

__all__ = ["local_executor"]


@contextmanager
def local_executor(jobs: int, workers: int | None = None) -> Iterator[Executor]:
    """Starts processes; they end with the block.

    Args:
        jobs: How many jobs there are: more processes would be idle.
        workers: How many processes at most; one a GPU, or one a core, if left out.
    """
    context: Any = worker_context()
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    workers = min(workers or devices or cores(), max(1, jobs))
    numbers = context.Queue()
    for number in range(workers if devices else 0):
        numbers.put(number % devices)
    arguments = (numbers if devices > 1 else None,)
    with ending_workers():
        pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=arguments)
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(numbers: Any) -> None:
    end_with_parent()
    leave_signals_to_parent()
    if numbers is not None:
        # Before anything takes hold of a device.
        os.environ["CUDA_VISIBLE_DEVICES"] = _device(numbers.get())


def _device(number: int) -> str:
    """Returns how a device is called, where this process was given some of them by their own names."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[number] if given else str(number)
