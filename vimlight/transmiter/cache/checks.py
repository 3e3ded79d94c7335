"""What is refused before it is stored: each error names the row, the column or the class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vimlight.errors import DataError, shown
from vimlight.transmiter.cache.text_head import TextHead

__all__ = ["check_class_names", "check_head", "check_ids", "check_labels", "check_partitions", "check_values"]


def check_class_names(class_names: Sequence[str], aux_names: Sequence[str]) -> None:
    """Checks that there are at least two columns and that no name is empty or occurs twice.

    Raises:
        DataError: If it is so; the text gives name and places.
    """
    names = [*class_names, *aux_names]
    if not class_names or len(names) < 2:
        raise DataError(f"a cache needs at least one task class and two classes in all, got {names}")
    seen: dict[str, int] = {}
    for column, name in enumerate(names):
        if not name.strip():
            raise DataError(f"class {column} has an empty name")
        if name in seen:
            kinds = ["task" if place < len(class_names) else "auxiliary" for place in (seen[name], column)]
            raise DataError(
                f"class name {name!r} occurs twice: as {kinds[0]} class in column {seen[name]} and as {kinds[1]} class "
                f"in column {column}"
            )
        seen[name] = column


def check_values(values: Tensor, what: str, first_row: int, ids: Sequence[str]) -> None:
    """Checks a block of features or logits: finite, and no row that says nothing.

    Args:
        values: `(n, V, K)`.
        what: `"features"` or `"logits"`.
        first_row: Row number of the block's first row.
        ids: Names of all rows.

    Raises:
        DataError: If a value is not finite, a feature vector is zero, or all logits of a row are equal.
    """
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        row, view, column = (~finite).nonzero()[0].tolist()
        value = values[row, view, column].item()
        raise DataError(f"{what}, {_place(first_row + row, ids, view, values)}, column {column}: {value} is not finite")
    silent = (values == 0).all(dim=2) if what == "features" else (values == values[..., :1]).all(dim=2)
    if bool(silent.any()):
        row, view = silent.nonzero()[0].tolist()
        fault = "all features are zero" if what == "features" else f"all logits equal {values[row, view, 0].item():g}"
        raise DataError(f"{what}, {_place(first_row + row, ids, view, values)}: {fault}; leave the image out")


def check_head(head: TextHead, width: int, num_logits: int) -> None:
    """Checks that a head fits the features and the classes.

    Raises:
        DataError: If it does not; the text gives both shapes.
    """
    if tuple(head.weights.shape) != (num_logits, width):
        raise DataError(
            f"the text head is {tuple(head.weights.shape)}, expected ({num_logits}, {width}): one row for each of "
            f"{num_logits} class names, task classes first, as wide as the features"
        )
    finite = torch.isfinite(head.weights).all(dim=1)
    if not bool(finite.all()):
        raise DataError(f"text head, row {int((~finite).nonzero()[0])}: not all values are finite")
    silent = (head.weights == 0).all(dim=1)
    if bool(silent.any()):
        raise DataError(f"text head, row {int(silent.nonzero()[0])}: all values are zero")


def check_labels(labels: Tensor, rows: int, num_classes: int, ids: Sequence[str]) -> None:
    """Checks that there is one label for each row, among the task classes.

    Raises:
        DataError: If it is not so; the text names the first bad row.
    """
    if tuple(labels.shape) != (rows,):
        raise DataError(f"labels are {tuple(labels.shape)}, expected ({rows},): one for each image")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"labels must be integers, the indices of the classes, got {labels.dtype}")
    outside = ((labels < 0) | (labels >= num_classes)).nonzero().flatten()
    if len(outside):
        row = int(outside[0])
        raise DataError(
            f"label {int(labels[row])} of row {row} (id {ids[row]!r}) is not among the {num_classes} task classes "
            f"0 to {num_classes - 1}"
        )


def check_ids(ids: Sequence[str]) -> None:
    """Checks that no sample id is empty, has a line break or occurs twice.

    Raises:
        DataError: If it is so; the text names the rows.
    """
    if not ids:
        raise DataError("a cache needs at least one image, got none")
    seen: dict[str, int] = {}
    for row, name in enumerate(ids):
        if not name or "\n" in name:
            raise DataError(f"id {name!r} of row {row} must be a text without line breaks")
        if (first := seen.setdefault(name, row)) != row:
            raise DataError(f"id {name!r} occurs twice: in rows {first} and {row}")


def check_partitions(partitions: Mapping[str, Sequence[int]], num_classes: int) -> None:
    """Checks that partitions consist of task classes, each once.

    Raises:
        DataError: If one does not.
    """
    for name, classes in partitions.items():
        for index in classes:
            if not 0 <= index < num_classes:
                raise DataError(f"partition {name!r}: class {index} is not among the {num_classes} task classes")
        if len(set(classes)) != len(classes):
            raise DataError(f"partition {name!r} names a class twice: {shown(list(classes))}")


def _place(row: int, ids: Sequence[str], view: int, values: Tensor) -> str:
    return f"row {row} (id {ids[row]!r})" + (f", view {view}" if values.shape[1] > 1 else "")
