"""Layouts of targets: how those of a batch are put together, and how they follow what is done to their images.

A batch of targets is a tensor whose first dimension counts the images, or a list with one entry an image. What moves
pixels of an image moves its target with it: `fit` when the image is resized and cropped to the input, `warp` when it
is augmented. A layout whose targets do not lie in the image keeps the two methods as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vimlight.errors import ConfigError, DataError
from vimlight.threads import on_threads

__all__ = [
    "FIELDS",
    "FLAGS",
    "IGNORE",
    "LABELS",
    "MASKS",
    "NUMBERS",
    "Batched",
    "Frame",
    "TargetLayout",
]

Batched = Any
"""A tensor with one row an image, or a list with one entry an image."""

IGNORE = 255
"""The value of a mask's pixels that belong to no class."""


@dataclass(frozen=True)
class Frame:
    """How an image becomes the input: it is resized, then cropped, or padded where the crop reaches beyond it.

    Attributes:
        old: Height and width of the image in pixels.
        resized: Height and width after resizing.
        corner: Row and column of the crop's top left pixel in the resized image; below zero, its distance from it.
        new: Height and width of the crop.
    """

    old: tuple[int, int]
    resized: tuple[int, int]
    corner: tuple[int, int]
    new: tuple[int, int]


class TargetLayout:
    """One layout of targets; a task names its own, a subclass defines what differs.

    Attributes:
        name: What one target is, as messages say it. Two layouts of one name are the same.
        spatial: Whether a target lies in its image. Such images are resized without regard to their proportions rather
            than cropped, so that nothing of the target is lost and predictions fit the whole image.
        in_memory: Whether all targets of a table are at hand, so that its splits can go by their classes.
        extent_name: How messages begin to say the size of a target that lies in its image.
    """

    name: ClassVar[str]
    spatial: ClassVar[bool] = False
    in_memory: ClassVar[bool] = True
    extent_name: ClassVar[str] = "its target has"

    def extent(self, target: Any) -> tuple[int, int] | None:
        """Returns height and width in pixels of the image that a single target, which lies in it, was drawn on.

        By default those of a target that has a value for every pixel, and nothing of others, such as points.
        """
        return (target.shape[-2], target.shape[-1]) if target.ndim > 1 else None

    def collate(self, targets: Sequence[Any] | Tensor) -> Batched:
        """Makes a batch of single targets; a tensor of them is one already."""
        return targets if isinstance(targets, Tensor) else torch.stack([torch.as_tensor(target) for target in targets])

    def fit(self, targets: Batched, frame: Frame) -> Batched:
        """Moves a batch of targets as all its images were resized, and cropped or padded."""
        return targets

    def warp(self, targets: Batched, matrices: Tensor, size: tuple[int, int]) -> Batched:
        """Moves a batch of targets as its images were warped.

        Args:
            targets: The targets.
            matrices: From places in the new image to places in the old one, `(N, 2, 3)` in coordinates from -1 to 1.
            size: Height and width of the images.
        """
        return targets

    def classes(self, targets: Any, count: int) -> Tensor | None:
        """Returns what few-shot samples are balanced by: `(N,)` labels, `(N, C)` zeros and ones, or nothing.

        Args:
            targets: All targets of a table: a tensor, or a sequence that gives one at a time.
            count: Number of classes C.
        """
        return None

    def choose(self, targets: Any, order: Tensor, count: int) -> tuple[Any, Tensor | None]:
        """Numbers the classes anew, and leaves out those that are not chosen.

        Args:
            targets: All targets of a table.
            order: The K chosen classes, `(K,)` int64, in their new order.
            count: Number of classes C until now.

        Returns:
            The new targets, and the rows that still have one, int64 in order; none if all have.

        Raises:
            ConfigError: If the targets are no classes.
        """
        raise ConfigError(f"classes cannot be chosen where the targets are {self.name}")

    def check(self, targets: Any, count: int) -> None:
        """Checks the targets of a table as far as they are in memory.

        Args:
            targets: All targets of a table.
            count: Number of classes C.

        Raises:
            DataError: If one lies outside the classes; the caller says in which data set.
        """


class Labels(TargetLayout):
    """The number of a class, int64."""

    name = "class numbers"

    def classes(self, targets: Any, count: int) -> Tensor:
        """Returns the labels themselves."""
        return torch.as_tensor(targets)

    def choose(self, targets: Any, order: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Renumbers the labels; rows of other classes have none."""
        renumbered = new_numbers(order, count, -1)[torch.as_tensor(targets)]
        return renumbered, (renumbered >= 0).nonzero().flatten()

    def check(self, targets: Any, count: int) -> None:
        """Refuses numbers below 0 or from `count` on."""
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= count:
            raise DataError(f"label {high if high >= count else low} is not among the {count} classes")


class Flags(TargetLayout):
    """Zeros and ones, `(C,)` int64: any number of classes."""

    name = "zeros and ones for each class"

    def classes(self, targets: Any, count: int) -> Tensor:
        """Returns the flags themselves."""
        return torch.as_tensor(targets)

    def choose(self, targets: Any, order: Tensor, count: int) -> tuple[Tensor, None]:
        """Keeps the columns of the chosen classes."""
        return torch.as_tensor(targets)[:, order], None

    def check(self, targets: Any, count: int) -> None:
        """Refuses tables of another width."""
        if targets.ndim != 2 or targets.shape[1] != count:
            raise DataError(f"the targets are {tuple(targets.shape)}, expected (N, {count}), one column a class")


class Numbers(TargetLayout):
    """Real numbers, `(T,)` float32; the class names are the names of the numbers."""

    name = "real numbers"

    def check(self, targets: Any, count: int) -> None:
        """Refuses tables of another width, and what is not finite."""
        if targets.ndim != 2 or targets.shape[1] != count:
            raise DataError(f"the targets are {tuple(targets.shape)}, expected (N, {count}), one column a number")
        if not torch.isfinite(targets).all():
            raise DataError("a target is not a finite number")


class Masks(TargetLayout):
    """The class of every pixel, `(H, W)` uint8; `IGNORE` where it is unknown."""

    name = "masks of classes"
    spatial = True
    in_memory = False
    extent_name = "its mask has"

    def fit(self, targets: Tensor, frame: Frame) -> Tensor:
        """Picks for each new pixel the nearest old one, `(N, H, W)`, `IGNORE` outside the image."""
        return nearest_in_frame(targets, frame, IGNORE)

    def warp(self, targets: Tensor, matrices: Tensor, size: tuple[int, int]) -> Tensor:
        """Picks for each new pixel the nearest old one, `IGNORE` outside the image."""
        return nearest_warped(targets, matrices, IGNORE)

    def classes(self, targets: Any, count: int) -> Tensor:
        """Returns which classes each mask shows, `(N, C)`; masks in files are all read once, on several threads."""

        def shown(index: int) -> Tensor:
            return torch.bincount(targets[index].flatten().long(), minlength=IGNORE + 1)[:count] > 0

        return torch.stack(on_threads(shown, range(len(targets)))).long()

    def choose(self, targets: Any, order: Tensor, count: int) -> tuple[Any, None]:
        """Renumbers the pixels; those of other classes are `IGNORE`."""
        numbers = new_numbers(order, IGNORE + 1, IGNORE).to(torch.uint8)
        return numbers[targets.long()] if isinstance(targets, Tensor) else _Renumbered(targets, numbers), None

    def check(self, targets: Any, count: int) -> None:
        """Refuses other types than uint8 and, of masks in memory, classes that do not exist."""
        if count > IGNORE:
            raise DataError(f"masks hold at most {IGNORE} classes, got {count}")
        if isinstance(targets, Tensor):
            check_mask(targets, count)


class Fields(TargetLayout):
    """A real number for every pixel, such as its depth, `(H, W)` float32; NaN where it is unknown."""

    name = "maps of real numbers"
    spatial = True
    extent_name = "its map has"

    def fit(self, targets: Tensor, frame: Frame) -> Tensor:
        """Picks for each new pixel the nearest old one, for means over edges would be nobody's depth; NaN outside."""
        return nearest_in_frame(targets, frame, float("nan"))

    def warp(self, targets: Tensor, matrices: Tensor, size: tuple[int, int]) -> Tensor:
        """Picks for each new pixel the nearest old one, NaN outside the image."""
        return nearest_warped(targets, matrices, float("nan"))


class _Renumbered(Sequence[Tensor]):
    """Masks with other numbers, each read when it is asked for."""

    def __init__(self, masks: Sequence[Tensor], numbers: Tensor) -> None:
        self._masks, self._numbers = masks, numbers

    def __len__(self) -> int:
        return len(self._masks)

    def __getitem__(self, index: Any) -> Any:
        return self._numbers[self._masks[index].long()]


LABELS, FLAGS, NUMBERS, MASKS, FIELDS = Labels(), Flags(), Numbers(), Masks(), Fields()


def new_numbers(order: Tensor, count: int, none: int) -> Tensor:
    """Returns the new number of every old class, `(count,)` int64.

    Args:
        order: The chosen classes by their old numbers, `(K,)` int64.
        count: Number of old classes.
        none: The new number of those that are not chosen.
    """
    numbers = torch.full((count,), none)
    numbers[order] = torch.arange(len(order))
    return numbers


def check_mask(masks: Tensor, count: int) -> None:
    """Checks the values of masks.

    Args:
        masks: `(..., H, W)`.
        count: Number of classes.

    Raises:
        DataError: If they are not uint8, or a class does not exist.
    """
    if masks.dtype != torch.uint8:
        raise DataError(f"masks must be uint8, got {masks.dtype}")
    wrong = (masks >= count) & (masks != IGNORE)
    if wrong.any():
        value = int(masks[wrong][0])
        raise DataError(f"a mask's pixel has the value {value}, which is not among the {count} classes (nor {IGNORE})")


def nearest_in_frame(maps: Tensor, frame: Frame, outside: float) -> Tensor:
    """Resizes, crops and pads maps of any type, each new pixel being the nearest old one.

    Args:
        maps: `(..., H, W)`.
        frame: How the images were resized and cropped.
        outside: Value of pixels beyond the image.
    """
    picks, inside = [], []
    for axis in (0, 1):
        place = torch.arange(frame.new[axis], device=maps.device) + frame.corner[axis]
        # The middle of each new pixel, in old ones.
        middle = ((2 * place + 1) * frame.old[axis]) // (2 * frame.resized[axis])
        picks.append(middle.clamp(0, frame.old[axis] - 1))
        inside.append((place >= 0) & (place < frame.resized[axis]))
    return maps[..., picks[0][:, None], picks[1]].masked_fill_(~(inside[0][:, None] & inside[1]), outside)


def nearest_warped(maps: Tensor, matrices: Tensor, outside: float) -> Tensor:
    """Warps maps of any type, each new pixel being the nearest old one.

    Args:
        maps: `(N, H, W)`.
        matrices: See `TargetLayout.warp`.
        outside: Value of pixels that come from outside the image.
    """
    height, width = maps.shape[-2:]
    size = [len(maps), 1, height, width]
    grid = torch.nn.functional.affine_grid(matrices.to(maps.device, torch.float32), size, align_corners=False)
    column, row = (((grid + 1) * grid.new_tensor([width, height]) - 1) / 2).round().long().unbind(dim=-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    flat = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    picked = maps.flatten(1).gather(1, flat.flatten(1)).view_as(maps)
    return torch.where(inside, picked, torch.full_like(picked, outside))
