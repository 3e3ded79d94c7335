"""Batches from tables: what the worker processes do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from vimlight.data.tables import Table
from vimlight.data.transforms import Preprocessing, fit
from vimlight.errors import DataError

__all__ = ["Batch", "BatchDataset", "batch_loader", "raise_worker_error"]

Batch = dict[str, Any]
"""`"image"` `(N, 3, H, W)`, `"target"` `(N,)` or `(N, C)` int64, `"id"` list of N names."""


class BatchDataset(Dataset[Batch]):
    """Serves whole batches of a table, as uint8.

    Images of one size are left to be resized on the device; others are resized and cropped here. `"index"` tells the
    rows, as a numpy array that stays on the host.

    Args:
        table: The images.
        preprocessing: The input that images of different sizes are made to fit.
    """

    def __init__(self, table: Table, preprocessing: Preprocessing) -> None:
        self._table = table
        self._preprocessing = preprocessing

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._table)

    def __getitem__(self, index: int) -> Batch:
        """Returns a batch of one image."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Returns the batch of these rows.

        Raises:
            DataError: If an image cannot be read.
        """
        try:
            images = self._table.images(indices)
        except DataError as error:
            if get_worker_info() is None:
                raise
            # Raised in a worker, the error would arrive with the worker's traceback for a text.
            return {"error": str(error)}
        if not isinstance(images, torch.Tensor):
            images = torch.stack([fit(image, self._preprocessing) for image in images])
        rows = np.asarray(indices)
        ids = [self._table.ids[index] for index in indices]
        return {"image": images, "target": self._table.targets[rows], "id": ids, "index": rows}


def raise_worker_error(batch: Batch) -> None:
    """Raises what went wrong in a worker process.

    Raises:
        DataError: If the batch carries an error.
    """
    if "error" in batch:
        raise DataError(batch["error"])


def batch_loader(
    dataset: BatchDataset, batch_size: int, num_workers: int, sampler: Sampler[int] | None, pin_memory: bool
) -> DataLoader[Batch]:
    """Builds the loader; without a sampler the order is that of the table."""
    # Without a generator of its own, each pass would draw from the global random state.
    generator = torch.Generator().manual_seed(0)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        collate_fn=_whole,
        generator=generator,
    )


def _whole(batch: Any) -> Any:
    return batch
