"""Files that list images: lines of text, JSON, and the check that all that is listed is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vimlight.errors import DataError, cut
from vimlight.files import text
from vimlight.files.absent import absence
from vimlight.files.json_text import json_of

__all__ = ["check_files", "label_of", "read_json", "read_lines"]

_DIGITS = 19
# What a message shows of a path; file systems take more, and lists of files any length.
_PATH = 500


def read_lines(file: Path) -> list[str]:
    """Returns the lines of a text file, without white space around them; empty ones at the end do not count.

    Raises:
        DataError: If it is missing or no text.
    """
    return text.read_lines(_existing(file), DataError)


def read_json(file: Path) -> Any:
    """Returns what a JSON file holds.

    Raises:
        DataError: If it is missing or malformed.
    """
    try:
        return json_of(_existing(file).read_bytes(), str(file), DataError)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error


def label_of(cell: str, count: int) -> int | None:
    """Returns the class number that a text says, nothing if it is none below `count`."""
    # More digits than these are no number of Python's.
    known = cell.isdecimal() and len(cell) < _DIGITS and int(cell) < count
    return int(cell) if known else None


def check_files(listing: Path, files: Sequence[Path], what: str = "images") -> None:
    """Checks that all files exist that a file lists.

    Args:
        listing: The file that lists them.
        files: The files.
        what: What a message calls them.

    Raises:
        DataError: If some do not; the text counts them and names the first.
    """
    missing = [file for file in files if not text.is_file(file)]
    if missing:
        first = cut(missing[0], _PATH)
        raise DataError(f"{listing}: {len(missing)} of {len(files)} {what} do not exist; the first: {first}")


def _existing(file: Path) -> Path:
    if text.is_file(file):
        return file
    raise DataError(f"{cut(file, _PATH)} {absence(file)}")
