"""Columns of tables in files: CSV and parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vimlight.errors import ConfigError, DataError, listed
from vimlight.files.absent import absence
from vimlight.files.parquet import opened_parquet
from vimlight.files.text import check_header, csv_rows

__all__ = ["read_columns"]


def read_columns(file: Path) -> dict[str, Sequence[Any]]:
    """Reads a table whose header names its columns.

    Args:
        file: A `.csv` file, or a `.parquet` file (extra `parquet`).

    Returns:
        The cells of each column: texts in CSV, values of any type in parquet.

    Raises:
        ConfigError: If the file is of another kind, or the extra is not installed.
        DataError: If it is missing, damaged or without rows, two columns have one name, or a row has too few or too
            many cells.
    """
    if not file.is_file():
        raise DataError(f"manifest {file} {absence(file)}")
    if file.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"manifest {file}: expected .csv or .parquet")
    return _from_parquet(file) if file.suffix == ".parquet" else _from_csv(file)


def _from_csv(file: Path) -> dict[str, Sequence[Any]]:
    header, *rows = csv_rows(file, DataError)
    names = [name.strip() for name in header]
    check_header(file, names, DataError)
    if not rows:
        raise DataError(f"{file} has no rows")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise DataError(f"{file}, row {number} has {len(row)} cells, expected {len(names)}: {listed(names)}")
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def _from_parquet(file: Path) -> dict[str, Sequence[Any]]:
    with opened_parquet(file, DataError) as table:
        return {name: table.column(name).to_pylist() for name in table.column_names}
