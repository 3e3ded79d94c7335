"""Reading a cache; to look into one, or to check it, imports no torch."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from vimlight.errors import CacheError, DataError
from vimlight.files.checksums import BLOCK, CheckedFile
from vimlight.files.json_text import json_object
from vimlight.files.replaced import unreplaced
from vimlight.transmiter.cache.manifest import CHECKSUMS, LABELS, MANIFEST, Manifest, read_manifest
from vimlight.transmiter.cache.names import StoredNames
from vimlight.transmiter.cache.reading import check_directory, check_size, file_sha256, forget, mapped, present

if TYPE_CHECKING:
    from torch import Tensor

    from vimlight.transmiter.cache.text_head import TextHead

__all__ = ["LogitCache", "Rows"]

T = TypeVar("T")
Rows: TypeAlias = "slice | Sequence[int] | Tensor"


class LogitCache:
    """What one model says of N images in V views each, memory-mapped; made by `LogitCache.open`.

    The columns of the logits are the C task classes, then the A auxiliary classes. What is read is compared with its
    checksums before it is first used; whatever reads a damaged file raises a `CacheError`.

    Attributes:
        path: The cache's directory.
        manifest: Everything that the numbers depend on.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._content = file_sha256(path / MANIFEST)
        self._array = mapped(path / manifest.array, manifest.shape, manifest.dtype)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> LogitCache:
        """Opens a cache; nothing but the manifest is read, however many images there are.

        Args:
            path: The cache's directory.

        Raises:
            CacheError: If there is no whole cache.
        """
        return unreplaced(Path(path).expanduser() / MANIFEST, lambda manifest: cls._opened(manifest.parent))

    @classmethod
    def _opened(cls, directory: Path) -> LogitCache:
        check_directory(directory)
        manifest = read_manifest(directory)
        for name, entry in manifest.files.items():
            check_size(directory / name, entry.bytes)
        return cls(directory, manifest)

    def __repr__(self) -> str:
        views = f" x {self.num_views} views" if self.num_views > 1 else ""
        return f"LogitCache({str(self.path)!r}: {self.model}, {self.split}, {len(self)} images{views})"

    def __len__(self) -> int:
        """Returns the number of images N."""
        return self.manifest.rows

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens it anew, where a mapped array would be sent as a whole.
        return LogitCache.open, (self.path,)

    @property
    def num_views(self) -> int:
        """Number of views V of each image."""
        return self.manifest.views

    @property
    def num_classes(self) -> int:
        """Number of task classes C."""
        return self.manifest.num_classes

    @property
    def num_logits(self) -> int:
        """Number of columns M = C + A."""
        return self.manifest.num_logits

    @property
    def width(self) -> int | None:
        """Width E of the features; none for bare logits."""
        return self.manifest.width

    @property
    def class_names(self) -> tuple[str, ...]:
        """The C task classes."""
        return self.manifest.class_names

    @property
    def aux_names(self) -> tuple[str, ...]:
        """The A auxiliary classes."""
        return self.manifest.aux_names

    @property
    def split(self) -> str:
        """The split of the data set."""
        return self.manifest.split

    @property
    def model(self) -> str:
        """The model's name."""
        return self.manifest.model

    @property
    def partitions(self) -> dict[str, list[int]]:
        """Named sets of class indices, such as `base` and `novel`."""
        return {name: list(classes) for name, classes in self.manifest.partitions.items()}

    @property
    def hash(self) -> str:
        """SHA-256 over the manifest, and so over every file."""
        return self.manifest.hash

    @cached_property
    def ids(self) -> StoredNames:
        """The N sample ids, read when they are asked for."""
        return StoredNames(self.path, self._checked_files)

    @cached_property
    def labels(self) -> Tensor | None:
        """Class indices `(N,)` int64, or none if the images are not labelled.

        Raises:
            CacheError: If one is of no class, or the file was altered.
        """
        import torch

        return None if self._labels is None else torch.from_numpy(self._labels)

    def images_per_class(self) -> dict[str, int]:
        """Counts the images of each task class, by its name; of a cache without labels, nothing.

        Raises:
            CacheError: As `labels`.
        """
        if self._labels is None:
            return {}
        counts = np.bincount(self._labels, minlength=self.num_classes).tolist()
        return dict(zip(self.class_names, counts, strict=True))

    @cached_property
    def _labels(self) -> NDArray[np.int64] | None:
        if LABELS not in self.manifest.files:
            return None
        labels: NDArray[np.int64] = self._whole(LABELS, (len(self),), "int64")
        outside = np.flatnonzero((labels < 0) | (labels >= self.num_classes))
        if len(outside):
            row = int(outside[0])
            raise CacheError(
                f"{self.path / LABELS} has label {int(labels[row])} in row {row}, which is not among the "
                f"{self.num_classes} task classes; build or import the cache again"
            )
        return labels

    @cached_property
    def head(self) -> TextHead | None:
        """The text head of M classes; none for bare logits."""
        width, scale, bias = self.manifest.width, self.manifest.scale, self.manifest.bias
        if width is None or scale is None or bias is None:
            return None
        import torch

        from vimlight.transmiter.cache.text_head import TextHead

        weights = self._whole("head.npy", (self.num_logits, width), "float32")
        return TextHead(torch.from_numpy(weights), scale, bias)

    def features(self, rows: Rows = slice(None), *, view: int = 0) -> Tensor:
        """Returns image features.

        Args:
            rows: A slice, or row numbers in any order.
            view: The view.

        Returns:
            `(n, E)` float32, L2-normalised.

        Raises:
            DataError: If the cache holds bare logits.
        """
        self._need_features()
        return _normalised(self._read(rows, view))

    def logits(self, rows: Rows = slice(None), *, view: int = 0, columns: Rows | None = None) -> Tensor:
        """Returns logits.

        Args:
            rows: A slice, or row numbers in any order.
            view: The view.
            columns: A slice or class indices; all M by default.

        Returns:
            `(n, M)` float32, or as many columns as were asked for.
        """
        return self._to_logits(self._read(rows, view), columns)

    def batches(self, batch_size: int = 4096, *, views: int | Literal["all"] = "all") -> Iterator[Tensor]:
        """Yields all logits in a fixed order: image by image, and of each image view by view.

        Args:
            batch_size: Rows of logits at a time.
            views: `"all"`, or the one view to take.

        Yields:
            `(n, M)` float32; n is `batch_size` but for the last.

        Raises:
            DataError: If there is no such view.
        """
        # Read instead of mapped: what was touched of a mapped file would count as memory until the cache is closed.
        apart = 1 if views == "all" else self.num_views
        view = 0 if views == "all" else self._checked_view(views)
        total, width = len(self) * self.num_views // apart, self._array.shape[-1]
        with self._own(self._opened_array) as file:
            file.seek(self._array.offset)
            for start in range(0, total, batch_size):
                values = np.empty((min(batch_size, total - start), apart, width), self._array.dtype)
                if file.readinto(values.data.cast("B")) < values.nbytes:
                    raise CacheError(f"{self.path / self.manifest.array} was truncated since it was opened")
                yield self._to_logits(_float(values[:, view]), None)

    def stored(self, rows: slice) -> NDArray[Any]:
        """Returns rows as they are on the disk: features `(n, V, E)` float16, or logits `(n, V, M)` float32."""
        self._check_rows(rows)
        return self._array[rows]

    def block_sums(self) -> dict[str, list[int]]:
        """Returns the CRC-32 of each block of each file; of a cache of an earlier version, nothing.

        Raises:
            CacheError: If they cannot be read.
        """
        entry = self.manifest.files.get(CHECKSUMS)
        if entry is None:
            return {}
        try:
            text = (self.path / CHECKSUMS).read_bytes()
        except OSError as error:
            raise CacheError(f"{self.path / CHECKSUMS} cannot be read: {error.strerror}") from error
        if hashlib.sha256(text).hexdigest() != entry.sha256:
            raise CacheError(f"{self.path / CHECKSUMS} was altered after it was written (its SHA-256 differs)")
        content = json_object(text, str(self.path / CHECKSUMS), CacheError)
        if content.get("block") != BLOCK:
            # Blocks of another size are those of a later version; its caches are read without a look.
            return {}
        sums = content.get("crc32")
        if not isinstance(sums, dict) or not all(self._are_sums(*pair) for pair in sums.items()):
            raise CacheError(f"{self.path / CHECKSUMS} has no checksum for each block of the cache's files")
        return sums

    def _are_sums(self, name: str, sums: Any) -> bool:
        entry = self.manifest.files.get(name)
        blocks = None if entry is None else -(-entry.bytes // BLOCK)
        return (
            isinstance(sums, list)
            and len(sums) == blocks
            and all(type(number) is int and 0 <= number < 1 << 32 for number in sums)
        )

    def verify(self) -> list[str]:
        """Reads every file and compares it with the manifest.

        Returns:
            What is wrong, one line each; empty if nothing is.
        """
        problems = []
        for name, entry in self.manifest.files.items():
            path = self.path / name
            if not path.is_file():
                problems.append(f"{name} is missing")
            elif path.stat().st_size != entry.bytes:
                problems.append(f"{name} has {path.stat().st_size} bytes, the manifest says {entry.bytes}")
            elif file_sha256(path) != entry.sha256:
                problems.append(f"{name} was altered after it was written (its SHA-256 differs)")
        extra = sorted({path.name for path in self.path.iterdir()} - set(self.manifest.files) - {MANIFEST})
        return problems + [f"{name} is no file of the cache" for name in extra]

    def _need_features(self) -> None:
        if self.width is None:
            raise DataError(
                f"cache {str(self.path)!r} holds bare logits, no features; import or build it with features"
            )

    @cached_property
    def _checked_files(self) -> dict[str, CheckedFile]:
        sums = self.block_sums().items()
        return {name: CheckedFile(self.path / name, numbers, CacheError) for name, numbers in sums}

    def _whole(self, name: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        def read() -> NDArray[Any]:
            if name in self._checked_files:
                self._checked_files[name].check_all()
            return np.array(mapped(self.path / name, shape, dtype))

        return self._own(read)

    def _own(self, read: Callable[[], T]) -> T:
        """Reads by name what is this cache's, and not that of one that has replaced it since it was opened."""

        def checked(manifest: Path) -> T:
            with present():
                if file_sha256(manifest) != self._content:
                    raise CacheError(f"cache {str(self.path)!r} was replaced since it was opened; open it again")
                return read()

        return unreplaced(self.path / MANIFEST, checked)

    def _opened_array(self) -> io.BufferedReader:
        checked = self._checked_files.get(self.manifest.array)
        return (self.path / self.manifest.array).open("rb") if checked is None else checked.opened()

    def _check_rows(self, rows: Rows) -> None:
        checked = self._checked_files.get(self.manifest.array)
        if checked is None or checked.is_checked:
            return
        numbers = _numbers(rows, len(self))
        row = self._array.nbytes // max(1, len(self))
        with present():
            checked.check(self._array.offset + numbers * row, row)

    def _read(self, rows: Rows, view: int) -> Tensor:
        self._check_rows(rows)
        values = _float(self._array[_index(rows), self._checked_view(view)])
        forget(self._array)
        return values

    def _checked_view(self, view: int) -> int:
        if not -self.num_views <= view < self.num_views:
            raise DataError(f"cache {str(self.path)!r} has {self.num_views} views, so there is no view {view}")
        return view

    def _to_logits(self, stored: Tensor, columns: Rows | None) -> Tensor:
        if self.head is None:
            return stored if columns is None else stored[:, _index(columns)]
        if columns is None:
            return self.head.logits(_normalised(stored))
        import torch

        chosen = torch.from_numpy(np.arange(self.num_logits)[_index(columns)])
        return self.head.columns(chosen).logits(_normalised(stored))


def _index(rows: Rows) -> Any:
    if isinstance(rows, slice):
        return rows
    import torch

    return rows.numpy(force=True) if isinstance(rows, torch.Tensor) else list(rows)


def _numbers(rows: Rows, count: int) -> NDArray[np.int64]:
    """Returns row numbers, those from the end counted from the beginning."""
    if isinstance(rows, slice):
        return np.arange(*rows.indices(count))
    index = np.asarray(_index(rows))
    return np.arange(count)[index] if index.dtype == bool else np.where(index < 0, index + count, index)


def _normalised(features: Tensor) -> Tensor:
    import torch.nn.functional as F

    return F.normalize(features, dim=1)


def _float(values: NDArray[Any]) -> Tensor:
    import torch

    numbers = np.ascontiguousarray(values, dtype=np.float32)
    # Tensors on read-only memory invite writing to it.
    return torch.from_numpy(numbers if numbers.flags.writeable else numbers.copy())
