"""Image files listed in a CSV or parquet table."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vimlight.data.sources import SOURCES
from vimlight.data.tables import FileTable, Source
from vimlight.errors import ConfigError, DataError, unknown_name

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
    classes: list[str] | None = None,
) -> Source:
    """Opens a table with one image per row.

    Args:
        path: The table, `.csv` or `.parquet` (extra `parquet`).
        root: Folder that the paths of images start from; by default that of the table.
        path_column: Column of the image paths.
        label_column: Column of the class names.
        number_columns: Columns of real numbers; with them the data set is one for regression and has no classes.
        split_column: Column with `train`, `val` or `test`; without it all rows are for training.
        separator: Stands between several labels of one image; one cell that has it makes the data set multi-label.
        classes: The class names in order; by default those found, in alphabetical order.

    Raises:
        DataError: If the table or an image is missing, a number is none, or no row is for training.
        UnknownNameError: If there is no such column, or a label or split that does not exist.
    """
    file = Path(path).expanduser()
    rows = _read(file)
    _check_columns(file, rows, (path_column, *(number_columns or [label_column])))
    if number_columns:
        kind, names, targets = "regression", tuple(number_columns), _numbers(file, rows, number_columns)
    else:
        kind, names, targets = _classes(file, rows[label_column], separator, classes)
    images = _existing(file, rows[path_column], Path(root).expanduser() if root else file.parent)
    tables = {
        split: FileTable([images[index] for index in indices], targets[indices], file.parent)
        for split, indices in _by_split(file, rows.get(split_column), len(targets)).items()
    }
    if "train" not in tables:
        raise DataError(f"{file}: no row says 'train' in the column {split_column!r}")
    return Source(file.stem, kind, names, **tables)


def _read(file: Path) -> dict[str, list[Any]]:
    if not file.is_file():
        raise DataError(f"manifest {file} does not exist")
    if file.suffix == ".parquet":
        return _read_parquet(file)
    if file.suffix != ".csv":
        raise ConfigError(f"manifest {file}: expected .csv or .parquet")
    with file.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    return {column: [row[column] for row in rows] for column in reader.fieldnames or ()}


def _read_parquet(file: Path) -> dict[str, list[Any]]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("parquet manifests need an extra: pip install 'vimlight[parquet]'") from error
    return dict(pyarrow.parquet.read_table(file).to_pydict())


def _check_columns(file: Path, rows: dict[str, list[Any]], columns: Sequence[str]) -> None:
    for column in columns:
        if column not in rows:
            raise unknown_name(f"column of {file}", column, rows)
    if not rows[columns[0]]:
        raise DataError(f"{file} has no rows")


def _numbers(file: Path, rows: dict[str, list[Any]], columns: Sequence[str]) -> Tensor:
    targets = torch.empty(len(rows[columns[0]]), len(columns))
    for place, column in enumerate(columns):
        for row, cell in enumerate(rows[column]):
            try:
                targets[row, place] = float(cell)
            except (TypeError, ValueError):
                raise DataError(f"{file}, row {row + 1}: column {column!r} needs a number, got {cell!r}") from None
    return targets


def _classes(
    file: Path, column: Sequence[Any], separator: str | None, classes: list[str] | None
) -> tuple[str, tuple[str, ...], Tensor]:
    labels = [str(label) for label in column]
    several = separator is not None and any(separator in label for label in labels)
    cells = [[part for part in label.split(separator) if part] if several else [label] for label in labels]
    names = tuple(classes or sorted({part for cell in cells for part in cell}))
    return "multilabel" if several else "classification", names, _targets(file, cells, names, several)


def _targets(file: Path, cells: list[list[str]], names: tuple[str, ...], several: bool) -> Tensor:
    index = {name: label for label, name in enumerate(names)}
    for row, cell in enumerate(cells, start=1):
        for name in cell:
            if name not in index:
                raise unknown_name(f"label in row {row} of {file}", name, names)
    if not several:
        return torch.tensor([index[cell[0]] for cell in cells])
    targets = torch.zeros(len(cells), len(names), dtype=torch.long)
    for row, cell in enumerate(cells):
        targets[row, [index[name] for name in cell]] = 1
    return targets


def _existing(file: Path, paths: list[Any], root: Path) -> list[Path]:
    images = [root / str(path) for path in paths]
    missing = [image for image in images if not image.is_file()]
    if missing:
        raise DataError(f"{file}: {len(missing)} of {len(images)} images do not exist; the first: {missing[0]}")
    return images


def _by_split(file: Path, splits: list[Any] | None, count: int) -> dict[str, list[int]]:
    if splits is None:
        return {"train": list(range(count))}
    rows: dict[str, list[int]] = defaultdict(list)
    for index, split in enumerate(splits):
        if split not in SPLITS:
            raise unknown_name(f"split in row {index + 1} of {file}", str(split), SPLITS)
        rows[SPLITS[split]].append(index)
    return dict(rows)
