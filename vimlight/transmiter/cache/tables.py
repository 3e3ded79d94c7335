"""Arrays, names and labels from the files that people have."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from vimlight.errors import ConfigError, DataError, VimlightError
from vimlight.files.absent import absence
from vimlight.files.arrays import ARRAY_FAULTS, load_array
from vimlight.files.text import read_lines
from vimlight.files.weight_file import WEIGHT_FAULTS
from vimlight.transmiter.cache.spreadsheets import (
    NamedColumns,
    from_csv,
    from_parquet,
    labels_from_csv,
    labels_from_parquet,
)
from vimlight.transmiter.cache.torch_files import from_torch

__all__ = ["SUFFIXES", "read_array", "read_labels", "read_names"]

SUFFIXES = (".npy", ".npz", ".safetensors", ".pt", ".pth", ".csv", ".parquet")


def read_array(path: str | Path, expected: Collection[str] = ()) -> NamedColumns:
    """Reads numbers from a file.

    Large `.npy` files are mapped into memory rather than read. In tables, a column `id` holds names of the rows and a
    column `label` their classes; a `.csv` may have a header or not; a `.parquet` may hold its numbers in columns or as
    lists in one column.

    Args:
        path: A `.npy`, `.npz`, `.safetensors`, `.pt`, `.csv` or `.parquet` file; of several arrays in one file,
            `FILE:KEY` names one.
        expected: Names that the header of a table may have.

    Raises:
        DataError: If the file is missing, damaged, or holds something else than numbers; the text names the place.
        ConfigError: If it is of another kind, or the key is missing or unknown.
    """
    file, key = _file_and_key(path)
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"{file.name!r} is no file of numbers; expected {', '.join(SUFFIXES)}")
    with _readable(file):
        if file.suffix == ".csv":
            return from_csv(file, expected)
        if file.suffix == ".parquet":
            return from_parquet(file)
        if file.suffix in (".pt", ".pth"):
            return from_torch(file, key)
        return NamedColumns(_numbers(file, _arrays(file, key)))


def read_names(path: str | Path) -> list[str]:
    """Reads names, one a line.

    Raises:
        DataError: If the file is missing or empty, or a line in between is; the text gives its number.
    """
    file = _existing(Path(path).expanduser())
    names = read_lines(file, DataError)
    for number, name in enumerate(names, start=1):
        if not name:
            raise DataError(f"{file}, line {number} is empty; expected one name a line")
    if not names:
        raise DataError(f"{file} is empty; expected one name a line")
    return names


def read_labels(path: str | Path) -> Tensor | list[str]:
    """Reads labels: numbers from an array file, texts from a `.txt` with one a line or a table with a column `label`.

    Args:
        path: The file; a table of one column needs no header.

    Raises:
        DataError: If the file is missing or damaged.
        ConfigError: If it is of another kind, or a table without a column `label`.
    """
    file, _ = _file_and_key(path)
    if file.suffix == ".txt":
        return read_names(file)
    with _readable(file):
        if file.suffix == ".csv":
            return labels_from_csv(file)
        if file.suffix == ".parquet":
            return labels_from_parquet(file)
    found = read_array(path).values
    return found.squeeze(-1) if found.ndim == 2 else found


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Says of a file that a library cannot read what file it is."""
    try:
        yield
    except VimlightError:
        # Some of them are of the kinds below too.
        raise
    except (*ARRAY_FAULTS, *WEIGHT_FAULTS) as error:
        raise DataError(f"{file} is damaged or no {file.suffix} file: {' '.join(str(error).split())}") from error


def _file_and_key(path: str | Path) -> tuple[Path, str | None]:
    file = Path(path).expanduser()
    if file.exists() or ":" not in str(file):
        return _existing(file), None
    # A key may hold colons and slashes itself, as names of models do.
    parts = str(file).split(":")
    cuts = [(Path(":".join(parts[:end])), ":".join(parts[end:])) for end in range(1, len(parts))]
    name, key = next((cut for cut in cuts if cut[0].is_file()), cuts[-1])
    return _existing(name), key


def _existing(file: Path) -> Path:
    if file.is_file():
        return file
    raise DataError(f"file {str(file)!r} {absence(file)}")


def _arrays(file: Path, key: str | None) -> Any:
    if file.suffix == ".npy":
        # A private mapping: nothing is read before it is used, and nothing written back.
        return load_array(file, "c")
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as arrays:
            return arrays[_chosen(file, key, list(arrays.keys()))]
    with safe_open(file, framework="pt") as tensors:
        return tensors.get_tensor(_chosen(file, key, list(tensors.keys())))


def _chosen(file: Path, key: str | None, keys: Sequence[str]) -> str:
    if key is not None and key in keys:
        return key
    if key is None and len(keys) == 1:
        return keys[0]
    found = f"holds {len(keys)} arrays" if key is None else f"has no array {key!r}"
    raise ConfigError(f"{file.name} {found}; choose with {file.name}:KEY, one of: {', '.join(sorted(keys)[:10])}")


def _numbers(file: Path, array: Any) -> Tensor:
    if isinstance(array, Tensor):
        return array
    if array.dtype.kind not in "fiu":
        raise DataError(f"{file} holds {array.dtype}, not numbers")
    native = array if array.dtype.isnative and array.dtype.kind != "u" else array.astype(_signed(array.dtype))
    return torch.from_numpy(native)


def _signed(dtype: Any) -> Any:
    return np.dtype(np.int64) if dtype.kind == "u" else dtype.newbyteorder("=")
