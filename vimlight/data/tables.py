"""Tables of labelled images: what a data source is made of.

A table knows all its targets and ids without touching an image, so that splitting and few-shot sampling are cheap;
images are read one batch at a time. Images are RGB in uint8 until they reach the device.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vimlight.errors import DataError

__all__ = ["FileTable", "ItemTable", "Source", "Subset", "Table", "TensorTable", "pick", "rgb_tensor"]

Targets = Any
"""N targets in the layout of the task: a tensor, or a sequence that gives one at a time, reading it when asked."""

# How many images are looked at where they can only be told apart by decoding them.
_LOOKED_AT = 16


class Table(ABC):
    """N labelled images.

    Attributes:
        targets: N targets, such as `(N,)` int64 class indices, `(N, C)` int64 of zeros and ones for several labels per
            image, or a sequence that gives a mask at a time; see `vimlight.tasks.targets`.
        ids: N names, unique within a source.
        uniform: Whether all images have one size and lie in memory, so that they can be resized in batches.
    """

    uniform = False

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
        digest = hashlib.sha256("\0".join(self.ids[row] for row in chosen).encode())
        for stamp in self._stamps(chosen):
            digest.update(stamp)
        return digest.hexdigest()

    def _stamps(self, rows: Sequence[int]) -> Iterator[bytes]:
        """Yields what tells the images of some rows from others: here the pixels of a few."""
        for row in rows[:: max(1, len(rows) // _LOOKED_AT)]:
            pixels = self.image(row)
            yield f"{tuple(pixels.shape)}".encode() + pixels.contiguous().numpy().tobytes()

    def readable(self) -> Table:
        """Returns a view of the images that can be decoded, with a warning that counts the others.

        Every image is decoded once, on several threads.
        """
        with ThreadPoolExecutor() as pool:
            errors = list(pool.map(self._error, range(len(self))))
        broken = [error for error in errors if error is not None]
        if not broken:
            return self
        warnings.warn(f"skipped {len(broken)} of {len(self)} images; the first: {broken[0]}", stacklevel=2)
        return self.subset([index for index, error in enumerate(errors) if error is None])

    def _error(self, index: int) -> str | None:
        try:
            self.image(index), self.targets[index]
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
        super().__init__(_in_memory(targets), [f"{name}/{index}" for index in range(len(pixels))])

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

    def readable(self) -> Table:
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
        super().__init__(targets, [_relative(path, root) for path in paths] if ids is None else ids)

    def image(self, index: int) -> Tensor:
        """Decodes one file, `(3, H, W)` uint8.

        Raises:
            DataError: If it is missing or corrupt; the text names it.
        """
        path = self._paths[index]
        try:
            with Image.open(path) as image:
                return rgb_tensor(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
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
        pick: Takes the PIL image out of an item.
        targets: See `Table`.
        name: What the ids start with.
    """

    def __init__(self, items: Any, pick: Callable[[Any], Image.Image], targets: Targets, name: str) -> None:
        self._items = items
        self._pick = pick
        super().__init__(targets, [f"{name}/{index}" for index in range(len(items))])

    def image(self, index: int) -> Tensor:
        """Fetches one image, `(3, H, W)` uint8.

        Raises:
            DataError: If it cannot be decoded.
        """
        try:
            return rgb_tensor(self._pick(self._items[index]))
        except (OSError, SyntaxError, ValueError) as error:
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
        self.uniform = table.uniform
        super().__init__(pick(table.targets, indices), [table.ids[index] for index in indices.tolist()])

    def image(self, index: int) -> Tensor:
        """Returns one image, `(3, H, W)` uint8."""
        return self._table.image(int(self._indices[index]))

    def images(self, indices: Sequence[int]) -> list[Tensor] | Tensor:
        """Returns images, each `(3, H, W)` uint8."""
        return self._table.images(self._indices[torch.as_tensor(indices, dtype=torch.long)].tolist())

    def _stamps(self, rows: Sequence[int]) -> Iterator[bytes]:
        return self._table._stamps(self._indices[torch.as_tensor(rows, dtype=torch.long)].tolist())

    def readable(self) -> Table:
        """Returns a view of the images that can be decoded; see `Table.readable`."""
        return self if self.uniform else super().readable()


@dataclass(frozen=True)
class Source:
    """A data set: its classes and up to three tables.

    Attributes:
        name: The data set's name.
        kind: Kind of task that the targets are made for, such as `"classification"`; see `vimlight.tasks.list_tasks`.
        class_names: C names, in the order of the class indices; the names of the numbers, where targets are numbers.
        train: Images to learn from.
        val: Images for validation, if the data set sets some apart.
        test: Images for the test, if the data set sets some apart.
    """

    name: str
    kind: str
    class_names: tuple[str, ...]
    train: Table
    test: Table | None = None
    val: Table | None = None

    def __post_init__(self) -> None:
        """Checks the targets.

        Raises:
            DataError: If a table is empty, its targets are not those of the kind, or an image file is in two tables.
            UnknownNameError: If there is no such kind.
        """
        from vimlight.tasks import TASKS

        layout = TASKS[self.kind].layout
        for split, table in (("train", self.train), ("val", self.val), ("test", self.test)):
            if table is None:
                continue
            if not len(table):
                raise DataError(f"data set {self.name!r} has no image in its {split} part")
            try:
                layout.check(table.targets, len(self.class_names))
            except DataError as error:
                raise DataError(f"data set {self.name!r}, {split}: {error}") from error
        _check_disjoint(self)

    def readable(self) -> Source:
        """Returns the source without the images that cannot be decoded; see `Table.readable`."""
        test = self.test and self.test.readable()
        val = self.val and self.val.readable()
        return replace(self, train=self.train.readable(), test=test, val=val)


def _check_disjoint(source: Source) -> None:
    seen: dict[str, str] = {}
    for split, table in (("train", source.train), ("val", source.val), ("test", source.test)):
        for file in table._paths if isinstance(table, FileTable) else ():
            first = seen.setdefault(os.path.normpath(file.absolute()), split)
            if first != split:
                raise DataError(
                    f"data set {source.name!r}: {file} is in its {first} part and in its {split} part; leave one out"
                )


def pick(targets: Targets, indices: Tensor) -> Targets:
    """Returns some of the targets, in the given order; of a sequence, what its own `pick` gives if it has one."""
    if isinstance(targets, Tensor):
        return targets[indices]
    return targets.pick(indices) if hasattr(targets, "pick") else _Picked(targets, indices.tolist())


class _Picked(Sequence[Any]):
    """Some entries of a sequence, fetched when they are asked for."""

    def __init__(self, targets: Sequence[Any], indices: Sequence[int]) -> None:
        self._targets = targets
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        return self._targets[self._indices[index]]


def _in_memory(targets: Targets) -> Targets:
    if not isinstance(targets, Tensor | np.ndarray):
        return targets
    tensor = torch.as_tensor(targets)
    if tensor.is_floating_point():
        return tensor.float()
    return tensor.long() if tensor.ndim <= 2 else tensor


def rgb_tensor(image: Image.Image) -> Tensor:
    """Turns a PIL image of any mode into `(3, H, W)` uint8; 16-bit grey values keep their upper eight bits."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
