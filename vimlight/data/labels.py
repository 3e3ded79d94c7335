"""Labels as people write them, in cells of tables and columns of data sets, made into class numbers."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from vimlight.errors import DataError, shown, unknown_name

__all__ = ["MISSING", "has_several", "label_flags", "label_numbers", "read_labels"]

MISSING = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
     "NULL", "NaN", "None", "n/a", "nan", "null")
)  # fmt: skip
"""What stands in a cell without a label: the texts that pandas reads as missing."""

_WHOLE = re.compile(r"([+-]?\d+)(\.0+)?", re.ASCII)


def has_several(column: Iterable[Any], separator: str | None) -> bool:
    """Tells whether a column may hold several labels an image: a cell is a list, or has the separator."""
    return any(
        isinstance(cell, list | tuple) or (separator is not None and isinstance(cell, str) and separator in cell)
        for cell in column
    )


def read_labels(
    column: Sequence[Any], where: str, *, separator: str | None = None, named: Collection[str] = ()
) -> list[list[str]]:
    """Reads the labels of every row.

    White space around labels does not count, and composed and decomposed letters are the same. Where all labels are
    whole numbers, `1.0` is written `1`: it is what a spreadsheet makes of a column with a gap.

    Args:
        column: N cells: texts, numbers, truth values, or lists of them.
        where: What messages call the column's table.
        separator: What stands between several labels in a text.
        named: Names that are labels although they usually say that there is none; see `MISSING`.

    Returns:
        N lists of labels, empty where there is none.

    Raises:
        DataError: If a cell holds something else; the text gives its row.
    """
    missing = MISSING - set(named)
    rows = []
    for row, cell in enumerate(column, start=1):
        found = [text for entry in _entries(cell, separator) if (text := _text(entry, f"{where}, row {row}"))]
        wrong = [text for text in found if text in missing]
        if wrong and len(found) > 1:
            raise DataError(
                f"{where}, row {row}: {shown(wrong[0])} stands beside other labels; it says that there is none"
            )
        rows.append([] if wrong else found)
    return _without_zeros(rows)


def label_numbers(cells: Sequence[Sequence[str]], names: Sequence[str], where: str) -> Tensor:
    """Returns the class number of every row, `(N,)` int64.

    Args:
        cells: N lists of labels.
        names: C class names.
        where: What messages call the table.

    Raises:
        DataError: If a row has no label, or several; the text gives the row.
        UnknownNameError: If a label is no class.
    """
    for row, cell in enumerate(cells, start=1):
        if not cell:
            raise DataError(
                f"{where}, row {row} has no label; fill it in, or leave the row out. If images may have none, set "
                "kind: multilabel; a class that looks like none, such as NA, must stand in classes"
            )
        if len(cell) > 1:
            raise DataError(f"{where}, row {row} has {len(cell)} labels, expected one; or set kind: multilabel")
    index = _index(names)
    return torch.tensor([_number(index, cell[0], where, row) for row, cell in enumerate(cells, start=1)])


def label_flags(cells: Sequence[Sequence[str]], names: Sequence[str], where: str) -> Tensor:
    """Returns which classes every row has, `(N, C)` int64 of zeros and ones; see `label_numbers`.

    Raises:
        UnknownNameError: If a label is no class; the text gives the row.
    """
    index, flags = _index(names), torch.zeros(len(cells), len(names), dtype=torch.long)
    for row, cell in enumerate(cells, start=1):
        flags[row - 1, [_number(index, name, where, row) for name in cell]] = 1
    return flags


def _entries(cell: Any, separator: str | None) -> Sequence[Any]:
    if isinstance(cell, list | tuple):
        return cell
    return cell.split(separator) if separator is not None and isinstance(cell, str) else [cell]


def _text(value: Any, where: str) -> str:
    """Returns one label as text, empty where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value.strip())
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(value) if isinstance(value, bool) else str(int(value))
    raise DataError(f"{where}: {shown(value)} is no label; expected a text or a whole number")


def _without_zeros(rows: list[list[str]]) -> list[list[str]]:
    matches = {label: _WHOLE.fullmatch(label) for cell in rows for label in cell}
    if not all(matches.values()) or not any(match and match[2] for match in matches.values()):
        return rows
    return [[match[1] for label in cell if (match := matches[label])] for cell in rows]


def _index(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def _number(index: dict[str, int], name: str, where: str, row: int) -> int:
    if name not in index:
        raise unknown_name(f"label in row {row} of {where}", name, index)
    return index[name]
