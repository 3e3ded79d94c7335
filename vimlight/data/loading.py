"""Batches from tables: what the worker processes do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from vimlight.data.tables import Table
from vimlight.data.transforms import Preprocessing, frame_of, reframe
from vimlight.errors import DataError
from vimlight.tasks.targets import LABELS, TargetLayout

__all__ = ["Batch", "BatchDataset", "batch_loader", "raise_worker_error"]

Batch = dict[str, Any]
"""`"image"` `(N, 3, H, W)`, `"target"` as its layout has it, `"id"` list of N names, `"size"` `(N, 2)` int64: height
and width of the images before they became the input."""


class BatchDataset(Dataset[Batch]):
    """Serves whole batches of a table, as uint8.

    Images of one size are left to be resized on the device, with their targets; others are resized and cropped here,
    which the key `"fitted"` tells. `"index"` tells the rows, as a numpy array that stays on the host.

    Args:
        table: The images.
        preprocessing: The input that images of different sizes are made to fit.
        layout: The layout of the targets.
        squash: Whether images are resized without regard to their proportions; see `frame_of`.
    """

    def __init__(
        self, table: Table, preprocessing: Preprocessing, layout: TargetLayout = LABELS, *, squash: bool = False
    ) -> None:
        self._table = table
        self._preprocessing = preprocessing
        self._layout = layout
        self._squash = squash

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
            images, targets = self._table.images(indices), self._table.targets_of(indices)
        except DataError as error:
            if get_worker_info() is None:
                raise
            # Raised in a worker, the error would arrive with the worker's traceback for a text.
            return {"error": str(error)}
        rows = np.asarray(indices)
        ids = [self._table.ids[index] for index in indices]
        sizes = torch.tensor([image.shape[-2:] for image in images])
        about = {"id": ids, "index": rows, "size": sizes}
        if isinstance(images, torch.Tensor):
            return {"image": images, "target": self._layout.collate(targets), **about}
        fitted = [self._fit(*pair) for pair in zip(images, targets, strict=True)]
        target = self._layout.collate([target for _, target in fitted])
        return {"image": torch.stack([image for image, _ in fitted]), "target": target, **about, "fitted": True}

    def _fit(self, image: Tensor, target: Any) -> tuple[Tensor, Any]:
        height, width = image.shape[-2:]
        frame = frame_of((height, width), self._preprocessing, squash=self._squash)
        moved = self._layout.fit(self._layout.collate([target]), frame)
        return reframe(image, frame, self._preprocessing.interpolation), moved[0]


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
