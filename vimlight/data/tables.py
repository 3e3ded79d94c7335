"""Tables of labelled images: what a data source is made of.

A table knows all its targets and ids without touching an image, so that splitting and few-shot sampling are cheap;
images are read one batch at a time. Images are RGB in uint8 until they reach the device.
"""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vimlight.data.extents import check_extent
from vimlight.data.pictures import UNREADABLE, WHITE, open_picture, orientation, peek, rgb_tensor
from vimlight.data.target_rows import Targets, in_memory, pick
from vimlight.errors import DataError
from vimlight.tasks.targets import LABELS, TargetLayout
from vimlight.threads import on_threads

__all__ = ["FileTable", "ItemTable", "Subset", "Table", "TensorTable"]

_Read = TypeVar("_Read")
# How many images are looked at where they can only be told apart by decoding them.
_LOOKED_AT = 16


class Table(ABC):
    """N labelled images.

    Attributes:
        targets: N targets, such as `(N,)` int64 class indices, `(N, C)` int64 of zeros and ones for several labels per
            image, or a sequence that gives a mask at a time; see `vimlight.tasks.targets`.
        ids: N names, unique within a source.
        uniform: Whether all images have one size and lie in memory, so that they can be resized in batches.
        background: Colour that transparent pixels lie over, as CSS names it.
    """

    uniform = False
    background = WHITE

    def __init__(self, targets: Targets, ids: Sequence[str]) -> None:
        if len(targets) != len(ids):
            raise DataError(f"{len(targets)} targets for {len(ids)} images")
        self.targets = targets
        self.ids = list(ids)

    def __len__(self) -> int:
        """Returns the number of images N."""
        return len(self.ids)

    @abstractmethod
    def image(self, index: int) -> Tensor:
        """Returns one image, `(3, H, W)` uint8.

        Raises:
            DataError: If it cannot be read.
        """

    def images(self, indices: Sequence[int]) -> list[Tensor] | Tensor:
        """Returns images, each `(3, H, W)` uint8; as one tensor `(len(indices), 3, H, W)` if the table is uniform."""
        return [self.image(index) for index in indices]

    def targets_of(self, indices: Sequence[int]) -> Tensor | list[Any]:
        """Returns the targets of some rows.

        Raises:
            DataError: If one is read from a file and cannot be.
        """
        if isinstance(self.targets, Tensor):
            return self.targets[torch.as_tensor(indices, dtype=torch.long)]
        return [self.targets[index] for index in indices]

    def examples(self, indices: Sequence[int], layout: TargetLayout) -> tuple[list[Tensor] | Tensor, Any]:
        """Returns some images and their targets; see `images` and `targets_of`.

        Raises:
            DataError: If one cannot be read, or a target was drawn on an image of another size or orientation.
        """
        images, targets = self.images(indices), self.targets_of(indices)
        if layout.spatial:
            for index, image, target in zip(indices, images, targets, strict=True):
                check_extent(self.place(index), image, self.orientation(index), target, layout)
        return images, targets

    def place(self, index: int) -> str:
        """Returns what messages call an image: its file, or its id."""
        return self.ids[index]

    def orientation(self, index: int) -> int:
        """Returns the orientation tag of an image as it is stored, 1 to 8; `image` returns it upright."""
        return 1

    def over(self, background: str) -> Table:
        """Returns a view of the table whose transparent pixels lie over a colour, as CSS names it."""
        view = copy(self)
        view.background = background
        return view

    def subset(self, indices: Sequence[int] | Tensor) -> Table:
        """Returns a view of some of the rows, in the given order."""
        return Subset(self, torch.as_tensor(indices, dtype=torch.long))

    def with_targets(self, targets: Targets) -> Table:
        """Returns the same images with other targets."""
        table = copy(self)
        table.targets = targets
        return table

    def digest(self, rows: Sequence[int] | None = None) -> str:
        """Returns a SHA-256 that is another one for other images: over the ids, and over as much of them as is cheap.

        Args:
            rows: Which rows, in order; all of them if left out.
        """
        chosen = range(len(self)) if rows is None else rows
        digest = hashlib.sha256("\0".join([self.background, *(self.ids[row] for row in chosen)]).encode())
        for stamp in self._stamps(chosen):
            digest.update(stamp)
        return digest.hexdigest()

    def _stamps(self, rows: Sequence[int]) -> Iterator[bytes]:
        """Yields what tells the images of some rows from others: here the pixels of a few."""
        for row in rows[:: max(1, len(rows) // _LOOKED_AT)]:
            pixels = self.image(row)
            yield f"{tuple(pixels.shape)}".encode() + pixels.contiguous().numpy().tobytes()

    def readable(self, layout: TargetLayout = LABELS) -> Table:
        """Returns a view of the images that can be read and fit their targets; a warning counts the others.

        Every image is decoded once, on several threads.

        Args:
            layout: The layout of the targets.
        """
        errors = on_threads(lambda index: self._error(index, layout), range(len(self)))
        if not (broken := [error for error in errors if error is not None]):
            return self
        warnings.warn(f"skipped {len(broken)} of {len(self)} images; the first: {broken[0]}", stacklevel=2)
        return self.subset([index for index, error in enumerate(errors) if error is None])

    def _error(self, index: int, layout: TargetLayout) -> str | None:
        try:
            self.examples([index], layout)
        except DataError as error:
            return str(error)
        return None


class TensorTable(Table):
    """Images of one size in memory.

    Args:
        images: `(N, 3, H, W)`, or `(N, 1, H, W)` or `(N, H, W)` for grey images, uint8.
        targets: See `Table`; whole numbers become int64, but those of masks stay uint8.
        name: What the ids start with, such as `"digits/train"`.
    """

    uniform = True

    def __init__(self, images: Tensor | NDArray[np.uint8], targets: Targets, name: str) -> None:
        pixels = torch.as_tensor(images)
        self._pixels = pixels if pixels.ndim == 4 else pixels[:, None]
        if self._pixels.dtype != torch.uint8 or self._pixels.shape[1] not in (1, 3):
            found = f"{pixels.dtype} {tuple(pixels.shape)}"
            raise DataError(f"images of {name}: expected uint8 (N, 3 or 1, H, W), got {found}")
        super().__init__(in_memory(targets), [f"{name}/{index}" for index in range(len(pixels))])

    def image(self, index: int) -> Tensor:
        """Returns one image, `(3, H, W)` uint8."""
        return self._pixels[index].expand(3, -1, -1)

    def images(self, indices: Sequence[int]) -> Tensor:
        """Returns images, `(len(indices), 3, H, W)` uint8."""
        return self._pixels[torch.as_tensor(indices, dtype=torch.long)].expand(-1, 3, -1, -1)

    def _stamps(self, rows: Sequence[int]) -> Iterator[bytes]:
        yield f"{tuple(self._pixels.shape[1:])}".encode()
        for part in torch.as_tensor(rows, dtype=torch.long).split(1024):
            yield self._pixels[part].numpy().tobytes()

    def readable(self, layout: TargetLayout = LABELS) -> Table:
        """Returns the table itself: what is in memory was read."""
        return self


class FileTable(Table):
    """Image files, decoded when they are asked for.

    Args:
        paths: N files.
        targets: See `Table`.
        root: Folder that the ids leave out.
        ids: N names, if they are not those of the files.
    """

    def __init__(
        self, paths: Sequence[Path], targets: Targets, root: Path, ids: Sequence[str] | None = None
    ) -> None:
        self._paths = list(paths)
        names = [(path.relative_to(root) if path.is_relative_to(root) else path).as_posix() for path in paths]
        super().__init__(targets, names if ids is None else ids)

    def image(self, index: int) -> Tensor:
        """Decodes one file, `(3, H, W)` uint8.

        Raises:
            DataError: If it is missing or corrupt, or its numbers have no known white; the text names it.
        """
        return self._read(index, lambda path: rgb_tensor(open_picture(path), self.background))

    def place(self, index: int) -> str:
        """Returns the path of one file."""
        return str(self._paths[index])

    def orientation(self, index: int) -> int:
        """Returns the orientation tag of one file, 1 to 8, without decoding it.

        Raises:
            DataError: If it is missing or corrupt; the text names it.
        """
        return self._read(index, peek)[1]

    def _read(self, index: int, read: Callable[[Path], _Read]) -> _Read:
        path = self._paths[index]
        try:
            return read(path)
        except (DataError, *UNREADABLE) as error:
            raise DataError(f"cannot read image {path}: {error}; mend it, or set skip_corrupt: true") from error

    def _stamps(self, rows: Sequence[int]) -> Iterator[bytes]:
        for row in rows:
            try:
                status = self._paths[row].stat()
            except OSError as error:
                raise DataError(f"cannot read image {self._paths[row]}: {error}") from error
            yield f"{status.st_size} {status.st_mtime_ns} ".encode()


class ItemTable(Table):
    """Images inside the items of some other library's data set.

    Args:
        items: N items; fetching one may decode it.
        pick: Takes the image out of an item: one of PIL, or what else `vimlight.data.pictures.rgb_tensor` takes.
        targets: See `Table`.
        name: What the ids start with, or N ids.
    """

    def __init__(self, items: Any, pick: Callable[[Any], Any], targets: Targets, name: str | Sequence[str]) -> None:
        self._items = items
        self._pick = pick
        super().__init__(targets, [f"{name}/{index}" for index in range(len(items))] if isinstance(name, str) else name)

    def image(self, index: int) -> Tensor:
        """Fetches one image, `(3, H, W)` uint8.

        Raises:
            DataError: If it cannot be decoded, or its numbers have no known white; the text names it.
        """
        return self._read(index, lambda image: rgb_tensor(image, self.background))

    def orientation(self, index: int) -> int:
        """Returns the orientation tag of one image, 1 to 8, as far as the other library has kept it.

        Raises:
            DataError: If it cannot be decoded; the text names it.
        """
        return self._read(index, lambda image: orientation(image) if isinstance(image, Image.Image) else 1)

    def _read(self, index: int, read: Callable[[Any], _Read]) -> _Read:
        try:
            return read(self._pick(self._items[index]))
        except (DataError, *UNREADABLE) as error:
            raise DataError(f"cannot read image {self.ids[index]}: {error}; or set skip_corrupt: true") from error


class Subset(Table):
    """Some rows of another table.

    Args:
        table: The table looked into.
        indices: `(M,)` int64 row numbers.
    """

    def __init__(self, table: Table, indices: Tensor) -> None:
        self._table = table
        self._indices = indices
        self.uniform, self.background = table.uniform, table.background
        super().__init__(pick(table.targets, indices), [table.ids[index] for index in indices.tolist()])

    def image(self, index: int) -> Tensor:
        """Returns one image, `(3, H, W)` uint8."""
        return self._table.image(int(self._indices[index]))

    def images(self, indices: Sequence[int]) -> list[Tensor] | Tensor:
        """Returns images, each `(3, H, W)` uint8."""
        return self._table.images(self._indices[torch.as_tensor(indices, dtype=torch.long)].tolist())

    def place(self, index: int) -> str:
        """Returns what messages call an image."""
        return self._table.place(int(self._indices[index]))

    def orientation(self, index: int) -> int:
        """Returns the orientation tag of an image as it is stored, 1 to 8."""
        return self._table.orientation(int(self._indices[index]))

    def over(self, background: str) -> Table:
        """Returns a view of the rows whose transparent pixels lie over a colour."""
        return Subset(self._table.over(background), self._indices)

    def _stamps(self, rows: Sequence[int]) -> Iterator[bytes]:
        return self._table._stamps(self._indices[torch.as_tensor(rows, dtype=torch.long)].tolist())

    def readable(self, layout: TargetLayout = LABELS) -> Table:
        """Returns a view of the images that can be decoded; see `Table.readable`."""
        return self if self.uniform else super().readable(layout)
