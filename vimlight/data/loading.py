"""Batches from tables: what the worker processes do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from vimlight.data.dealing import TrainingRows
from vimlight.data.tables import Table
from vimlight.data.transforms import Preprocessing, frame_of, reframe
from vimlight.errors import DataError
from vimlight.tasks.targets import LABELS, TargetLayout
from vimlight.threads import ahead
from vimlight.workers import at_hand, outlast_signals

__all__ = ["Batch", "BatchDataset", "Keeper", "batch_loader", "chunk_loader", "raise_worker_error"]

Batch = dict[str, Any]
"""`"image"` `(N, 3, H, W)`, `"target"` as its layout has it, `"id"` list of N names, `"size"` `(N, 2)` int64: height
and width of the images before they became the input; `"spare"` where none of it counts, see `WholeBatches`."""


class Keeper(Protocol):
    """Keeps what a frozen model made of images, so that batches bring that and images need not be read again.

    Attributes:
        views: How many different augmentations of a training image there are; none for ever new ones.
    """

    views: int | None

    def keeps(self, split: str, augmented: bool) -> bool:
        """Tells whether the images of a split are kept.

        Args:
            split: `"train"`, `"val"` or `"test"`.
            augmented: Whether they are to be augmented.
        """

    def images(self, split: str, view: int | None, rows: Sequence[int], visited: int) -> Any:
        """Returns what stands for the images of some rows.

        Args:
            split: As in `keeps`.
            view: Number of the augmentation; none for images as they are.
            rows: The rows.
            visited: How many rows, from the first on, this pass over the split comes to see.
        """


class BatchDataset(Dataset[Batch]):
    """Serves whole batches of a table, as uint8.

    Images of one size are left to be resized on the device, with their targets; others are resized and cropped here,
    which the key `"fitted"` tells. `"index"` tells the rows, as a numpy array that stays on the host.

    Args:
        table: The images.
        preprocessing: The input that images of different sizes are made to fit.
        layout: The layout of the targets.
        kept: Whether something is kept in place of the images, which are then read only where targets lie in them.
    """

    def __init__(
        self,
        table: Table,
        preprocessing: Preprocessing,
        layout: TargetLayout = LABELS,
        *,
        kept: bool = False,
    ) -> None:
        self._table = table
        self._preprocessing = preprocessing
        self._layout = layout
        self._kept = kept

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._table)

    def __getitem__(self, index: int) -> Batch:
        """Returns a batch of one image."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Returns the batch of these rows.

        Raises:
            DataError: If an image or a target cannot be read, or they do not fit each other.
        """
        rows = np.asarray(indices)
        ids = [self._table.ids[index] for index in indices]
        if self._kept and not self._layout.spatial:
            targets = self._layout.collate(self._table.targets_of(indices))
            return {"target": targets, "id": ids, "index": rows, "kept": True}
        try:
            images, targets = self._table.examples(indices, self._layout)
        except DataError as error:
            if get_worker_info() is None:
                raise
            # Raised in a worker, the error would arrive with the worker's traceback for a text.
            return {"error": str(error)}
        sizes = torch.tensor([image.shape[-2:] for image in images])
        about = {"id": ids, "index": rows, "size": sizes, "kept": self._kept}
        if isinstance(images, torch.Tensor):
            return {"image": images, "target": self._layout.collate(targets), **about}
        fitted = [self._fit(*pair) for pair in zip(images, targets, strict=True)]
        target = self._layout.collate([target for _, target in fitted])
        return {"image": torch.stack([image for image, _ in fitted]), "target": target, **about, "fitted": True}

    def _fit(self, image: Tensor, target: Any) -> tuple[Tensor, Any]:
        height, width = image.shape[-2:]
        frame = frame_of((height, width), self._preprocessing)
        moved = self._layout.fit(self._layout.collate([target]), frame)
        return reframe(image, frame, self._preprocessing), moved[0]


def raise_worker_error(batch: Batch) -> None:
    """Raises what went wrong in a worker process.

    Raises:
        DataError: If the batch carries an error.
    """
    if "error" in batch:
        raise DataError(batch["error"])


class BatchLoader(DataLoader[Batch]):
    """A loader that reads the next batches while the last one is worked on, from the first that is asked for.

    Trainers iterate over loaders before they know epoch and place to go on at, and worker processes begin at once.

    Attributes:
        in_thread: Whether a thread reads where no processes do.
    """

    in_thread = False

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # that of torch is a class of its own
        """Yields the batches."""
        batches = super().__iter__()
        # Forked from a thread, processes would end with an error.
        yield from ahead(batches) if self.in_thread and self.num_workers == 0 else batches


class TrainingLoader(BatchLoader):
    """A loader of training images, whose epochs can be interrupted."""

    def state_dict(self) -> dict[str, Any]:
        """Returns nothing, and tells by being there that an interrupted epoch can be resumed; see `TrainingRows`."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes nothing: how many batches are done, the trainer knows."""


def batch_loader(
    dataset: BatchDataset,
    batch_size: int,
    num_workers: int,
    sampler: Sampler[int] | Sequence[int] | None,
    pin_memory: bool,
    in_thread: bool = False,
) -> DataLoader[Batch]:
    """Builds a loader.

    Args:
        dataset: Gives batches.
        batch_size: Images in each.
        num_workers: Processes that read them, of which at most one a core is started.
        sampler: Gives the rows in their order; that of the table if left out.
        pin_memory: Whether they are put where a GPU can fetch them.
        in_thread: Whether a thread reads ahead where no processes do: worth it unless all lies in memory.
    """
    # Without a generator of its own, each pass would draw from the global random state.
    generator = torch.Generator().manual_seed(0)
    kind = TrainingLoader if isinstance(sampler, TrainingRows) else BatchLoader
    loader = kind(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=at_hand(num_workers),
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        collate_fn=_spare if getattr(sampler, "spare", False) else _whole,
        generator=generator,
        worker_init_fn=outlast_signals,
    )
    loader.in_thread = in_thread
    return loader


def chunk_loader(dataset: BatchDataset, chunks: Iterable[Sequence[int]], num_workers: int) -> DataLoader[Batch]:
    """Builds a loader of batches of the given rows."""
    generator = torch.Generator().manual_seed(0)
    sampler: Any = chunks  # asked for one batch after the other; it need not know how many there are
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=at_hand(num_workers),
        collate_fn=_whole,
        generator=generator,
        worker_init_fn=outlast_signals,
    )


def _whole(batch: Any) -> Any:
    return batch


def _spare(batch: Any) -> Any:
    return {**batch, "spare": True}
