"""Image files listed in a CSV or parquet table."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vimlight.data.classes import Classes, choose_classes, vocabulary
from vimlight.data.columns import read_columns
from vimlight.data.labels import has_several, label_flags, label_numbers, read_labels
from vimlight.data.listings import check_files
from vimlight.data.source import Source
from vimlight.data.sources import SOURCES
from vimlight.data.tables import FileTable
from vimlight.errors import ConfigError, DataError, shown, unknown_name
from vimlight.tasks.targets import FLAGS, LABELS, NUMBERS

__all__ = ["manifest"]

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@SOURCES.register("manifest")
def manifest(
    path: str,
    root: str | None = None,
    path_column: str = "path",
    label_column: str = "label",
    number_columns: list[str] | None = None,
    split_column: str = "split",
    separator: str | None = "|",
    kind: str | None = None,
    classes: Classes | None = None,
) -> Source:
    """Opens a table with one image per row.

    White space around labels does not count. A cell that is empty, or says `NA`, `nan` or what else pandas reads as
    missing, holds no label, unless `classes` names it: fine where there may be several labels, an error where one is
    due. A row that repeats another is left out with a warning.

    Args:
        path: The table, `.csv` or `.parquet` (extra `parquet`).
        root: Folder that the paths of images start from; by default that of the table.
        path_column: Column of the image paths.
        label_column: Column of the class names.
        number_columns: Columns of real numbers; with them the data set is one for regression and has no classes.
        split_column: Column with `train`, `val` or `test`; without it all rows are for training.
        separator: Stands between several labels of one image; in parquet, cells may be lists instead.
        kind: Kind of task that the labels are for, such as `classification`, `multilabel` or `ordinal`. If nothing is
            said, one cell with the separator or a list makes the data set multi-label.
        classes: Some or all of the class names, in the order that they are to have; by default those found: by value
            where all of them are numbers, else in alphabetical order.

    Raises:
        ConfigError: If the kind goes with other columns.
        DataError: If the table, an image or a label is missing, a number is none, a row has too few or too many cells,
            an image is in two splits or has two labels, or no row is for training.
        UnknownNameError: If there is no such column, kind or class, or a split that does not exist.
    """
    file = Path(path).expanduser()
    rows = read_columns(file)
    for column in (path_column, *(number_columns or [label_column])):
        if column not in rows:
            raise unknown_name(f"column of {file}", column, rows)
    kind = _kind(kind, number_columns, rows.get(label_column, ()), separator)
    if number_columns:
        names, targets = tuple(number_columns), _numbers(file, rows, number_columns)
    else:
        names, targets = _labels(file, rows[label_column], kind, separator, classes)
    images = _existing(file, rows[path_column], Path(root).expanduser() if root else file.parent)
    splits = _splits(file, rows.get(split_column), len(images))
    tables = {
        split: FileTable([images[row] for row in kept], targets[kept], file.parent)
        for split, kept in _rows_of(file, images, splits, targets).items()
    }
    if "train" not in tables:
        raise DataError(f"{file}: no row says 'train' in the column {split_column!r}")
    return choose_classes(Source(file.stem, kind, names, **tables), None if number_columns else classes)


def _kind(kind: str | None, number_columns: list[str] | None, labels: Sequence[Any], separator: str | None) -> str:
    """Returns the kind of task asked for, or else the one that the columns look like."""
    from vimlight.tasks import TASKS

    if kind is None and number_columns:
        return "regression"
    if kind is None:
        return "multilabel" if has_several(labels, separator) else "classification"
    fitting = [name for name, task in TASKS.items() if task.layout in (LABELS, FLAGS, NUMBERS)]
    if kind not in fitting:
        raise unknown_name("kind of a manifest", kind, fitting)
    if (TASKS[kind].layout is NUMBERS) != bool(number_columns):
        what = "needs number_columns" if not number_columns else "has classes, number_columns have none; leave them out"
        raise ConfigError(f"a manifest of kind {kind!r} {what}")
    return kind


def _numbers(file: Path, rows: Mapping[str, Sequence[Any]], columns: Sequence[str]) -> Tensor:
    targets = torch.empty(len(rows[columns[0]]), len(columns))
    for place, column in enumerate(columns):
        for row, cell in enumerate(rows[column]):
            try:
                targets[row, place] = float(cell)
            except (TypeError, ValueError, OverflowError):
                targets[row, place] = torch.nan
            if not targets[row, place].isfinite():
                raise DataError(f"{file}, row {row + 1}: column {column!r} needs a number, got {shown(cell)}")
    return targets


def _labels(
    file: Path, column: Sequence[Any], kind: str, separator: str | None, classes: Classes | None
) -> tuple[tuple[str, ...], Tensor]:
    from vimlight.tasks import TASKS

    several = TASKS[kind].layout is FLAGS
    named = tuple(map(str, classes or ()))
    cells = read_labels(column, str(file), separator=separator if several else None, named=named)
    names = vocabulary(set(chain.from_iterable(cells)), classes, str(file))
    return names, (label_flags if several else label_numbers)(cells, names, str(file))


def _existing(file: Path, paths: Sequence[Any], root: Path) -> list[Path]:
    images = [root / str(path) for path in paths]
    check_files(file, images)
    return images


def _splits(file: Path, splits: Sequence[Any] | None, count: int) -> list[str]:
    if splits is None:
        return ["train"] * count
    names = [str(split).strip() for split in splits]
    for row, name in enumerate(names, start=1):
        if name not in SPLITS:
            raise unknown_name(f"split in row {row} of {file}", name, SPLITS)
    return [SPLITS[name] for name in names]


def _rows_of(file: Path, images: Sequence[Path], splits: Sequence[str], targets: Tensor) -> dict[str, list[int]]:
    """Returns the rows of each split, each image once."""
    rows: dict[str, list[int]] = defaultdict(list)
    seen: dict[str, int] = {}
    repeated = []
    for row, (image, split) in enumerate(zip(images, splits, strict=True)):
        first = seen.setdefault(os.path.normpath(image.absolute()), row)
        if first == row:
            rows[split].append(row)
            continue
        where = f"{file}: rows {first + 1} and {row + 1} are of one image, {image}"
        if splits[first] != split:
            raise DataError(f"{where}, but one says {shown(splits[first])} and the other {shown(split)}; leave one out")
        if not torch.equal(targets[first], targets[row]):
            raise DataError(f"{where}, but say different things of it; mend them, or join labels in one row: a|b")
        repeated.append(where)
    if repeated:
        warnings.warn(f"left out {len(repeated)} repeated rows; the first: {repeated[0]}", stacklevel=3)
    return dict(rows)
