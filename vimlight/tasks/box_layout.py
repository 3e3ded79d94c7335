"""The layout of boxes: how the objects of an image follow what is done to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vimlight.errors import DataError
from vimlight.tasks.targets import Frame, TargetLayout, new_numbers

__all__ = ["BOXES", "BoxLayout", "corners_of"]

Objects = dict[str, Tensor]
# An object of which less is left is neither to be found nor background.
_LEAST = 0.25


class BoxLayout(TargetLayout):
    """The objects of an image, in a dictionary; a batch is a list of these.

    They are `"boxes"` `(B, 4)` float32, the corners left, top, right and bottom as fractions of the image's width and
    height, `"labels"` `(B,)` int64, `"crowd"` `(B,)` bool for what is to be ignored, `"size"` `(2,)`, height and width
    of the image file, and `"image"` `()`, a number that tells images apart.
    """

    name = "boxes"
    spatial = True
    extent_name = "its boxes are for"

    def extent(self, target: Objects) -> tuple[int, int]:
        """Returns the height and width that the boxes' file states for the image."""
        height, width = target["size"].tolist()
        return height, width

    def collate(self, targets: Sequence[Any] | Tensor) -> list[Objects]:
        """Returns the targets as a list."""
        return list(targets)

    def fit(self, targets: Sequence[Objects], frame: Frame) -> list[Objects]:
        """Moves boxes into the input; those of which little is left are ignored from then on."""
        scale = [frame.resized[axis] / frame.new[axis] for axis in (1, 0, 1, 0)]
        shift = [frame.corner[axis] / frame.new[axis] for axis in (1, 0, 1, 0)]
        return [
            _cut(target, target["boxes"] * target["boxes"].new_tensor(scale) - target["boxes"].new_tensor(shift))
            for target in targets
        ]

    def warp(self, targets: Sequence[Objects], matrices: Tensor, size: tuple[int, int]) -> list[Objects]:
        """Puts new boxes around the warped corners; those of which little is left are ignored from then on."""
        last = matrices.new_tensor([0, 0, 1]).expand(len(matrices), 1, 3)
        # From places in the old image to places in the new one.
        forward = torch.linalg.inv(torch.cat([matrices, last], dim=1).float())[:, :2]
        return [_cut(target, _warped(target["boxes"], matrix)) for target, matrix in zip(targets, forward, strict=True)]

    def classes(self, targets: Any, count: int) -> Tensor:
        """Returns which classes each image shows, `(N, C)`; what is ignored does not count."""
        if hasattr(targets, "presence"):
            shown: Tensor = targets.presence(count)
            return shown
        shown = torch.zeros(len(targets), count, dtype=torch.int64)
        for row, target in zip(shown, targets, strict=True):
            row[target["labels"][~target["crowd"]].cpu()] = 1
        return shown

    def choose(self, targets: Any, order: Tensor, count: int) -> tuple[Any, None]:
        """Leaves out objects of other classes; images without any stay."""
        if hasattr(targets, "choose"):
            return targets.choose(order, count), None
        numbers, chosen = new_numbers(order, count, -1), []
        for target in targets:
            kept = numbers[target["labels"]] >= 0
            objects = {key: target[key][kept] for key in ("boxes", "crowd")}
            chosen.append({**target, **objects, "labels": numbers[target["labels"]][kept]})
        return chosen, None

    def check(self, targets: Any, count: int) -> None:
        """Refuses labels that are no class."""
        labels = targets.labels if hasattr(targets, "labels") else torch.cat([item["labels"] for item in targets])
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < count:
            wrong = int(labels.max() if labels.max() >= count else labels.min())
            raise DataError(f"label {wrong} of a box is not among the {count} classes")


BOXES = BoxLayout()


def corners_of(boxes: Tensor) -> Tensor:
    """Returns the four corners of boxes `(B, 4)` as `(B, 4, 2)`, x before y."""
    left, top, right, bottom = boxes.unbind(dim=-1)
    x, y = torch.stack([left, right, right, left], dim=-1), torch.stack([top, top, bottom, bottom], dim=-1)
    return torch.stack([x, y], dim=-1)


def _warped(boxes: Tensor, matrix: Tensor) -> Tensor:
    """Returns boxes around the corners of boxes after an affine map `(2, 3)` in coordinates from -1 to 1."""
    moved = (2 * corners_of(boxes) - 1) @ matrix[:, :2].T + matrix[:, 2]
    moved = (moved + 1) / 2
    return torch.cat([moved.amin(dim=1), moved.amax(dim=1)], dim=-1)


def _cut(target: Objects, boxes: Tensor) -> Objects:
    """Cuts boxes `(B, 4)` off at the borders of the image, and drops those that lie outside."""
    inside = boxes.clamp(0, 1)
    left = _area(inside) / _area(boxes).clamp_min(1e-12)
    kept = (inside[:, 2:] > inside[:, :2]).all(dim=1)
    crowd = target["crowd"] | (left < _LEAST)
    return {**target, "boxes": inside[kept], "labels": target["labels"][kept], "crowd": crowd[kept]}


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
