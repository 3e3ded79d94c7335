"""Many small runs side by side: one process a core, a line for each, and no word from Lightning about any of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import lightning.pytorch as pl
import timm
import torch

from vimlight.comparison.executors.local import local_executor
from vimlight.precision import multiplies_in_bfloat16
from vimlight.progress import Progress
from vimlight.quiet import quiet
from vimlight.workers import stop_on_signals

__all__ = ["Hardware", "ending", "in_parallel", "precision_here", "quiet_trainer", "quietly", "settle"]

T = TypeVar("T")


class Hardware(Protocol):
    """What a plan says about the machine, by Lightning's names; see `quiet_trainer`."""

    @property
    def accelerator(self) -> str:
        """The accelerator."""

    @property
    def precision(self) -> str:
        """The precision, or `"auto"`."""


def in_parallel(stage: str, jobs: Sequence[tuple[str, Callable[[], Any]]]) -> list[Any]:
    """Runs jobs: one process a core with one thread each, which beats many threads on small models.

    On a terminal there is a bar, elsewhere a line for each finished job; see `Progress`.

    Args:
        stage: What the jobs are called together.
        jobs: A name and a function without arguments each; both travel to another process.

    Returns:
        What the functions returned, in their order.
    """
    if not jobs:
        return []
    results: dict[int, Any] = {}
    with stop_on_signals(), local_executor(len(jobs)) as pool, Progress(stage, len(jobs), sys.stdout) as progress:
        waiting = {pool.submit(_settled, job): number for number, (_, job) in enumerate(jobs)}
        for done in as_completed(waiting):
            results[waiting[done]] = done.result()
            progress.advance(jobs[waiting[done]][0])
    return [results[number] for number in range(len(jobs))]


def _settled(job: Callable[[], Any]) -> Any:
    settle()
    return ending(job)


def settle() -> None:
    """Makes this process compute as all others do."""
    if not torch.cuda.is_available():
        # The order of sums is the same everywhere, and many small processes are faster than many threads.
        torch.set_num_threads(1)
        # On a processor and with few tokens, plain attention trains almost twice as fast as the fused kernel.
        timm.layers.set_fused_attn(False)


def ending(job: Callable[[], T]) -> T:
    """Does a job; told to end meanwhile, it ends this process, where a pool would take that for the job's result.

    Args:
        job: The job.
    """
    try:
        return job()
    except SystemExit as error:
        os._exit(error.code if isinstance(error.code, int) else 1)


def quiet_trainer(plan: Hardware, epochs: int, **options: Any) -> pl.Trainer:
    """Returns a trainer on one device that logs, shows and stores nothing.

    Args:
        plan: A plan; it names accelerator and precision.
        epochs: Number of epochs.
        **options: Further arguments of Lightning's Trainer.
    """
    return pl.Trainer(
        max_epochs=epochs,
        accelerator=plan.accelerator,
        precision=precision_here(plan.precision),  # type: ignore[arg-type]  # one of Lightning's names
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


def precision_here(precision: str) -> str:
    """Returns a precision by Lightning's name.

    Args:
        precision: Such a name, or `"auto"` for bfloat16 where the hardware multiplies in it and float32 elsewhere.
    """
    if precision != "auto":
        return precision
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return "bf16-mixed" if multiplies_in_bfloat16(device) else "32-true"


def quietly() -> AbstractContextManager[None]:
    """Silences what Lightning says about each of many small runs."""
    return quiet("lightning.pytorch", "lightning.fabric")
