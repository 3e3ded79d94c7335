"""Dask: workers on any number of machines, which one scheduler hands the jobs to, again if a worker is lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, cast

from vimlight.errors import ConfigError

__all__ = ["dask_executor"]


@contextmanager
def dask_executor(address: str) -> Iterator[Executor]:
    """Connects to a scheduler; jobs that still wait or run when the block is left are cancelled.

    Args:
        address: The scheduler's, `tcp://HOST:PORT`.

    Raises:
        ConfigError: If `distributed` is not installed, or nothing answers there.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError("--executor dask needs dask.distributed: pip install 'vimlight[dask]'") from error
    try:
        client: Any = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise ConfigError(f"no scheduler of Dask answers at {address}; start one with 'dask scheduler'") from error
    with client:
        executor = client.get_executor(pure=False)
        try:
            yield cast(Executor, executor)
        finally:
            executor.shutdown(wait=False)
