"""The Lightning data modules: a midstream data set to train a module on, and a small downstream task."""

from __future__ import annotations

from typing import Any

import torch

from vimlight.data.bounds import at_least
from vimlight.data.image_data import ImageDataModule
from vimlight.data.sampling import FewShot, few_images, few_shot
from vimlight.data.sources.image_folder import existing_folder, image_files
from vimlight.data.tables import FileTable, Table
from vimlight.errors import ConfigError
from vimlight.tasks.targets import LABELS, TargetLayout

__all__ = ["DownstreamDataModule", "MidstreamDataModule"]


class MidstreamDataModule(ImageDataModule):
    """A data set to train a module of the zoo on.

    A data set without a validation part lends `val_fraction` of its training images to it.

    Args:
        dataset: Name of a data source; see `vimlight.data.list_sources`.
        dataset_args: The source's own arguments.
        val_fraction: Share of the training images used for validation if the data set sets none apart.
        **options: See `ImageDataModule`.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self, dataset: str, dataset_args: dict[str, Any] | None = None, *, val_fraction: float = 0.1, **options: Any
    ) -> None:
        super().__init__(dataset, dataset_args, **options)
        self.val_fraction = _share("val_fraction", val_fraction)

    def choose(self, train: Table, val: Table | None) -> tuple[Table, Table]:
        """Returns all training images, less those lent to validation."""
        return self.lend(train, val, self.val_fraction)


class DownstreamDataModule(ImageDataModule):
    """A small task: a few labelled images of each class to learn from, others to choose by, and the test images.

    Where an image shows several classes, as with several labels or a mask, each class gets at least its shots (of
    masks, as far as there are so many); where targets have no classes, such as numbers, shots are counted in all.

    Args:
        dataset: Name of a data source; see `vimlight.data.list_sources`.
        dataset_args: The source's own arguments.
        shots: Images of each class to train on; none for all of them.
        val_shots: Images of each class to validate on; by default as many as `shots`. Without `shots`, a tenth of the
            training images serves where the data set sets no validation images apart.
        predict_folder: Folder of images without labels for `predict`; by default it takes the test images.
        **options: See `ImageDataModule`.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self,
        dataset: str,
        dataset_args: dict[str, Any] | None = None,
        *,
        shots: int | None = None,
        val_shots: int | None = None,
        predict_folder: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dataset, dataset_args, **options)
        self.shots = None if shots is None else at_least(1, "shots", shots)
        self.val_shots = self.shots if val_shots is None else at_least(1, "val_shots", val_shots)
        self.predict_folder = predict_folder
        # Few shots are all that may be learnt from.
        self.fits_finally = shots is None

    def choose(self, train: Table, val: Table | None) -> tuple[Table, Table]:
        """Draws the shots of each class.

        Raises:
            DataError: If a class has too few images; the text names it.
        """
        if self.shots is None:
            return self.lend(train, val, 0.1)
        val_shots = self.val_shots or self.shots
        drawn = self._draw(train, self.shots, val_shots if val is None else 0)
        if val is None:
            return train.subset(drawn.train), train.subset(drawn.val)
        return train.subset(drawn.train), val.subset(self._draw(val, val_shots, part="val").train)

    def _draw(self, table: Table, shots: int, val_shots: int = 0, part: str = "train") -> FewShot:
        names, layout = self.source.class_names, self.layout
        targets = layout.classes(table.targets, len(names))
        if targets is None:
            return few_images(len(table), shots, self.seed, val_shots=val_shots, part=part)
        return few_shot(
            targets, shots, self.seed, len(names), val_shots=val_shots, class_names=names, strict=not layout.spatial,
            part=part,
        )  # fmt: skip

    @property
    def predict_table(self) -> Table:
        """The images of `predict_folder`, with targets of -1, or the test images."""
        if self.predict_folder is None:
            return super().predict_table
        folder = existing_folder(self.predict_folder)
        files = image_files(folder)
        table = FileTable(files, torch.full((len(files),), -1), folder).over(self.background)
        return table.readable() if self.skip_corrupt else table

    @property
    def predict_layout(self) -> TargetLayout:
        """What the targets of `predict_table` look like."""
        return super().predict_layout if self.predict_folder is None else LABELS


def _share(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise ConfigError(f"{name} must lie between 0 and 1, got {value}")
    return value
