"""How images are dealt out to several processes, and where an interrupted epoch goes on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import Any, cast

import lightning.pytorch as pl
from torch.utils.data.distributed import DistributedSampler

__all__ = ["RowsLeft", "TrainingRows", "WholeBatches", "dealt"]


class TrainingRows(DistributedSampler[int]):
    """Every image once an epoch, in an order that seed and epoch decide; an interrupted epoch goes on where it stopped.

    Args:
        count: Number of images.
        batch_size: Images in a batch.
        seed: Decides the order, together with the epoch.
        trainer: The trainer, which knows the processes and how many batches of the epoch are done.
    """

    def __init__(self, count: int, batch_size: int, seed: int, trainer: pl.Trainer | None) -> None:
        world, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        super().__init__(cast(Any, range(count)), world, rank, shuffle=True, seed=seed)
        self._batch_size, self._trainer = batch_size, trainer

    def __iter__(self) -> Iterator[int]:
        """Yields the rows that are left of the epoch."""
        done = 0
        if self._trainer is not None and self._trainer.training:
            done = self._trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return islice(self.drawn(), done * self._batch_size, None)

    def drawn(self) -> Iterator[int]:
        """Yields all rows of the epoch."""
        return super().__iter__()


class WholeBatches(DistributedSampler[int]):
    """Deals the batches that one process would see out to several: each image once, beside the same others.

    So what is computed of a batch as a whole, such as a contrastive loss, does not depend on the number of processes.
    A process that no batch is left for gets a spare one of the first image, which is not to be counted: the trainer
    wants a step of every process, and some of what processes do together happens in the first step.

    Args:
        count: Number of images.
        batch_size: Images in a batch.
        world: Number of processes.
        rank: Which of them this one is.

    Attributes:
        spare: Whether this process's only batch is a spare one.
    """

    def __init__(self, count: int, batch_size: int, world: int, rank: int) -> None:
        super().__init__(cast(Any, range(count)), world, rank, shuffle=False)
        starts = range(rank * batch_size, count, world * batch_size)
        self._rows = [row for start in starts for row in range(start, min(start + batch_size, count))]
        self.spare = count > 0 and not self._rows
        if self.spare:
            self._rows = [0]
        self.num_samples = len(self._rows)

    def __iter__(self) -> Iterator[int]:
        """Yields the rows of this process's batches."""
        return iter(self._rows)


class RowsLeft(WholeBatches):
    """What is left of the batches once some rows are done; at least the last row, since the trainer wants a step.

    Args:
        count: Number of images.
        batch_size: Images in a batch.
        trainer: The trainer, if there is one, which knows the processes.
        done: Returns the rows that are done, in whole batches; asked when the first row is wanted.
    """

    def __init__(
        self, count: int, batch_size: int, trainer: pl.Trainer | None, done: Callable[[], Collection[int]]
    ) -> None:
        world, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        super().__init__(count, batch_size, world, rank)
        self._done = done

    def __iter__(self) -> Iterator[int]:
        """Yields the rows of this process's batches that are not done."""
        done = self._done()
        return iter([row for row in self._rows if row not in done] or self._rows[-1:])


def dealt(trainer: pl.Trainer | None, count: int, batch_size: int) -> WholeBatches | None:
    """Returns the sampler of a process for validation, test or prediction; none where there is only one process.

    Args:
        trainer: The trainer, if there is one.
        count: Number of images.
        batch_size: Images in a batch.
    """
    if trainer is None or trainer.world_size == 1:
        return None
    return WholeBatches(count, batch_size, trainer.world_size, trainer.global_rank)
