"""Who runs the jobs: engines that exist, each as an executor of `concurrent.futures`.

All of them need is to import this package, and a directory that they share.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

from vimlight.errors import ConfigError, unknown_name

__all__ = ["EXECUTORS", "open_executor"]

EXECUTORS = ("local", "dask", "slurm")


@contextmanager
def open_executor(name: str, jobs: int, *, address: str | None, folder: Path) -> Iterator[Executor]:
    """Opens an executor; whatever leaves the block, its jobs are ended.

    Args:
        name: `"local"`, `"dask"` or `"slurm"`.
        jobs: How many jobs there are.
        address: Of Dask's scheduler, `tcp://HOST:PORT`.
        folder: Where Slurm's files go.

    Raises:
        UnknownNameError: If there is no such executor.
        ConfigError: If what it needs is not installed, or an address is missing or superfluous.
    """
    if name not in EXECUTORS:
        raise unknown_name("executor", name, EXECUTORS)
    if (address is not None) != (name == "dask"):
        raise ConfigError(
            "--executor dask needs --address tcp://HOST:PORT of its scheduler"
            if name == "dask"
            else f"--address is Dask's; leave it out, or use --executor dask instead of {name}"
        )
    if name == "dask":
        from vimlight.comparison.executors.dask import dask_executor

        assert address is not None
        opened = dask_executor(address)
    elif name == "slurm":
        from vimlight.comparison.executors.slurm import slurm_executor

        opened = slurm_executor(folder)
    else:
        from vimlight.comparison.executors.local import local_executor

        opened = local_executor(jobs)
    with opened as executor:
        yield executor
