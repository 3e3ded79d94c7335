"""A directory of bounded size, with rows of tensors in chunks that are whole or absent.

A *column* is a directory named by a hash over everything that its numbers depend on, which stands in its `about.json`.
Each chunk of its rows is one safetensors file, written under another name and renamed, and read by mapping it into
memory. Whoever misses a chunk computes it; several processes work in different orders, so that they share the work
without waiting for each other, and who comes second throws his copy away.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vimlight.errors import CacheError
from vimlight.files.atomic import publish, temporary
from vimlight.files.checksums import crc32_of
from vimlight.files.json_text import json_object
from vimlight.files.leftovers import hidden, sweep
from vimlight.files.tensor_file import card_text, opened, pack

__all__ = ["Column", "Store"]

ABOUT = "about.json"
# Rows in a chunk: few enough to be computed at once, many enough for few files.
CHUNK = 64
# How often chunks that another process removes meanwhile are made again.
_ROUNDS = 5

# From the rows of each chunk to the rows that were computed and their tensors by name.
Compute = Callable[[Iterable[Sequence[int]]], Iterator[tuple[Sequence[int], Mapping[str, Tensor]]]]


class Column:
    """N rows of some tensors, of which chunks are filled in when they are first asked for.

    Args:
        path: Its directory.
        rows: The number of rows, N.
        dtype: The type that floating-point tensors are stored in.
        about: What the numbers depend on.

    Attributes:
        path: Its directory.
    """

    def __init__(self, path: Path, rows: int, dtype: torch.dtype, about: str) -> None:
        self.path = path
        self._rows, self._dtype, self._about = rows, dtype, about
        self._chunks: dict[int, dict[str, Tensor]] = {}
        self._types: dict[str, torch.dtype] = {}

    def read(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Returns rows that are filled in, in the type they were computed in.

        Args:
            rows: Their numbers.
        """
        wanted = torch.as_tensor(rows, dtype=torch.long)
        numbers, places = wanted // CHUNK, wanted % CHUNK
        found: dict[str, Tensor] = {}
        for number in numbers.unique().tolist():
            here = numbers == number
            for name, tensor in self._chunks[number].items():
                if name not in found:
                    found[name] = torch.empty(len(wanted), *tensor.shape[1:], dtype=tensor.dtype)
                found[name][here] = tensor[places[here]]
        return {name: tensor.to(self._types[name]) for name, tensor in found.items()}

    def fill(self, compute: Compute, rows: Iterable[int]) -> None:
        """Fills in the chunks that hold some rows, as far as they are missing.

        Args:
            compute: Computes the rows of chunks.
            rows: Their numbers.

        Raises:
            CacheError: If another process keeps removing what is written, or numbers do not fit the type.
        """
        missing = [number for number in sorted({row // CHUNK for row in rows}) if not self._has(number)]
        for _ in range(_ROUNDS):
            if not missing:
                return
            random.Random().shuffle(missing)
            chunks = (self._rows_of(number) for number in missing if not self._file(number).exists())
            for rows_done, tensors in compute(chunks):
                self._write(rows_done[0] // CHUNK, tensors)
            missing = [number for number in missing if not self._has(number)]
        raise CacheError(f"another process keeps removing what is written to {str(self.path)!r}; raise its max_gb")

    def _rows_of(self, number: int) -> range:
        return range(number * CHUNK, min((number + 1) * CHUNK, self._rows))

    def _file(self, number: int) -> Path:
        return self.path / f"{number:06d}.safetensors"

    def _has(self, number: int) -> bool:
        """Tells whether a chunk is there, and maps it."""
        if number in self._chunks:
            return True
        path = self._file(number)
        if not path.exists():
            return False
        try:
            self._chunks[number] = self._opened(path, len(self._rows_of(number)))
        except CacheError as error:
            if path.exists():
                warnings.warn(f"{error}; it is computed anew", stacklevel=2)
                path.unlink(missing_ok=True)
            return False
        return True

    def _opened(self, path: Path, rows: int) -> dict[str, Tensor]:
        with opened(path, "a prefix cache", CacheError) as file:
            card = json_object(card_text(file, path, CacheError) or "{}", path.name, CacheError)
            # Not copied: what is mapped is read from the disk when it is needed.
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self._check(card, path, tensors)
        types = {name: getattr(torch, kind) for name, kind in card.get("types", {}).items()}
        if types.keys() != tensors.keys() or any(len(tensor) != rows for tensor in tensors.values()):
            raise CacheError(f"{path.name} does not hold the {rows} rows that it should")
        self._types.update(types)
        return tensors

    def _check(self, card: Mapping[str, Any], path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Checks that a chunk is the one of its name and as it was written; earlier versions did not say."""
        if "crc32" not in card:
            return
        if card.get("chunk") != f"{self.path.name}/{path.name}":
            raise CacheError(f"{path.name} of a prefix cache is another chunk, {card.get('chunk')!r}")
        if crc32_of(tensors) != card["crc32"]:
            raise CacheError(f"{path.name} of a prefix cache was damaged after it was written (its checksum differs)")

    def _about_chunk(self, number: int, types: Mapping[str, str], stored: Mapping[str, Tensor]) -> str:
        """Returns the card of a chunk: the types its tensors had, which chunk it is, and its checksum."""
        name = f"{self.path.name}/{self._file(number).name}"
        return json.dumps({"types": types, "chunk": name, "crc32": crc32_of(stored)})

    def _write(self, number: int, tensors: Mapping[str, Tensor]) -> None:
        stored = {name: self._stored(name, tensor) for name, tensor in tensors.items()}
        types = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
        try:
            # Another process may have removed the directory to make room, or may do so now.
            self._describe()
            with temporary(self._file(number), pack(self._about_chunk(number, types, stored), stored)) as copy:
                publish(copy, self._file(number), overwrite=False)
        except (FileExistsError, FileNotFoundError):
            return
        except OSError as error:
            raise CacheError(f"the prefix cache {str(self.path)!r} cannot be written: {error}") from error

    def _stored(self, name: str, tensor: Tensor) -> Tensor:
        stored = tensor.detach().to("cpu", self._dtype).contiguous()
        if not torch.isfinite(stored).all() and torch.isfinite(tensor).all():
            raise CacheError(
                f"{name} of up to {float(tensor.abs().max()):.3g} do not fit {str(self._dtype)[6:]}; "
                "set prefix_cache.dtype to bfloat16 or float32"
            )
        return stored

    def _describe(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / ABOUT).exists():
            with temporary(self.path / ABOUT, self._about.encode(), sync=False) as copy:
                copy.replace(self.path / ABOUT)


class Store:
    """A directory of columns that together stay below a size: those not used for longest make room.

    Args:
        path: The directory; it is created when something is written.
        max_gb: The size in gigabytes.
    """

    def __init__(self, path: str | os.PathLike[str], max_gb: float) -> None:
        self.path = Path(path).expanduser()
        self._limit = int(max_gb * 1e9)
        self._mine: dict[str, int] = {}

    def column(self, about: Mapping[str, Any], rows: int, row_bytes: int, dtype: torch.dtype) -> Column | None:
        """Returns a column, and makes room for it.

        Args:
            about: All that its numbers depend on, as plain values.
            rows: The number of rows.
            row_bytes: Size of a row.
            dtype: The type that floating-point tensors are stored in.

        Returns:
            The column, or nothing if it does not fit beside what was asked for before.
        """
        text = json.dumps({**about, "rows": rows, "dtype": str(dtype)}, sort_keys=True, indent=1)
        key = hashlib.sha256(text.encode()).hexdigest()[:32]
        others = sum(size for name, size in self._mine.items() if name != key)
        if others + rows * row_bytes > self._limit:
            return None
        self._mine[key] = rows * row_bytes
        self._make_room()
        if (self.path / key / ABOUT).exists():
            os.utime(self.path / key / ABOUT)
        return Column(self.path / key, rows, dtype, text)

    def _make_room(self) -> None:
        """Removes what killed processes left, then columns, those not used for longest first, until the rest fits."""
        for place in (self.path, *self.path.glob("?" * 32)):
            sweep(place)
        others = [about.parent for about in self.path.glob(f"{'?' * 32}/{ABOUT}")]
        found = sorted((*_use_and_size(path), path) for path in others if path.name not in self._mine)
        total = sum(self._mine.values()) + sum(size for _, size, _ in found)
        for _, size, path in found:
            if total <= self._limit:
                return
            total -= size
            _remove(path)


def _use_and_size(path: Path) -> tuple[float, int]:
    """Returns when a column was used last and the size of its files; nothing of what is gone meanwhile."""
    with suppress(FileNotFoundError):
        return (path / ABOUT).stat().st_mtime, sum(file.stat().st_size for file in path.iterdir())
    return 0.0, 0


def _remove(path: Path) -> None:
    """Removes a directory; nobody finds half of it meanwhile."""
    away = hidden(path)
    try:
        path.rename(away)
    except FileNotFoundError:
        return
    shutil.rmtree(away, ignore_errors=True)
