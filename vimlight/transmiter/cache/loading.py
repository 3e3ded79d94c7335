"""Reading caches for training: whole batches of rows, each image in a view that the epoch draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from vimlight.data.dealing import TrainingRows
from vimlight.data.loading import Batch
from vimlight.errors import CacheError, DataError
from vimlight.transmiter.cache import LogitCache
from vimlight.transmiter.cache.rows import LogitRows, checked_z_score

__all__ = ["COMBINATIONS", "CacheRows", "ViewSampler", "confidence_weighted"]


def confidence_weighted(tuned: Tensor) -> Tensor:
    """Averages the logits of several models, each image's weights being the softmax of the models' confidences.

    Args:
        tuned: Task logits of K models, `(K, N, C)`.

    Returns:
        `(N, C)`.
    """
    confidences = tuned.softmax(dim=-1).amax(dim=-1, keepdim=True)
    return (confidences.softmax(dim=0) * tuned).sum(dim=0)


COMBINATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": partial(torch.mean, dim=0),
    "confidence": confidence_weighted,
}


class CacheRows(Dataset[Batch]):
    """Serves whole batches of a cache; item `image + view * len(self)` is that view of that image.

    Args:
        cache: The cache of zero-shot logits.
        rows: Which of its images, `(N,)` int64.
        tuned: Caches of fine-tuned models on the same images, whose task logits go along.
        combine: From their task logits `(K, n, C)` to `(n, C)`.
        with_labels: Whether the labels go along.
    """

    def __init__(
        self,
        cache: LogitCache,
        rows: Tensor,
        tuned: Sequence[LogitCache] = (),
        combine: Callable[[Tensor], Tensor] | None = None,
        *,
        with_labels: bool,
    ) -> None:
        self._cache = cache
        self._rows = rows
        self._tuned = tuned
        self._combine = combine
        self._labels = cache.labels if with_labels else None

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Batch:
        """Returns a batch of one image."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Returns the batch of these items.

        Raises:
            DataError: If a row is not finite or all its logits are equal.
            CacheError: If a cache was altered after it was written.
        """
        items = torch.as_tensor(indices)
        rows, views = self._rows[items % len(self)], items // len(self)
        try:
            logits = self._checked(_read(self._cache, rows, views), rows, views)
        except (CacheError, DataError) as error:
            if get_worker_info() is None:
                raise
            # Raised in a worker, the error would arrive with the worker's traceback for a text.
            return {"error": str(error)}
        batch: Batch = {"logits": logits, "id": [self._cache.ids[row] for row in rows.tolist()]}
        if self._tuned and self._combine is not None:
            columns = slice(0, self._cache.num_classes)
            batch["tuned"] = self._combine(torch.stack([_read(c, rows, views, columns) for c in self._tuned]))
        if self._labels is not None:
            batch["target"] = self._labels[rows]
        return batch

    def _checked(self, logits: Tensor, rows: Tensor, views: Tensor) -> Tensor:
        name = LogitRows(self._cache, self._cache.split).name
        checked_z_score(logits, lambda place: name(int(rows[place]) * self._cache.num_views + int(views[place])))
        return logits


class ViewSampler(TrainingRows):
    """Every image once an epoch, in random order and in a random view.

    Args:
        count: Number of images N.
        views: Number of views V of each.
        batch_size: Images in a batch.
        seed: Decides order and views, together with the epoch.
        trainer: See `TrainingRows`.
    """

    def __init__(self, count: int, views: int, batch_size: int, seed: int, trainer: pl.Trainer | None) -> None:
        super().__init__(count, batch_size, seed, trainer)
        self._count = count
        self._views = views

    def drawn(self) -> Iterator[int]:
        """Draws the epoch's views, the same ones in every process."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        views = torch.randint(self._views, (self._count,), generator=generator).tolist()
        return (image + self._count * views[image] for image in super().drawn())


def _read(cache: LogitCache, rows: Tensor, views: Tensor, columns: slice | None = None) -> Tensor:
    """Returns logits `(n, M)`, or the columns asked for, of each row in its view."""
    found = [(views == view).nonzero().flatten() for view in range(cache.num_views)]
    parts = [cache.logits(rows[places], view=view, columns=columns) for view, places in enumerate(found) if len(places)]
    return torch.cat(parts)[torch.cat(found).argsort()]
