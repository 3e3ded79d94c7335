"""Slurm, by `submitit`: each job is one of the cluster's, and its log lies in the output folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from vimlight.errors import ConfigError

__all__ = ["SlurmExecutor", "slurm_executor"]

T = TypeVar("T")
_PAUSE = 1.0
MINUTES = 24 * 60


class SlurmExecutor(Executor):
    """Hands jobs to a cluster and waits for them in a thread.

    Partition, account, time limit and the like are Slurm's own to take, from the variables that `sbatch` reads, such as
    `SBATCH_PARTITION`.

    Args:
        folder: Where scripts, arguments and logs go.
        cluster: As `submitit.AutoExecutor` takes it; the one of this machine if left out.
    """

    def __init__(self, folder: Path, cluster: str | None = None) -> None:
        try:
            import submitit
        except ImportError as error:
            raise ConfigError("--executor slurm needs submitit: pip install 'vimlight[slurm]'") from error
        self._engine: Any = submitit.AutoExecutor(folder=folder, cluster=cluster)
        if cluster is None and self._engine.cluster != "slurm":
            raise ConfigError("--executor slurm: there is no sbatch here; start it where jobs can be submitted")
        self._engine.update_parameters(timeout_min=MINUTES, cpus_per_task=1)
        self._jobs: dict[Future[Any], Any] = {}
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Submits a job."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        self._jobs[future] = self._engine.submit(fn, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stops to watch; jobs that are not done are cancelled if asked for."""
        for job in list(self._jobs.values()) if cancel_futures else ():
            job.cancel()
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(_PAUSE):
            for future, job in list(self._jobs.items()):
                if job.done():
                    del self._jobs[future]
                    _settle(future, job)


def _settle(future: Future[Any], job: Any) -> None:
    error = job.exception()
    if error is None:
        future.set_result(job.result())
    else:
        future.set_exception(error)


@contextmanager
def slurm_executor(folder: Path, cluster: str | None = None) -> Iterator[Executor]:
    """Opens the cluster; jobs that are not done when an error leaves the block are cancelled.

    Args:
        folder: Where scripts, arguments and logs go.
        cluster: See `SlurmExecutor`.

    Raises:
        ConfigError: If `submitit` is not installed, or there is no Slurm here.
    """
    executor = SlurmExecutor(folder, cluster)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)
