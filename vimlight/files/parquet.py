"""Parquet tables, which need an extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vimlight.errors import ConfigError, VimlightError
from vimlight.files.text import check_header

__all__ = ["opened_parquet"]


@contextmanager
def opened_parquet(file: Path, error: type[VimlightError]) -> Iterator[Any]:
    """Opens a table of pyarrow, and says what pyarrow finds wrong with it while it is used.

    Args:
        file: The file.
        error: What to raise.

    Raises:
        ConfigError: If the extra is not installed.
        VimlightError: `error`, if it is damaged, has no row, two columns of one name, or values that Python has not.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as missing:
        raise ConfigError("parquet files need an extra: pip install 'vimlight[parquet]'") from missing
    # What pyarrow's own errors do not cover comes from values that Python's types have no room for.
    faults = (pyarrow.ArrowException, OSError, ValueError, OverflowError, TypeError, LookupError)
    try:
        table = pyarrow.parquet.read_table(file)
        check_header(file, table.column_names, error)
        if not table.num_rows:
            raise error(f"{file} has no rows")
        yield table
    except VimlightError:
        # Some of them are of the kinds below too.
        raise
    except faults as cause:
        raise error(f"{file} is damaged or no .parquet file: {' '.join(str(cause).split())}") from cause

