"""Files that list images: lines of text, JSON, and the check that all that is listed is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vimlight.errors import DataError, nearest
from vimlight.files.json_text import json_of

__all__ = ["check_files", "read_json", "read_lines"]


def read_lines(file: Path) -> list[str]:
    """Returns the lines of a text file, without white space around them; empty ones at the end do not count.

    Raises:
        DataError: If it is missing or no text.
    """
    return [line.strip() for line in _text(file).rstrip().splitlines()]


def read_json(file: Path) -> Any:
    """Returns what a JSON file holds.

    Raises:
        DataError: If it is missing or malformed.
    """
    return json_of(_text(file), str(file), DataError)


def check_files(listing: Path, files: Sequence[Path], what: str = "images") -> None:
    """Checks that all files exist that a file lists.

    Args:
        listing: The file that lists them.
        files: The files.
        what: What a message calls them.

    Raises:
        DataError: If some do not; the text counts them and names the first.
    """
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise DataError(f"{listing}: {len(missing)} of {len(files)} {what} do not exist; the first: {missing[0]}")


def _text(file: Path) -> str:
    if not file.is_file():
        beside = [path.name for path in file.parent.iterdir() if path.is_file()] if file.parent.is_dir() else []
        close = nearest(file.name, beside, 1)
        raise DataError(f"{file} does not exist" + (f"; did you mean {close[0]}?" if close else ""))
    try:
        # Spreadsheets and editors mark UTF-8 by three bytes in front.
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}") from error
