"""What is in a data set: images and their sizes in each part, images of each class, and some of them to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vimlight.data.source import Source
from vimlight.data.tables import Table
from vimlight.data.target_rows import pick

__all__ = ["Part", "Picture", "parts_of", "pictures_of"]

# What must be decoded for it is found out of this many images of a part.
_LOOKED_AT = 64
_SIDE = 192


@dataclass(frozen=True)
class Part:
    """One part of a data set.

    Attributes:
        split: `"train"`, `"val"`, `"test"` or `"final"`; see `Source`.
        images: Number of images.
        counts: Images that show each class, `(C,)` int64; nothing where targets have no classes.
        counted: How many images `counts` is of: some of them, evenly spread, where a file must be read for each.
        sizes: Height and width of some images, evenly spread, `(n, 2)` int64.
    """

    split: str
    images: int
    counts: Tensor | None
    counted: int
    sizes: Tensor


@dataclass(frozen=True)
class Picture:
    """An image of a data set to be looked at.

    Attributes:
        image: `(H, W, 3)` uint8, what lies in it drawn into it.
        text: Its classes or what else is known of it.
    """

    image: NDArray[np.uint8]
    text: str


def parts_of(source: Source) -> list[Part]:
    """Counts the images and classes of every part of a data set.

    Raises:
        DataError: If an image or target that is looked at cannot be read.
    """
    return [_part(source, split, table) for split, table in source.tables.items()]


def pictures_of(source: Source, count: int = 48) -> list[Picture]:
    """Returns training images of a data set, of one class after the other as far as there is room.

    Args:
        source: The data set.
        count: How many images at most.

    Raises:
        DataError: If one of them cannot be read.
    """
    from vimlight.tasks import TASKS, create_task

    layout = TASKS[source.kind].layout
    task = create_task(source.kind, source.class_names)
    rows = _shown(source, count)
    found = []
    for row in rows:
        image, targets = source.train.image(row), layout.collate(source.train.targets_of([row]))
        pixels = image.permute(1, 2, 0).numpy()
        drawn = task.draw(pixels, targets[0])
        found.append(Picture(_thumbnail(pixels if drawn is None else drawn), task.truth(targets)[0]))
    return found


def _part(source: Source, split: str, table: Table) -> Part:
    from vimlight.tasks import TASKS

    layout, count = TASKS[source.kind].layout, len(source.class_names)
    some = _spread(len(table), _LOOKED_AT)
    rows = torch.arange(len(table)) if layout.in_memory else some
    classes = layout.classes(table.targets if layout.in_memory else pick(table.targets, rows), count)
    sizes = torch.tensor([table.image(row).shape[-2:] for row in some.tolist()])
    return Part(split, len(table), None if classes is None else _counts(classes, count), len(rows), sizes)


def _counts(classes: Tensor, count: int) -> Tensor:
    return classes.bincount(minlength=count) if classes.ndim == 1 else (classes > 0).sum(dim=0)


def _spread(size: int, limit: int) -> Tensor:
    """Returns up to `limit` of `size` rows, evenly spread."""
    return torch.linspace(0, size - 1, min(size, limit)).long()


def _shown(source: Source, count: int) -> list[int]:
    """Returns rows of training images: as many of each class as there is room for, class by class."""
    labels = source.train.targets
    if not isinstance(labels, Tensor) or labels.ndim != 1:
        return _spread(len(source.train), count).tolist()
    present = labels.unique()
    chosen = present[_spread(len(present), count)]
    each = max(1, count // len(chosen))
    rows: Sequence[Any] = [(labels == label).nonzero().flatten()[:each] for label in chosen]
    return torch.cat(list(rows)).tolist()


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE))
    return np.asarray(image)
