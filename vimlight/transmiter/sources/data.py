"""The Lightning data module of fine-tuning: labelled rows of a zero-shot cache, as features or as images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vimlight.data import Augmentation, few_shot
from vimlight.data.loading import Batch, BatchDataset
from vimlight.data.transforms import augmentation, normalise
from vimlight.errors import ConfigError, DataError
from vimlight.transmiter.cache import LogitCache
from vimlight.transmiter.cache.assembly import refuse_existing
from vimlight.transmiter.cache.data_module import CacheDataModule
from vimlight.transmiter.cache.images import FittedTable
from vimlight.transmiter.cache.loading import ViewSampler
from vimlight.transmiter.sources.images import image_input_of, image_table

__all__ = ["SourceDataModule"]


class SourceDataModule(CacheDataModule):
    """Labelled images of a zero-shot cache, and where the caches of the fine-tuned model go.

    Batches are dictionaries: `"input"`, features `(N, E)` or prepared images `(N, 3, H, W)`, whichever the module
    reads, `"target"` `(N,)` int64, and `"id"`, a list of N names. Of features with several views, each epoch draws one.

    Args:
        train: Directory of the zero-shot cache of training images, with labels.
        val: Directory of a labelled zero-shot cache to choose the epoch by; without one the last epoch is taken.
        test: Directory of a labelled zero-shot cache to test on.
        also: Directories of further zero-shot caches of the same model, labelled or not.
        out: Directory of the fine-tuned caches, one for each of the others, with `{split}` for the split's name;
            without it nothing is written.
        overwrite: Whether caches of that name are replaced.
        shots: Labelled images of each class to train on; all of them if left out.
        classes: The classes to tune on: the name of a partition that the cache knows, such as `base`, or class indices.
        augment: `"none"`, `"light"`, `"photo"` or `"strong"`: how training images are changed where images are read.
        batch_size: Images per batch and process.
        num_workers: Worker processes that read; 0 reads in the main process.
        seed: Decides the sample, the order of training images, and views and augmentation.

    Raises:
        ConfigError: If a number is out of range.
        UnknownNameError: If there is no such augmentation.
    """

    def __init__(
        self,
        train: str,
        *,
        val: str | None = None,
        test: str | None = None,
        also: list[str] | None = None,
        out: str | None = None,
        overwrite: bool = False,
        shots: int | None = None,
        classes: str | list[int] | None = None,
        augment: str = "none",
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            train, val=val, test=test, shots=shots, classes=classes, batch_size=batch_size, num_workers=num_workers,
            seed=seed,
        )  # fmt: skip
        self.also = list(also or [])
        self.out = out
        self.overwrite = overwrite
        self.augmentation = augmentation(augment)

    @property
    def reads(self) -> str:
        """What the module reads, `"features"` or `"images"`."""
        module = self.trainer.lightning_module if self.trainer is not None else None
        return str(getattr(module, "reads", "features"))

    @cached_property
    def outputs(self) -> list[tuple[LogitCache, Path]]:
        """The caches to be made anew, and where each goes.

        Raises:
            ConfigError: If two of them would get one name, or one is of another model.
            CacheError: If a name is taken.
        """
        if self.out is None:
            return []
        given = [*self.caches.values(), *map(LogitCache.open, self.also)]
        caches = list({cache.path.absolute(): cache for cache in given}.values())
        paths = [Path(self.out.replace("{split}", cache.split)).expanduser() for cache in caches]
        for cache, path in zip(caches, paths, strict=True):
            if cache.manifest.weights != caches[0].manifest.weights or cache.model != caches[0].model:
                raise ConfigError(
                    f"data.also: {str(cache.path)!r} is of the model {cache.model!r}, not {caches[0].model!r}"
                )
            if paths.count(path) > 1:
                raise ConfigError(
                    f"data.out: {paths.count(path)} caches would be {str(path)!r}; put {{split}} in it, and give "
                    "caches of different splits"
                )
            refuse_existing(path, self.overwrite, "--data.overwrite true")
        return list(zip(caches, paths, strict=True))

    @cached_property
    def rows(self) -> dict[str, Tensor]:
        """The row numbers used for training and for validation; no training image is lent to validation.

        Raises:
            DataError: If labels are missing or a class has too few images.
        """
        rows = self._labelled("train")
        if self.shots is not None:
            chosen = torch.tensor(self.class_indices)
            names = [self.class_names[index] for index in self.class_indices]
            places = torch.searchsorted(chosen, self._labels("train")[rows])
            rows = rows[few_shot(places, self.shots, self.seed, len(chosen), class_names=names).train]
        return {"train": rows, "val": self._labelled("val") if "val" in self.caches else torch.arange(0)}

    def labelled_features(self) -> tuple[Tensor, Tensor]:
        """Returns features `(n, E)` and labels `(n,)` of the training images, first views."""
        rows = self.rows["train"]
        return self.caches["train"].features(rows), self._labels("train")[rows]

    def setup(self, stage: str) -> None:
        """Opens everything, so that mistakes show before the first epoch and before anything is written.

        Raises:
            DataError: If a cache holds bare logits.
        """
        super().setup(stage)
        for cache in self.caches.values():
            if cache.width is None:
                raise DataError(f"cache {str(cache.path)!r} holds bare logits; fine-tuning needs features")
        if stage == "fit":
            for cache, _ in self.outputs:
                if self.reads == "images":
                    image_table(cache)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Loads the training images, in an order, and in views or changes, that seed and epoch decide."""
        rows = self.rows["train"]
        views = 1 if self.reads == "images" else self.caches["train"].num_views
        sampler = ViewSampler(len(rows), views, self.batch_size, self.seed, self.trainer)
        return self._loader(self._dataset("train", rows), sampler)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Loads all images of the test cache in order."""
        return self._dealt(self._dataset("test", torch.arange(len(self._given("test")))))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Prepares images, and changes those for training."""
        if "image" not in batch:
            return batch
        places, images = batch.pop("index"), batch.pop("image").float() / 255
        if self.augmentation is not None and self.trainer is not None and self.trainer.training:
            images = self.augmentation(images, self._draws()[places])
        return {**batch, "input": normalise(images, image_input_of(self.caches["train"]))}

    def _draws(self) -> Tensor:
        """Returns the epoch's random numbers of every training image."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.rand(len(self.rows["train"]), Augmentation.DRAWS, generator=generator)

    def _dataset(self, split: str, rows: Tensor) -> Any:
        cache = self._cache(split)
        if self.reads == "images":
            table = image_table(cache).subset(rows)
            return BatchDataset(FittedTable(table, image_input_of(cache)), image_input_of(cache))
        return FeatureRows(cache, rows)


class FeatureRows(Dataset[Batch]):
    """Serves whole batches of features; item `image + view * len(self)` is that view of that image.

    Args:
        cache: The cache.
        rows: Which of its images, `(N,)` int64.
    """

    def __init__(self, cache: LogitCache, rows: Tensor) -> None:
        self._cache = cache
        self._rows = rows
        labels = cache.labels
        self._labels = torch.full((len(cache),), -1) if labels is None else labels

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Batch:
        """Returns a batch of one image."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Returns the batch of these items."""
        items = torch.as_tensor(indices)
        rows, views = self._rows[items % len(self)], items // len(self)
        features = torch.empty(len(rows), cast(int, self._cache.width))
        for view in views.unique().tolist():
            features[views == view] = self._cache.features(rows[views == view], view=view)
        ids = [self._cache.ids[row] for row in rows.tolist()]
        return {"input": features, "target": self._labels[rows], "id": ids}
