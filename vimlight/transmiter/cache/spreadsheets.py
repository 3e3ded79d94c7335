"""Numbers, ids and labels from `.csv` and `.parquet` tables, read row by row or column by column."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vimlight.errors import ConfigError, DataError, shown, unknown_name
from vimlight.files.parquet import opened_parquet
from vimlight.files.text import check_header, csv_rows

__all__ = ["NamedColumns", "from_csv", "from_parquet", "labels_from_csv", "labels_from_parquet"]

_ID, _LABEL = "id", "label"


@dataclass(frozen=True)
class NamedColumns:
    """What a file holds.

    Attributes:
        values: `(N, K)`, or what axes an array file has.
        names: Names of the K columns, where the file is a table with a header.
        ids: What a column `id` says.
        labels: What a column `label` says, empty where it says nothing, or numbers of classes.
        classes: Names of the task classes, where the file has them.
        partitions: Named sets of their numbers, where it has them.
    """

    values: Tensor
    names: tuple[str, ...] | None = None
    ids: list[str] | None = None
    labels: list[str] | Tensor | None = None
    classes: tuple[str, ...] | None = None
    partitions: dict[str, list[int]] = field(default_factory=dict)


def from_csv(file: Path, expected: Collection[str] = ()) -> NamedColumns:
    """Reads a table whose header, if it has one, names the columns.

    Args:
        file: The table.
        expected: Names that tell a header from a row of numbers, for classes that are called by numbers.

    Raises:
        DataError: If it is no text, a cell is no number or a row has too few or too many; the text names both.
    """
    rows = csv_rows(file, DataError)
    first = next(rows)
    cells = [cell.strip() for cell in first]
    header = cells if set(cells) == set(expected) or not all(map(_is_number, cells)) else None
    special, plain = _split(file, header) if header else ({}, list(range(len(first))))
    texts: dict[str, list[str]] = {name: [] for name in special}
    numbers = []
    for number, row in enumerate(rows if header else chain([first], rows)):
        _check_width(file, number, row, first)
        numbers.append(_parsed(file, number, [row[column] for column in plain], header and _named(header, plain)))
        for name, column in special.items():
            texts[name].append(row[column].strip())
    if not numbers:
        raise DataError(f"{file} has a header but no rows")
    names = tuple(_named(header, plain)) if header else None
    return NamedColumns(torch.from_numpy(np.stack(numbers)), names, texts.get(_ID), texts.get(_LABEL))


def labels_from_csv(file: Path) -> list[str]:
    """Reads the column `label`, or the only one, which needs no header.

    Raises:
        ConfigError: If there are several columns, but none of that name.
        DataError: If it is no text, or a row has too few or too many cells.
    """
    header, *rows = [[cell.strip() for cell in row] for row in csv_rows(file, DataError)]
    for number, row in enumerate(rows):
        _check_width(file, number, row, header)
    if _LABEL in header:
        return [row[header.index(_LABEL)] for row in rows]
    if len(header) == 1:
        return [row[0] for row in (header, *rows)]
    raise ConfigError(f"{file} has no column {_LABEL!r}")


def from_parquet(file: Path) -> NamedColumns:
    """Reads a table that has its numbers in columns, or as lists in one column.

    Raises:
        ConfigError: If the extra is not installed.
        DataError: If a column holds something else, or lists of different lengths.
    """
    with opened_parquet(file, DataError) as table:
        special, plain = _split(file, table.column_names)
        texts = {name: _texts(table.column(column)) for name, column in special.items()}
        names, columns = _named(table.column_names, plain), [table.column(column) for column in plain]
        if len(columns) == 1 and columns[0].type.num_fields:
            return NamedColumns(_stacked(file, names[0], columns[0]), None, texts.get(_ID), texts.get(_LABEL))
        arrays = [_column(file, name, column) for name, column in zip(names, columns, strict=True)]
        values = torch.from_numpy(np.stack(arrays, axis=1))
        return NamedColumns(values, tuple(names), texts.get(_ID), texts.get(_LABEL))


def labels_from_parquet(file: Path) -> list[str]:
    """Reads the column `label`, or the only one.

    Raises:
        ConfigError: If the extra is not installed.
        UnknownNameError: If there are several columns, but none of that name.
    """
    with opened_parquet(file, DataError) as table:
        if _LABEL not in table.column_names and len(table.column_names) != 1:
            raise unknown_name(f"column of {file}", _LABEL, table.column_names)
        return _texts(table.column(_LABEL if _LABEL in table.column_names else 0))


def _check_width(file: Path, number: int, row: Sequence[str], first: Sequence[str]) -> None:
    if len(row) != len(first):
        raise DataError(f"{file}, row {number} has {len(row)} columns, expected {len(first)}")


def _split(file: Path, header: Sequence[str]) -> tuple[dict[str, int], list[int]]:
    """Returns where the columns `id` and `label` are, and where all others.

    Raises:
        DataError: If a name occurs twice, or there are no others.
    """
    check_header(file, header, DataError)
    special = {name: header.index(name) for name in (_ID, _LABEL) if name in header}
    plain = [column for column in range(len(header)) if column not in special.values()]
    if not plain:
        raise DataError(f"{file} has no column of numbers")
    return special, plain


def _named(header: Sequence[str], columns: Sequence[int]) -> list[str]:
    return [header[column] for column in columns]


def _parsed(file: Path, number: int, cells: list[str], names: Sequence[str] | None) -> NDArray[np.float32]:
    try:
        return np.array(cells, dtype=np.float32)
    except ValueError:
        column = next(column for column, cell in enumerate(cells) if not _is_number(cell))
        where = shown(names[column]) if names else str(column)
        raise DataError(f"{file}, row {number}, column {where}: {shown(cells[column])} is no number") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _texts(column: Any) -> list[str]:
    """Returns a column as texts, empty where a value is missing."""
    values = column.to_pylist()
    return ["" if value is None or value != value else str(value) for value in values]


def _column(file: Path, name: str, column: Any) -> NDArray[np.float32]:
    # A missing value becomes one that is not finite, which is refused with its row.
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "fiu":
        raise DataError(f"{file}, row 0, column {name!r}: {column[0].as_py()!r} is no number")
    return values.astype(np.float32)


def _stacked(file: Path, name: str, column: Any) -> Tensor:
    lists = column.combine_chunks()
    lengths = [len(value) if value.is_valid else 0 for value in lists]
    if not lengths[0]:
        raise DataError(f"{file}, row 0: {name!r} has no numbers")
    for row, length in enumerate(lengths):
        if length != lengths[0]:
            raise DataError(f"{file}, row {row}: {name!r} has {length} numbers, expected {lengths[0]}")
    return torch.from_numpy(_column(file, name, lists.flatten()).reshape(len(lengths), -1))
