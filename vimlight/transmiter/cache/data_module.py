"""The Lightning data module over caches: logits to learn a fine-tuned model from, or a few labelled ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from vimlight.data import few_shot, set_apart
from vimlight.data.dealing import dealt
from vimlight.data.identity import told_apart
from vimlight.data.loading import Batch, batch_loader, raise_worker_error
from vimlight.data.properties import CertainProperties
from vimlight.errors import ConfigError, DataError, nearest, unknown_name
from vimlight.transmiter.cache import LogitCache, check_paired
from vimlight.transmiter.cache.loading import COMBINATIONS, CacheRows, ViewSampler
from vimlight.transmiter.cache.rows import difference

__all__ = ["CacheDataModule"]

VAL_FRACTION = 0.1


class CacheDataModule(CertainProperties, pl.LightningDataModule):
    """Batches of zero-shot logits, with a fine-tuned model's logits or with labels beside them.

    With `tuned` no label of the training images is read. Batches are dictionaries: `"logits"` `(N, M)` float32, `"id"`,
    a list of N names, and `"tuned"` `(N, C)` float32 or `"target"` `(N,)` int64. Of an image with several views, each
    epoch of training draws one; validation and test look at the first.

    Args:
        train: Directory of the cache of training images.
        tuned: Directory, or directories, of caches of fine-tuned models on the same images.
        combine: `"mean"` or `"confidence"`: how the logits of several fine-tuned models become one.
        val: Directory of a labelled cache to validate on; without one, labelled training images are lent.
        val_tuned: As `tuned`, of the images of `val`, which need no labels then: they tell how much of what fine-tuning
            changed is learnt.
        test: Directory of a labelled cache to test on, or of any cache to predict.
        shots: Labelled images of each class to train on; all of them if left out.
        val_shots: Labelled images of each class to validate on, if there is no `val`: by default as many as `shots`, or
            a tenth of all of them.
        classes: The classes whose images are used and among which predictions are scored: the name of a partition that
            the cache knows, such as `base`, or class indices; all of them if left out.
        batch_size: Images per batch and process.
        num_workers: Worker processes that read rows, at most one a core; 0 reads them in the main process.
        seed: Decides the sample, the order of training images and the views drawn.

    Raises:
        ConfigError: If a number is out of range, or options for labelled images meet `tuned`.
        UnknownNameError: If there is no such combination.
    """

    def __init__(
        self,
        train: str,
        *,
        tuned: str | list[str] | None = None,
        combine: str = "mean",
        val: str | None = None,
        val_tuned: str | list[str] | None = None,
        test: str | None = None,
        shots: int | None = None,
        val_shots: int | None = None,
        classes: str | list[int] | None = None,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _at_least(1, shots=shots, val_shots=val_shots, batch_size=batch_size)
        _at_least(0, num_workers=num_workers)
        if combine not in COMBINATIONS:
            raise unknown_name("combination of fine-tuned models", combine, COMBINATIONS)
        labelled = {"shots": shots, "val_shots": val_shots, "classes": classes}
        given = [name for name, value in labelled.items() if value is not None]
        if tuned is not None and given:
            raise ConfigError(f"{given[0]!r} needs labels, but none are read where 'tuned' is given; leave one out")
        if val_tuned is not None and val is None:
            raise ConfigError("'val_tuned' is of the images of 'val': set 'val' too, or leave it out")
        self.paths = {"train": train, "val": val, "test": test}
        self.tuned_paths = [tuned] if isinstance(tuned, str) else list(tuned or [])
        self.val_tuned_paths = [val_tuned] if isinstance(val_tuned, str) else list(val_tuned or [])
        self.combine = combine
        self.shots = shots
        self.val_shots = val_shots
        self.classes = classes
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed

    @cached_property
    def caches(self) -> dict[str, LogitCache]:
        """The caches by split, opened at the first use.

        Raises:
            CacheError: If one is missing.
            ConfigError: If another split has other classes.
        """
        found = {split: LogitCache.open(path) for split, path in self.paths.items() if path is not None}
        expected = (*found["train"].class_names, *found["train"].aux_names)
        for split, cache in found.items():
            fault = difference(expected, (*cache.class_names, *cache.aux_names))
            if fault is not None:
                raise ConfigError(f"data.{split}: the classes of {str(cache.path)!r} are not those of train: {fault}")
        return found

    @cached_property
    def tuned(self) -> list[LogitCache]:
        """The caches of the fine-tuned models.

        Raises:
            CacheError: If one is missing or does not show the training images.
        """
        return self._paired("train", self.tuned_paths)

    @cached_property
    def val_tuned(self) -> list[LogitCache]:
        """The caches of the fine-tuned models for the validation images.

        Raises:
            CacheError: If one is missing or does not show the validation images.
        """
        return self._paired("val", self.val_tuned_paths)

    @property
    def kind(self) -> str:
        """The kind of task."""
        return "classification"

    @property
    def class_names(self) -> list[str]:
        """The C task classes."""
        return list(self.caches["train"].class_names)

    @property
    def aux_names(self) -> list[str]:
        """The auxiliary classes."""
        return list(self.caches["train"].aux_names)

    @property
    def model_name(self) -> str:
        """The model whose logits the training cache holds."""
        return self.caches["train"].model

    @cached_property
    def class_indices(self) -> list[int]:
        """The classes whose images are used, in ascending order.

        Raises:
            ConfigError: If there is no such partition or class.
        """
        count, partitions = len(self.class_names), self.caches["train"].partitions
        if self.classes is None:
            return list(range(count))
        if isinstance(self.classes, str):
            if self.classes not in partitions:
                close = nearest(self.classes, partitions, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"it knows {sorted(partitions) or 'none'}"
                raise ConfigError(f"classes: the cache has no partition {self.classes!r}; {hint}")
            return sorted(partitions[self.classes])
        wrong = [index for index in self.classes if not 0 <= index < count]
        if wrong or len(self.classes) < 2:
            raise ConfigError(f"classes: expected at least two indices from 0 to {count - 1}, got {self.classes}")
        return sorted(set(self.classes))

    @cached_property
    def rows(self) -> dict[str, Tensor]:
        """The row numbers used for training and for validation.

        Raises:
            DataError: If labels are missing or a class has too few images.
        """
        if self.tuned_paths:
            train, lent = torch.arange(len(self.caches["train"])), torch.arange(0)
        else:
            train, lent = self._sample()
        if self.val_tuned_paths and self.caches["val"].labels is None:
            return {"train": train, "val": torch.arange(len(self.caches["val"]))}
        return {"train": train, "val": self._labelled("val") if "val" in self.caches else lent}

    @cached_property
    def learnt_from(self) -> str:
        """Says the training images and their caches, in a text that is another one for others."""
        hashes = "".join(cache.hash for cache in (self.caches["train"], *self.tuned))
        return told_apart(f"{self.model_name}'s cache", [f"{hashes} {row}" for row in self.rows["train"].tolist()])

    def split_ids(self) -> dict[str, list[str]]:
        """Returns the ids of the images for training and for validation."""
        return {split: [self._cache(split).ids[row] for row in rows.tolist()] for split, rows in self.rows.items()}

    def provenance(self) -> dict[str, Any]:
        """Returns model and hash of the caches that training looks at, by role."""
        caches = {"zero_shot": self.caches["train"]}
        names = [f"tuned_{number}" for number in range(len(self.tuned))] if len(self.tuned) > 1 else ["tuned"]
        caches.update(zip(names, self.tuned, strict=False))
        return {role: {"model": cache.model, "hash": cache.hash} for role, cache in caches.items()}

    def setup(self, stage: str) -> None:
        """Opens and pairs the caches and draws the sample, so that mistakes show before the first epoch."""
        _ = self.tuned, self.val_tuned, self.class_indices
        if stage == "test":
            self._labelled("test")
        elif stage == "predict":
            self._given("test")
        elif not len(self.rows["val"]) and stage == "validate":
            self._given("val")

    def train_dataloader(self) -> DataLoader[Batch]:
        """Loads the training images, in an order and in views that seed and epoch decide."""
        dataset = self._dataset("train", self.rows["train"])
        views = self.caches["train"].num_views
        sampler = ViewSampler(len(self.rows["train"]), views, self.batch_size, self.seed, self.trainer)
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Loads the validation images in order; nothing if there are none."""
        rows = self.rows["val"]
        return self._dealt(self._dataset("val", rows)) if len(rows) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Loads the test images in order."""
        return self._dealt(self._dataset("test", self._labelled("test")))

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Loads all images of the test cache in order."""
        cache = self._given("test")
        return self._dealt(CacheRows(cache, torch.arange(len(cache)), with_labels=False))

    def batches(self, split: str, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """Yields the batches of a split without a trainer, in order, first views.

        Args:
            split: `"train"` or `"val"`.
            device: Where the batches are left.

        Raises:
            UnknownNameError: If there is no such split.
        """
        if split not in self.rows:
            raise unknown_name("split", split, self.rows)
        for batch in self._loader(self._dataset(split, self.rows[split])):
            raise_worker_error(batch)
            yield {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Raises what went wrong in a worker process.

        Raises:
            DataError: If a row cannot be used; the text names it.
        """
        raise_worker_error(batch)
        return batch

    def _paired(self, split: str, paths: list[str]) -> list[LogitCache]:
        found = [LogitCache.open(path) for path in paths]
        for cache in found:
            check_paired(self.caches[split], cache, task_only=True)
        return found

    def _sample(self) -> tuple[Tensor, Tensor]:
        """Returns the training rows, and those lent to validation."""
        rows = self._labelled("train")
        places = torch.full((len(self.class_names),), -1)
        places[self.class_indices] = torch.arange(len(self.class_indices))
        targets = places[self._labels("train")[rows]]
        names = [self.class_names[index] for index in self.class_indices]
        lent = 0 if "val" in self.caches else self.val_shots or self.shots
        if lent is None:
            parts = set_apart(targets, VAL_FRACTION, self.seed)
            return rows[parts.train], rows[parts.val]
        drawn = few_shot(targets, self.shots or 1, self.seed, len(names), val_shots=lent, class_names=names)
        if self.shots is None:
            rest = torch.ones(len(rows), dtype=torch.bool)
            rest[drawn.val] = False
            return rows[rest], rows[drawn.val]
        return rows[drawn.train], rows[drawn.val]

    def _labelled(self, split: str) -> Tensor:
        """Returns the rows of a split's cache that belong to the classes used."""
        labels = self._labels(split)
        rows = torch.isin(labels, torch.tensor(self.class_indices)).nonzero().flatten()
        if not len(rows):
            raise DataError(f"cache {self.paths[split]!r} has no image of the classes {self.classes}")
        return rows

    def _labels(self, split: str) -> Tensor:
        cache = self._given(split)
        if cache.labels is None:
            raise DataError(f"cache {str(cache.path)!r} has no labels, and {split} needs them")
        return cache.labels

    def _given(self, split: str) -> LogitCache:
        if split not in self.caches:
            raise ConfigError(f"data.{split} is missing: set it to the directory of a cache")
        return self.caches[split]

    def _cache(self, split: str) -> LogitCache:
        """Returns the cache that a split's rows are of: validation images may be lent by the training cache."""
        return self.caches.get(split, self.caches["train"])

    def _dataset(self, split: str, rows: Tensor) -> CacheRows:
        tuned = {"train": self.tuned, "val": self.val_tuned}.get(split, [])
        with_labels = split != "train" or not tuned
        return CacheRows(self._cache(split), rows, tuned, COMBINATIONS[self.combine], with_labels=with_labels)

    def _dealt(self, dataset: Any) -> DataLoader[Batch]:
        """Loads this process's share of the images in order."""
        return self._loader(dataset, dealt(self.trainer, len(dataset), self.batch_size))

    def _loader(self, dataset: Any, sampler: DistributedSampler[int] | None = None) -> DataLoader[Batch]:
        pin_memory = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return batch_loader(dataset, self.batch_size, self.num_workers, sampler, pin_memory)


def _at_least(minimum: int, **numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and value < minimum:
            raise ConfigError(f"{name} must be at least {minimum}, got {value}")
