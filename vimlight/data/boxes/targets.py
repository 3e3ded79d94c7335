"""The boxes of many images in a few tensors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vimlight.errors import DataError
from vimlight.tasks.targets import new_numbers

__all__ = ["BoxAnnotations", "BoxTargets", "RawBox", "pack_boxes"]


@dataclass(frozen=True)
class RawBox:
    """One object as a file describes it.

    Attributes:
        name: What messages call it, such as `"annotation 17"`.
        corners: Left, top, right and bottom in pixels of the image file.
        label: Class number.
        crowd: Whether it is to be ignored: a crowd (COCO) or a difficult object (VOC). Finding it is neither
            learnt nor counted.
    """

    name: str
    corners: tuple[float, float, float, float]
    label: int
    crowd: bool = False


class BoxTargets(Sequence[dict[str, Tensor]]):
    """The objects of N images; item i holds those of image i.

    An item has `"boxes"` `(B, 4)` float32, the corners left, top, right, bottom as fractions of the image's width and
    height, `"labels"` `(B,)` int64, `"crowd"` `(B,)` bool, `"size"` `(2,)` int64, height and width of the image file in
    pixels, and `"image"` `()` int64, the number i, which it keeps in a part of the whole. An image without objects has
    B = 0. Even large data sets are a few tensors, which worker processes share.

    Args:
        boxes: Of all images one after another, `(T, 4)`.
        labels: `(T,)`.
        crowd: `(T,)`.
        counts: How many objects each image has, `(N,)`.
        sizes: `(N, 2)`.
        category_ids: The number that results files give each class, not necessarily without gaps; from 1 on if left
            out.

    Attributes:
        labels: `(T,)`.
        category_ids: As given.
    """

    def __init__(
        self,
        boxes: Tensor,
        labels: Tensor,
        crowd: Tensor,
        counts: Tensor,
        sizes: Tensor,
        category_ids: Sequence[int] | None = None,
    ) -> None:
        self._boxes, self._crowd, self._sizes = boxes, crowd, sizes
        self.labels = labels
        self.category_ids = category_ids
        self._ends = counts.cumsum(0)
        self._starts = self._ends - counts
        self._rows = torch.arange(len(counts))

    def __len__(self) -> int:
        """Returns the number of images N."""
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:  # type: ignore[override]  # no slices
        """Returns the objects of one image."""
        row = self._rows[index]
        objects = slice(int(self._starts[row]), int(self._ends[row]))
        return {
            "boxes": self._boxes[objects],
            "labels": self.labels[objects],
            "crowd": self._crowd[objects],
            "size": self._sizes[row],
            "image": row.clone(),
        }

    def pick(self, indices: Tensor) -> BoxTargets:
        """Returns a view of the targets of some images, which keep their numbers; indices `(M,)`."""
        view = copy(self)
        view._rows = self._rows[indices]
        return view

    def choose(self, order: Tensor, num_classes: int) -> BoxTargets:
        """Returns the objects of some classes, numbered anew.

        Args:
            order: The chosen classes by their old numbers, `(K,)` int64, in their new order.
            num_classes: Number of old classes.
        """
        labels = new_numbers(order, num_classes, -1)[self.labels]
        kept = labels >= 0
        images = torch.repeat_interleave(self._ends - self._starts)
        counts = torch.bincount(images[kept], minlength=len(self._ends))
        ids = None if self.category_ids is None else tuple(self.category_ids[number] for number in order.tolist())
        chosen = BoxTargets(self._boxes[kept], labels[kept], self._crowd[kept], counts, self._sizes, ids)
        return chosen.pick(self._rows)

    def presence(self, num_classes: int) -> Tensor:
        """Returns which classes each image shows, `(N, C)` int64 of zeros and ones; what is ignored does not count."""
        shown = torch.zeros(len(self._ends), num_classes, dtype=torch.int64)
        images = torch.repeat_interleave(self._ends - self._starts)
        kept = ~self._crowd
        shown[images[kept], self.labels[kept]] = 1
        return shown[self._rows]


@dataclass(frozen=True)
class BoxAnnotations:
    """Images and their objects.

    Attributes:
        files: N image files.
        ids: N names; those of COCO images are the image ids of the file.
        targets: The objects of each image.
        class_names: C names.
    """

    files: tuple[Path, ...]
    ids: tuple[str, ...]
    targets: BoxTargets
    class_names: tuple[str, ...]


def pack_boxes(
    objects: Sequence[Sequence[RawBox]],
    sizes: Sequence[tuple[int, int]],
    images: Sequence[str],
    *,
    category_ids: Sequence[int] | None = None,
    skip_degenerate: bool = False,
) -> BoxTargets:
    """Cuts boxes off at the borders of their images and packs them.

    Args:
        objects: Those of each of N images.
        sizes: Height and width of each image in pixels.
        images: What messages call each image.
        category_ids: See `BoxTargets`.
        skip_degenerate: Whether boxes without area are left out, with a warning that counts them.

    Raises:
        DataError: If a box is not finite, or has no area inside its image; the text names it.
    """
    rows, labels, crowd, counts, skipped = [], [], [], [], []
    for found, (height, width), image in zip(objects, sizes, images, strict=True):
        kept = 0
        for box in found:
            left, top, right, bottom = box.corners
            inside = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
            # Written so that what is not a number is caught too.
            whole = all(map(math.isfinite, box.corners))
            if not (whole and inside[0] < inside[2] and inside[1] < inside[3]):
                skipped.append(_degenerate(box, height, width, image))
                continue
            rows.append((inside[0] / width, inside[1] / height, inside[2] / width, inside[3] / height))
            labels.append(box.label)
            crowd.append(box.crowd)
            kept += 1
        counts.append(kept)
    if skipped and not skip_degenerate:
        more = f" ({len(skipped) - 1} more such)" if len(skipped) > 1 else ""
        raise DataError(f"{skipped[0]}{more}; mend it, or set skip_degenerate: true")
    if skipped:
        warnings.warn(f"left out {len(skipped)} boxes without area; the first: {skipped[0]}", stacklevel=2)
    return BoxTargets(
        torch.tensor(rows, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(crowd, dtype=torch.bool),
        torch.tensor(counts, dtype=torch.int64),
        torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
        category_ids,
    )


def _degenerate(box: RawBox, height: int, width: int, image: str) -> str:
    corners = ", ".join(f"{value:g}" for value in box.corners)
    return f"{box.name} of {image}: the box ({corners}) has no area inside the image of {width} x {height} pixels"
