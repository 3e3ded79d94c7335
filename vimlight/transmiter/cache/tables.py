"""Arrays, names and labels from the files that people have."""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vimlight.errors import ConfigError, DataError, nearest, unknown_name

__all__ = ["SUFFIXES", "NamedColumns", "read_array", "read_labels", "read_names"]

SUFFIXES = (".npy", ".npz", ".safetensors", ".csv", ".parquet")
ID, LABEL = "id", "label"


@dataclass(frozen=True)
class NamedColumns:
    """What a file holds.

    Attributes:
        values: `(N, K)`, or what axes an array file has.
        names: Names of the K columns, where the file is a table with a header.
        ids: What a column `id` says.
        labels: What a column `label` says.
    """

    values: Tensor
    names: tuple[str, ...] | None = None
    ids: list[str] | None = None
    labels: list[str] | None = None


def read_array(path: str | Path) -> NamedColumns:
    """Reads numbers from a file.

    Large `.npy` files are mapped into memory rather than read. In tables, a column `id` holds names of the rows and a
    column `label` their classes; a `.csv` may have a header or not; a `.parquet` may hold its numbers in columns or as
    lists in one column.

    Args:
        path: A `.npy`, `.npz`, `.safetensors`, `.csv` or `.parquet` file; of several arrays in one file, `FILE:KEY`
            names one.

    Raises:
        DataError: If the file is missing, damaged, or holds something else than numbers; the text names the place.
        ConfigError: If it is of another kind, or the key is missing or unknown.
    """
    file, key = _file_and_key(path)
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"{file.name!r} is no file of numbers; expected {', '.join(SUFFIXES)}")
    with _readable(file):
        if file.suffix == ".csv":
            return _from_csv(file)
        if file.suffix == ".parquet":
            return _from_parquet(file)
        return NamedColumns(_numbers(file, _arrays(file, key)))


def read_names(path: str | Path) -> list[str]:
    """Reads names, one a line.

    Raises:
        DataError: If the file is missing or empty, or a line in between is; the text gives its number.
    """
    file = _existing(Path(path).expanduser())
    with _readable(file):
        names = [line.strip() for line in file.read_text(encoding="utf-8-sig").rstrip().splitlines()]
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
            return _csv_labels(file)
        if file.suffix == ".parquet":
            return _parquet_labels(file)
    found = read_array(path).values
    return found.squeeze(-1) if found.ndim == 2 else found


def _csv_labels(file: Path) -> list[str]:
    rows = [[cell.strip() for cell in row] for row in _csv_rows(file)]
    if LABEL in rows[0]:
        column = rows[0].index(LABEL)
        return [row[column] if column < len(row) else "" for row in rows[1:]]
    if all(len(row) == 1 for row in rows):
        return [row[0] for row in rows]
    raise ConfigError(f"{file} has no column {LABEL!r}")


def _parquet_labels(file: Path) -> list[str]:
    table = _parquet_table(file)
    if LABEL not in table.column_names and len(table.column_names) != 1:
        raise unknown_name(f"column of {file}", LABEL, table.column_names)
    column = table.column(LABEL if LABEL in table.column_names else 0)
    return [str(value) for value in column.to_pylist()]


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Says of a file that a library cannot read what file it is."""
    try:
        yield
    except (OSError, ValueError, EOFError, SafetensorError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} is damaged or no {file.suffix} file: {' '.join(str(error).split())}") from error


def _file_and_key(path: str | Path) -> tuple[Path, str | None]:
    file = Path(path).expanduser()
    if not file.exists() and ":" in file.name:
        name, _, key = file.name.rpartition(":")
        return _existing(file.with_name(name)), key
    return _existing(file), None


def _existing(file: Path) -> Path:
    if file.is_file():
        return file
    siblings = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
    close = nearest(file.name, siblings, 1)
    raise DataError(f"file {str(file)!r} does not exist" + (f"; did you mean {close[0]!r}?" if close else ""))


def _arrays(file: Path, key: str | None) -> Any:
    if file.suffix == ".npy":
        # A private mapping: nothing is read before it is used, and nothing written back.
        return np.load(file, mmap_mode="c", allow_pickle=False)
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


def _from_csv(file: Path) -> NamedColumns:
    rows = _csv_rows(file)
    header = None if all(_is_number(cell) for cell in rows[0]) else [cell.strip() for cell in rows.pop(0)]
    width = len(header) if header is not None else len(rows[0])
    for number, row in enumerate(rows):
        if len(row) != width:
            raise DataError(f"{file}, row {number} has {len(row)} columns, expected {width}")
    if header is None:
        return NamedColumns(torch.from_numpy(_parsed(file, rows, None)))
    special, plain = _split_header(file, header)
    numbers = _parsed(file, [[row[column] for column in plain] for row in rows], [header[column] for column in plain])
    texts = {name: [row[column].strip() for row in rows] for name, column in special.items()}
    names = tuple(header[column] for column in plain)
    return NamedColumns(torch.from_numpy(numbers), names, texts.get(ID), texts.get(LABEL))


def _csv_rows(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        rows = [row for row in csv.reader(stream) if row]
    if not rows:
        raise DataError(f"{file} is empty")
    return rows


def _split_header(file: Path, header: Sequence[str]) -> tuple[dict[str, int], list[int]]:
    for column, name in enumerate(header):
        if header.index(name) != column:
            raise DataError(f"{file}: column {name!r} occurs twice, in columns {header.index(name)} and {column}")
    special = {name: header.index(name) for name in (ID, LABEL) if name in header}
    return special, [column for column in range(len(header)) if column not in special.values()]


def _parsed(file: Path, rows: Sequence[Sequence[str]], names: Sequence[str] | None) -> NDArray[np.float32]:
    try:
        return np.array([np.array(row, dtype=np.float32) for row in rows])
    except ValueError:
        place = ((row, column) for row, cells in enumerate(rows) for column, cell in enumerate(cells)
                 if not _is_number(cell))  # fmt: skip
        row, column = next(place)
        where = repr(names[column]) if names else str(column)
        raise DataError(f"{file}, row {row}, column {where}: {rows[row][column]!r} is no number") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parquet_table(file: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("parquet files need an extra: pip install 'vimlight[parquet]'") from error
    return pyarrow.parquet.read_table(file)


def _from_parquet(file: Path) -> NamedColumns:
    table = _parquet_table(file)
    special, plain = _split_header(file, table.column_names)
    texts = {name: [str(value) for value in table.column(column).to_pylist()] for name, column in special.items()}
    if not plain:
        raise DataError(f"{file} has no column of numbers")
    names = tuple(table.column_names[column] for column in plain)
    columns = [table.column(column) for column in plain]
    if len(columns) == 1 and columns[0].type.num_fields:
        return NamedColumns(_stacked(file, names[0], columns[0].to_pylist()), None, texts.get(ID), texts.get(LABEL))
    arrays = [_column(file, name, column) for name, column in zip(names, columns, strict=True)]
    return NamedColumns(torch.from_numpy(np.stack(arrays, axis=1)), names, texts.get(ID), texts.get(LABEL))


def _column(file: Path, name: str, column: Any) -> NDArray[np.float32]:
    values = [math.nan if value is None else value for value in column.to_pylist()]
    try:
        return np.array(values, dtype=np.float32)
    except (TypeError, ValueError):
        row = next(row for row, value in enumerate(values) if not isinstance(value, (int, float)))
        raise DataError(f"{file}, row {row}, column {name!r}: {values[row]!r} is no number") from None


def _stacked(file: Path, name: str, values: Iterable[Any]) -> Tensor:
    rows = [np.array([] if value is None else value, dtype=np.float32) for value in values]
    for number, row in enumerate(rows):
        if row.shape != rows[0].shape:
            raise DataError(f"{file}, row {number}: {name!r} has {row.size} numbers, expected {rows[0].size}")
    return torch.from_numpy(np.stack(rows))
