"""What the Lightning data modules share: splits, batches, and images on their way to the backbone.

Images travel as uint8; the rest happens in batches on the device: resizing where all images have one size,
augmentation of training images, normalisation for the backbone.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from vimlight.data.bounds import at_least
from vimlight.data.dealing import RowsLeft, TrainingRows, dealt
from vimlight.data.identity import told_apart
from vimlight.data.loading import Batch, BatchDataset, Keeper, batch_loader, chunk_loader, raise_worker_error
from vimlight.data.pictures import WHITE, check_colour
from vimlight.data.properties import CertainProperties
from vimlight.data.sampling import random_subset, set_apart, shuffled
from vimlight.data.source import Source
from vimlight.data.sources import load_source
from vimlight.data.tables import Table
from vimlight.data.transforms import Augmentation, Preprocessing, augmentation, frame_of, normalise, reframe
from vimlight.errors import ConfigError, unknown_name
from vimlight.tasks import TASKS
from vimlight.tasks.targets import TargetLayout

__all__ = ["ImageDataModule"]

TEST_FRACTION = 0.2
# Not the module's seed: runs with different seeds are tested on the same images.
TEST_SEED = 0
RESIZES = {"crop": "center", "squash": "squash", "pad": "border"}


class ImageDataModule(CertainProperties, pl.LightningDataModule, ABC):
    """What both data modules share; a subclass decides which images are for training and which for validation.

    Several processes train on equal numbers of images, for which some are repeated where they do not divide; in
    validation, test and prediction each image is seen once, in the batch in which one process would see it.

    Batches are dictionaries: `"image"` `(N, 3, H, W)` float32 on the device; `"target"`, `(N,)` int64 of classes,
    `(N, C)` of zeros and ones, or what else the layout of the data's kind of task says; `"id"`, a list of N names; and
    `"size"` `(N, 2)` int64, height and width of the images before they became the input.

    Args:
        dataset: Name of a data source; see `vimlight.data.list_sources`.
        dataset_args: The source's own arguments.
        batch_size: Images per batch and process.
        num_workers: Processes that read images, at most one a core; 0 reads them in a thread of the main process.
        seed: Decides splits, samples, the order of training images and their augmentation.
        augment: `"none"`, `"light"` (keeps letters and orientations), `"photo"` or `"strong"`.
        image_size: Side of the input in pixels, or height and width, if not the backbone's own.
        resize: `"crop"` to keep the proportions of images and cut off what lies outside the input, `"squash"` to keep
            all of the image and give up its proportions, `"pad"` to keep both, in a margin of the backbone's mean
            colour. By default as the backbone wants it, but what lies in the image, such as masks, is squashed.
        background: Colour that transparent pixels lie over, as CSS names it, such as `"black"` or `"#808080"`.
        skip_corrupt: Whether to leave out images that cannot be decoded; every file is then read once beforehand.
        test_limit: Largest number of test images, the same ones for every `seed`.
        preprocessing: The backbone's preprocessing, where no trainer brings a model that has it.

    Attributes:
        augmentation: What is done to training images, if anything.
        keeper: Where there is one, batches bring what it keeps of the images in place of the images.
        predicted: Rows of `predict_table` that `predict` leaves out, since an interrupted run has predicted them.
        fits_finally: Whether a model may be fitted to the images of the data set's final fit.

    Raises:
        ConfigError: If a number is out of range.
        UnknownNameError: If there is no such augmentation, way to resize or colour.
    """

    fits_finally = False

    def __init__(
        self,
        dataset: str,
        dataset_args: dict[str, Any] | None = None,
        *,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        augment: str = "none",
        image_size: int | tuple[int, int] | None = None,
        resize: str | None = None,
        background: str = WHITE,
        skip_corrupt: bool = False,
        test_limit: int | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.dataset_args = dict(dataset_args or {})
        self.batch_size = at_least(1, "batch_size", batch_size)
        self.num_workers = at_least(0, "num_workers", num_workers)
        self.seed = at_least(0, "seed", seed)
        self.image_size = image_size
        self.resize = resize
        if resize is not None and resize not in RESIZES:
            raise unknown_name("resize", resize, RESIZES)
        self.background = check_colour(background)
        self.skip_corrupt = skip_corrupt
        self.test_limit = None if test_limit is None else at_least(1, "test_limit", test_limit)
        self.augmentation = augmentation(augment)
        self.keeper: Keeper | None = None
        self.predicted: frozenset[int] = frozenset()
        self._preprocessing = preprocessing
        self._draws: tuple[int, Tensor] | None = None

    @cached_property
    def source(self) -> Source:
        """The data set, opened at the first use."""
        return load_source(self.dataset, self.dataset_args).over(self.background)

    @property
    def kind(self) -> str:
        """Kind of task that the targets are made for, such as `"classification"`."""
        return self.source.kind

    @property
    def layout(self) -> TargetLayout:
        """What the targets look like."""
        return TASKS[self.kind].layout

    @property
    def class_names(self) -> list[str]:
        """The C class names in the order of the targets."""
        return list(self.source.class_names)

    @property
    def num_classes(self) -> int:
        """The number of classes C."""
        return len(self.source.class_names)

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are prepared: as the preprocessing given says, or that of the trainer's model.

        That is how the images were prepared that the model learnt from; its backbone's own preprocessing before it has
        learnt. `image_size` and `resize` change it where they are set.

        Raises:
            ConfigError: If there is neither.
        """
        model = None if self.trainer is None else self.trainer.lightning_module
        learnt = getattr(model, "prepared", None) if self._preprocessing is None else None
        own = self._preprocessing or getattr(getattr(model, "backbone", None), "preprocessing", None)
        if own is None:
            raise ConfigError("no preprocessing: pass preprocessing=backbone.preprocessing, or a model that has one")
        resize = "squash" if self.resize is None and learnt is None and self.layout.spatial else self.resize
        changes: dict[str, Any] = {}
        if resize is not None:
            # All of the image, unless it is cropped.
            changes |= {"crop_mode": RESIZES[resize], "crop_pct": own.crop_pct if resize == "crop" else 1.0}
        if self.image_size is not None:
            changes["size"] = (self.image_size,) * 2 if isinstance(self.image_size, int) else tuple(self.image_size)
        return cast(Preprocessing, dataclasses.replace(cast(Any, learnt or own), **changes))

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The disjoint tables `"train"`, `"val"` and `"test"`, split and sampled.

        That for training is in random order, so that its first images are a fair sample of it. Where there are images
        for a final fit, see `Source`, they are in a table `"final"`.
        """
        source = self.source.readable() if self.skip_corrupt else self.source
        train, test = source.train, source.test
        if test is None:
            rest, apart = set_apart(self.strata(train), TEST_FRACTION, TEST_SEED)
            train, test = train.subset(rest), train.subset(apart)
        test = test.subset(random_subset(len(test), self.test_limit, TEST_SEED))
        train, val = self.choose(train, source.val)
        final = {} if source.final is None or not self.fits_finally else {"final": source.final}
        return {"train": train.subset(shuffled(len(train), self.seed)), "val": val, "test": test, **final}

    def lend(self, train: Table, val: Table | None, fraction: float) -> tuple[Table, Table]:
        """Returns training and validation images, a share of the former lent to the latter if there are none."""
        if val is not None:
            return train, val
        rest, lent = set_apart(self.strata(train), fraction, self.seed)
        return train.subset(rest), train.subset(lent)

    def strata(self, table: Table) -> Tensor:
        """Returns what splits go by: the classes of images, `(N,)` or `(N, C)`, where no file must be read for it."""
        known = self.layout.classes(table.targets, self.num_classes) if self.layout.in_memory else None
        return torch.zeros(len(table), dtype=torch.long) if known is None else known

    @abstractmethod
    def choose(self, train: Table, val: Table | None) -> tuple[Table, Table]:
        """Returns the images to train on and those to validate on, disjoint.

        Args:
            train: What is not for the test.
            val: What the data set itself sets apart for validation.
        """

    @cached_property
    def learnt_from(self) -> str:
        """Says the training images, in a text that is another one for others."""
        return told_apart(self.source.name, self.tables["train"].ids)

    def split_ids(self) -> dict[str, list[str]]:
        """Returns the ids of the images in each split."""
        return {split: list(table.ids) for split, table in self.tables.items()}

    def setup(self, stage: str) -> None:
        """Splits and samples, so that mistakes in the data show before the first epoch."""
        _ = self.tables, self.preprocessing

    def train_dataloader(self) -> DataLoader[Batch]:
        """Loads the training images, in an order that seed and epoch decide for any number of processes."""
        table = self.tables["train"]
        sampler = TrainingRows(len(table), self.batch_size, self.seed, self.trainer)
        return self._loader(table, sampler, kept=self._keeps("train", self.augmentation is not None))

    def val_dataloader(self) -> DataLoader[Batch]:
        """Loads the validation images in order."""
        return self._loader(self.tables["val"], self._dealt(self.tables["val"]), kept=self._keeps("val"))

    def test_dataloader(self) -> DataLoader[Batch]:
        """Loads the test images in order."""
        return self._loader(self.tables["test"], self._dealt(self.tables["test"]), kept=self._keeps("test"))

    @property
    def predict_table(self) -> Table:
        """What `predict` takes: the test images."""
        return self.tables["test"]

    @property
    def predict_layout(self) -> TargetLayout:
        """What the targets of `predict_table` look like."""
        return self.layout

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Loads the images of `predict_table` in order."""
        table = self.predict_table
        left = RowsLeft(len(table), self.batch_size, self.trainer, lambda: self.predicted)
        return self._loader(table, left, layout=self.predict_layout)

    def batches(
        self,
        split: str,
        device: torch.device | str = "cpu",
        limit: int | None = None,
        only: Sequence[int] | None = None,
    ) -> Iterator[Batch]:
        """Yields the batches of a split as a model sees them in evaluation, without a trainer: in order, not augmented.

        Args:
            split: `"train"`, `"val"`, `"test"` or `"final"`.
            device: Where the batches are prepared and left.
            limit: How many images are wanted; the batch that completes them is the last.
            only: The rows that are wanted and their order, in place of all; always the images themselves.

        Raises:
            UnknownNameError: If there is no such split.
        """
        if split not in self.tables:
            raise unknown_name("split", split, self.tables)
        visited = self.visited(split, limit)
        kept = only is None and self._keeps(split)
        for batch in self._loader(self.tables[split], sampler=only, kept=kept):
            raise_worker_error(batch)
            rows = batch.pop("index")
            yield self._prepare(cast(Batch, move_data_to_device(batch, torch.device(device))), split, rows, visited)
            if only is None and rows[-1] + 1 >= visited:
                return

    def visited(self, split: str, limit: int | None = None) -> int:
        """Returns how many images whole batches of a split have where about `limit` are wanted.

        Args:
            split: `"train"`, `"val"`, `"test"` or `"final"`.
            limit: How many images are wanted; all if left out.
        """
        size = len(self.tables[split])
        return size if limit is None else min(size, math.ceil(limit / self.batch_size) * self.batch_size)

    def read(
        self, split: str, chunks: Iterable[Sequence[int]], view: int | None = None, device: torch.device | str = "cpu"
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Reads images of some rows, as a model sees them.

        Args:
            split: `"train"`, `"val"` or `"test"`.
            chunks: The rows, batch by batch.
            view: Which augmentation the images get, where they get one: that of the epoch of this number.
            device: Where the images are prepared and left.

        Yields:
            The rows and the images `(N, 3, H, W)` of each batch.
        """
        dataset = BatchDataset(self.tables[split], self.preprocessing, self.layout)
        for batch in chunk_loader(dataset, chunks, self.num_workers):
            raise_worker_error(batch)
            rows = batch.pop("index")
            moved = cast(Batch, move_data_to_device(batch, torch.device(device)))
            yield rows.tolist(), self._prepare(moved, split, rows, view=view)["image"]

    def arrays(self, split: str, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Returns a whole split, for small ones with tensors for targets: images `(N, 3, H, W)` float32 and targets."""
        parts = [(batch["image"], batch["target"]) for batch in self.batches(split, device)]
        images, targets = zip(*parts, strict=True)
        return torch.cat(images), torch.cat(targets)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Raises what went wrong in a worker process.

        Raises:
            DataError: If an image could not be read; the text names it.
        """
        raise_worker_error(batch)
        return batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Makes the images the backbone's input, and augments those for training; targets follow their images."""
        rows = batch.pop("index")
        split, view = "val", None
        if self.trainer is not None and self.trainer.training:
            split, view = "train", self._view() if self.augmentation else None
        elif self.trainer is not None and self.trainer.testing:
            split = "test"
        return self._prepare(batch, split, rows, view=view)

    def _prepare(
        self, batch: Batch, split: str, rows: Any, visited: int | None = None, view: int | None = None
    ) -> Batch:
        """Makes images the backbone's input; those that are kept are replaced, behind what targets need them for."""
        kept = batch.pop("kept")
        if "image" in batch:
            batch = self._fitted(batch, None if view is None else self._draws_of(view)[rows])
        if kept:
            assert self.keeper is not None
            visited = len(self.tables[split]) if visited is None else visited
            batch["image"] = self.keeper.images(split, view, rows.tolist(), visited)
        return batch

    def _fitted(self, batch: Batch, draws: Tensor | None) -> Batch:
        preprocessing, target = self.preprocessing, batch["target"]
        predicting = self.trainer is not None and self.trainer.predicting
        layout = self.predict_layout if predicting else self.layout
        images = batch["image"]
        if not batch.pop("fitted", False):
            height, width = images.shape[-2:]
            frame = frame_of((height, width), preprocessing)
            images, target = reframe(images, frame, preprocessing), layout.fit(target, frame)
        images = images.float() / 255
        if self.augmentation is not None and draws is not None:
            draws = draws.to(images.device, images.dtype)
            images = self.augmentation(images, draws)
            target = layout.warp(target, self.augmentation.matrices(draws), preprocessing.size)
        return {**batch, "image": normalise(images, preprocessing), "target": target}

    def _view(self) -> int:
        """Returns which augmentation the training images get in this epoch."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        return epoch % self.keeper.views if self.keeper is not None and self.keeper.views else epoch

    def _draws_of(self, view: int) -> Tensor:
        """Returns a view's random numbers for each training image, `(N, Augmentation.DRAWS)`."""
        if self._draws is None or self._draws[0] != view:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + view)
            self._draws = (view, torch.rand(len(self.tables["train"]), Augmentation.DRAWS, generator=generator))
        return self._draws[1]

    def _keeps(self, split: str, augmented: bool = False) -> bool:
        return self.keeper is not None and self.keeper.keeps(split, augmented)

    def _dealt(self, table: Table) -> DistributedSampler[int] | None:
        return dealt(self.trainer, len(table), self.batch_size)

    def _loader(
        self,
        table: Table,
        sampler: DistributedSampler[int] | Sequence[int] | None = None,
        layout: TargetLayout | None = None,
        kept: bool = False,
    ) -> DataLoader[Batch]:
        pin_memory = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        layout = layout or self.layout
        dataset = BatchDataset(table, self.preprocessing, layout, kept=kept)
        # What is in memory is not worth a process.
        in_memory = kept and not layout.spatial
        workers = 0 if in_memory else self.num_workers
        in_thread = not (in_memory or table.uniform)
        return batch_loader(dataset, self.batch_size, workers, sampler, pin_memory, in_thread)
