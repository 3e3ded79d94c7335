"""Columns of tables in files: CSV and parquet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vimlight.errors import ConfigError, DataError

__all__ = ["read_columns"]


def read_columns(file: Path) -> dict[str, Sequence[Any]]:
    """Reads a table whose header names its columns.

    Args:
        file: A `.csv` file, or a `.parquet` file (extra `parquet`).

    Returns:
        The cells of each column: texts in CSV, values of any type in parquet.

    Raises:
        ConfigError: If the file is of another kind, or the extra is not installed.
        DataError: If it is missing or damaged, two columns have one name, or a row has too few or too many cells.
    """
    if not file.is_file():
        raise DataError(f"manifest {file} does not exist")
    if file.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"manifest {file}: expected .csv or .parquet")
    try:
        return _from_parquet(file) if file.suffix == ".parquet" else _from_csv(file)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{file} is damaged or no {file.suffix} file: {' '.join(str(error).split())}") from error


def _from_csv(file: Path) -> dict[str, Sequence[Any]]:
    # Spreadsheets mark UTF-8 by three bytes in front.
    with file.open(newline="", encoding="utf-8-sig") as stream:
        header, *rows = [row for row in csv.reader(stream) if row] or [[]]
    names = [name.strip() for name in header]
    _check_header(file, names)
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise DataError(f"{file}, row {number} has {len(row)} cells, expected {len(names)}: {', '.join(names)}")
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def _from_parquet(file: Path) -> dict[str, Sequence[Any]]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("parquet manifests need an extra: pip install 'vimlight[parquet]'") from error
    table = pyarrow.parquet.read_table(file)
    _check_header(file, table.column_names)
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _check_header(file: Path, names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"{file}: column {twice[0]!r} occurs twice")
