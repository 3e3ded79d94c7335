"""The images of a comparison's downstream tasks."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from vimlight.backbone import Backbone
from vimlight.comparison.entries import DownstreamTask, Shots
from vimlight.comparison.fingerprints import cached_source
from vimlight.data import DownstreamDataModule, Source, Table

__all__ = ["ComparisonData", "downstream_data"]

BATCH_SIZE = 256
# Up to this many training images, features of all are computed at once, for all shots and seeds.
_FEW = 4096


class ComparisonData(DownstreamDataModule):
    """A downstream task of which no image is set apart for validation, but by a data set with a final fit.

    Everything is chosen by leaving one out of the training images, so that all labels that were asked for are learnt
    from. Where a data set has images for a final fit, things are chosen as it says; see `Source`.
    """

    @cached_property
    def source(self) -> Source:
        """The data set; that of the last tasks stays open."""
        return cached_source(self.dataset, self.dataset_args).over(self.background)

    _pool: Table

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The tables, and of data sets with few training images `"pool"`: those from which every sample is drawn."""
        tables = super().tables
        return {**tables, "pool": self._pool} if len(self._pool) <= _FEW else tables

    def together(self, split: str) -> str:
        """Returns the table whose images go through a model together, those of a split among them.

        Args:
            split: The split.
        """
        return "pool" if split == "train" and "pool" in self.tables else split

    def choose(self, train: Table, val: Table | None) -> tuple[Table, Table]:
        """Draws the shots of each class, or takes all images; what stands for validation is never looked at."""
        self._pool = train
        if self.shots is None and self.source.final is not None:
            return super().choose(train, val)
        drawn = train if self.shots is None else train.subset(self._draw(train, self.shots).train)
        return drawn, drawn.subset([0])


def downstream_data(task: DownstreamTask, shots: Shots, seed: int, backbone: Backbone) -> ComparisonData:
    """Returns the images of a task.

    Args:
        task: The task.
        shots: Labelled images a class, or `"full"`.
        seed: Seed of the sample.
        backbone: Says how images are prepared.
    """
    options: dict[str, Any] = task.reading()
    return ComparisonData(
        task.dataset,
        task.dataset_args,
        shots=None if isinstance(shots, str) else shots,
        seed=seed,
        batch_size=task.batch_size or BATCH_SIZE,
        test_limit=task.test_limit,
        preprocessing=backbone.preprocessing,
        **options,
    )
