"""Text that others wrote: lines and comma-separated cells read with suspicion, and words shown as no more than that."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vimlight.errors import VimlightError, shown

__all__ = ["check_header", "csv_rows", "is_file", "markdown_text", "read_lines", "read_text"]

# Spreadsheets and editors mark UTF-8 by three bytes in front.
_ENCODING = "utf-8-sig"


def is_file(path: Path) -> bool:
    """Tells whether a file is there; one whose name no file can have is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_text(file: Path, error: type[VimlightError]) -> str:
    """Returns the text of a file in UTF-8.

    Args:
        file: The file.
        error: What to raise.

    Raises:
        VimlightError: `error`, if it cannot be read or is no text; the text names the line.
    """
    try:
        with file.open(encoding=_ENCODING) as stream:
            return "".join(_lines(stream, file, error))
    except UnicodeDecodeError as cause:
        raise error(_no_text(file)) from cause
    except OSError as cause:
        raise error(f"{file} cannot be read: {cause.strerror}") from cause


def read_lines(file: Path, error: type[VimlightError]) -> list[str]:
    """Returns the lines of a text file, without white space around them; empty ones at the end do not count.

    Args:
        file: The file.
        error: What to raise.

    Raises:
        VimlightError: `error`, if it cannot be read or is no text; the text names the line.
    """
    text = read_text(file, error).rstrip()
    # Not `splitlines`, for which names may hold ends of lines.
    return [line.strip() for line in text.split("\n")] if text else []


def csv_rows(file: Path, error: type[VimlightError]) -> Iterator[list[str]]:
    """Yields the cells of each row of a table of comma-separated values; empty lines are left out.

    Quotes that do not match are refused: a cell would hold what stands in the rows behind it.

    Args:
        file: The file, in UTF-8.
        error: What to raise.

    Raises:
        VimlightError: `error`, if it cannot be read, is no text, has no row, or a cell that is too long or not ended;
            the text names the line.
    """
    line, empty = 1, True
    try:
        with file.open(newline="", encoding=_ENCODING) as stream:
            reader = csv.reader(_lines(stream, file, error), strict=True)
            while (row := next(reader, None)) is not None:
                line = reader.line_num + 1
                if row:
                    empty = False
                    yield row
    except UnicodeDecodeError as cause:
        raise error(_no_text(file)) from cause
    except csv.Error as cause:
        raise error(f"{file}, row in line {line} is damaged: {cause}; is a quote missing?") from cause
    except OSError as cause:
        raise error(f"{file} cannot be read: {cause.strerror}") from cause
    if empty:
        raise error(f"{file} is empty")


def check_header(file: Path, names: Sequence[str], error: type[VimlightError]) -> None:
    """Checks that the columns of a table have names of their own.

    Args:
        file: The table.
        names: The names.
        error: What to raise.

    Raises:
        VimlightError: `error`, if two are called alike.
    """
    seen: dict[str, int] = {}
    for column, name in enumerate(names):
        if seen.setdefault(name, column) != column:
            raise error(f"{file}: column {shown(name)} occurs twice, in columns {seen[name]} and {column}")


def markdown_text(text: str) -> str:
    """Returns a text, which may be a stranger's, so that Markdown shows its letters and takes none for a mark.

    Emphasis alone may come of it. Line breaks become blanks.
    """
    return re.sub(r"[\\|`<\[\]]|&(?=#?\w+;)|^[#>]|^[+-](?=\s)", r"\\\g<0>", " ".join(text.split()))


def _lines(stream: Iterable[str], file: Path, error: type[VimlightError]) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        if "\0" in line:
            raise error(f"{file}, line {number} holds a NUL byte: it is damaged, or no text in UTF-8")
        yield line


def _no_text(file: Path) -> str:
    """Finds the line that is no UTF-8; text is decoded in larger pieces."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode(_ENCODING)
            except UnicodeDecodeError as cause:
                return f"{file}, line {number} is no UTF-8 (byte 0x{line[cause.start]:02x}); save the file as UTF-8"
    return f"{file} is no UTF-8; save it as UTF-8"
