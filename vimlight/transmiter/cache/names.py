"""Sample ids on disk: millions of names that open at once and are read one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from vimlight.errors import CacheError, shown
from vimlight.files.arrays import ARRAY_FAULTS, load_array
from vimlight.files.checksums import CheckedFile

__all__ = ["STARTS", "TEXT", "SomeNames", "StoredNames", "encode_names"]

TEXT, STARTS = "ids.txt", "ids.npy"


class StoredNames(Sequence[str]):
    """Names in a text file, one a line, found through an array of where they begin.

    Args:
        directory: Where `ids.txt` and `ids.npy` are.
        checked: Either file with its checksums, by name, where there are any.

    Raises:
        CacheError: If they cannot be read.
    """

    def __init__(self, directory: Path, checked: Mapping[str, CheckedFile] | None = None) -> None:
        self._directory = directory
        self._checked = {} if checked is None else checked
        try:
            self._text = np.memmap(directory / TEXT, dtype=np.uint8, mode="r")
            self._starts: np.memmap[Any, Any] = load_array(directory / STARTS, "r")
        except ARRAY_FAULTS as error:
            raise CacheError(f"the ids of {str(directory)!r} are damaged or cannot be read: {error}") from error
        if self._starts.ndim != 1 or self._starts.dtype.kind != "i" or not len(self._starts):
            found = f"{self._starts.dtype} {self._starts.shape}"
            raise CacheError(f"{directory / STARTS} holds {found}, not where each id begins")

    def __len__(self) -> int:
        """Returns the number of names."""
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Returns a name or a list of names."""
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        self._check(STARTS, self._starts.offset + row * self._starts.itemsize, 2 * self._starts.itemsize)
        start, end = int(self._starts[row]), int(self._starts[row + 1])
        self._check(TEXT, start, end - start)
        # The last byte of each is the end of its line.
        return self._decoded(self._text[start : end - 1].tobytes())

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names, reading the file once."""
        for file in (self._checked[name] for name in (STARTS, TEXT) if name in self._checked):
            file.check_all()
        ends = self._starts.tolist()
        text = self._text.tobytes()
        return (self._decoded(text[start : end - 1]) for start, end in pairwise(ends))

    def _decoded(self, name: bytes) -> str:
        try:
            return name.decode()
        except UnicodeDecodeError as error:
            raise CacheError(f"the ids of {str(self._directory)!r} are damaged: {shown(name)} is no text") from error

    def _check(self, name: str, start: int, length: int) -> None:
        if name in self._checked:
            self._checked[name].check([start], length)


class SomeNames(Sequence[str]):
    """Some of many names, each read when it is asked for.

    Args:
        names: All names.
        rows: `(n,)` which of them, in order.
    """

    def __init__(self, names: Sequence[str], rows: NDArray[np.int64]) -> None:
        self._names, self._rows = names, rows

    def __len__(self) -> int:
        """Returns the number of names n."""
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> SomeNames: ...
    def __getitem__(self, index: int | slice) -> str | SomeNames:
        """Returns a name, or fewer of them."""
        if isinstance(index, slice):
            return SomeNames(self._names, self._rows[index])
        return self._names[int(self._rows[index])]


def encode_names(names: Iterable[str]) -> tuple[bytes, NDArray[np.int64]]:
    """Returns the contents of both files.

    Args:
        names: N names.

    Returns:
        The text, and where each name begins in it, `(N + 1,)` int64.
    """
    lines = [name.encode() + b"\n" for name in names]
    starts = np.zeros(len(lines) + 1, dtype=np.int64)
    np.cumsum([len(line) for line in lines], out=starts[1:])
    return b"".join(lines), starts
