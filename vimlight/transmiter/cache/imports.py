"""Caches from numbers that somebody else computed, as for a model that can only be queried."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from vimlight.errors import ConfigError, DataError, nearest
from vimlight.transmiter.cache.assembly import refuse_existing, write_cache
from vimlight.transmiter.cache.logit_cache import LogitCache
from vimlight.transmiter.cache.partitions import partition_indices
from vimlight.transmiter.cache.spreadsheets import NamedColumns
from vimlight.transmiter.cache.tables import read_array, read_labels, read_names
from vimlight.transmiter.cache.text_head import TextHead

__all__ = ["ImportFiles", "import_cache", "read_head"]

_WHOLE = re.compile(r"(-?\d+)(?:\.0+)?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class ImportFiles:
    """The files that a cache is made of; see `read_array` for their kinds.

    Attributes:
        features: `(N, E)`, or `(N, V, E)` for V views; with a head.
        logits: `(N, M)` or `(N, V, M)`, instead of features; a table's header may name the classes.
        head: `(M, E)`: text features of the classes.
        classes: The C task classes, one a line; by default those that the header of a table of logits names, or
            that a `.pt` file has beside its arrays.
        aux: The auxiliary classes, one a line.
        labels: Class indices or names of the N images, as an array, a column `label`, or one a line.
        ids: Names of the N images, one a line; by default a column `id`, or else the row numbers.
    """

    features: str | None = None
    logits: str | None = None
    head: str | None = None
    classes: str | None = None
    aux: str | None = None
    labels: str | None = None
    ids: str | None = None


def import_cache(
    path: str | os.PathLike[str],
    files: ImportFiles,
    *,
    split: str,
    model: str = "imported",
    scale: float = 100.0,
    bias: float = 0.0,
    partitions: Mapping[str, str | Sequence[int | str]] | None = None,
    overwrite: bool = False,
) -> LogitCache:
    """Makes a cache of features or bare logits from files.

    Args:
        path: The cache's directory, which must not exist yet.
        files: The files.
        split: The split, such as `"train"`.
        model: The model's name.
        scale: Factor of the cosines of features and head.
        bias: What is added to them.
        partitions: Named sets of classes; see `class_indices`.
        overwrite: Whether a cache of that name is replaced.

    Returns:
        The cache, opened.

    Raises:
        CacheError: If the name is taken.
        ConfigError: If files are missing or do not go together.
        DataError: If a number, a name or a count is not as it should be; the text names row and column.
    """
    refuse_existing(Path(path).expanduser(), overwrite)
    if (files.features is None) == (files.logits is None) or (files.features is None) != (files.head is None):
        raise ConfigError("give either --logits FILE, or --features FILE with --head FILE")
    aux_names = read_names(files.aux) if files.aux else []
    given = read_names(files.classes) if files.classes else []
    found = read_array(files.logits or files.features or "", expected=[*given, *aux_names])
    class_names = given or _class_names(files, found, aux_names)
    values = found.values if files.features else _in_order(files, found, [*class_names, *aux_names])
    head = read_head(files.head, scale, bias) if files.head else None
    return write_cache(
        path,
        logits=None if head else values,
        features=values if head else None,
        head=head,
        class_names=class_names,
        aux_names=aux_names,
        labels=_labels(files, found, class_names),
        ids=read_names(files.ids) if files.ids else found.ids,
        split=split,
        model=model,
        partitions=partition_indices(partitions, class_names) if partitions else _partitions(found, class_names),
        overwrite=overwrite,
    )


def read_head(path: str, scale: float, bias: float) -> TextHead:
    """Reads text features `(M, E)` from a file.

    Raises:
        DataError: If it has other axes or cannot be read.
    """
    weights = read_array(path).values
    if weights.ndim != 2:
        raise DataError(f"text head {path}: expected two axes, classes and width, got {tuple(weights.shape)}")
    return TextHead(weights, scale, bias)


def _class_names(files: ImportFiles, found: NamedColumns, aux_names: Sequence[str]) -> list[str]:
    if found.classes:
        return list(found.classes)
    if files.logits and found.names:
        return [name for name in found.names if name not in set(aux_names)]
    raise ConfigError("the class names are missing: give --classes FILE, one name a line")


def _in_order(files: ImportFiles, found: NamedColumns, names: Sequence[str]) -> Tensor:
    """Returns the logits with their columns in the order of the names, where the file names its columns."""
    if found.names is None or list(found.names) == list(names):
        return found.values
    known, wanted = set(found.names), set(names)
    missing, extra = [name for name in names if name not in known], [name for name in found.names if name not in wanted]
    if missing or extra:
        raise DataError(
            f"the columns of {files.logits} are not the classes: missing {missing or 'none'}; extra {extra or 'none'}"
        )
    return found.values[..., [found.names.index(name) for name in names]]


def _labels(files: ImportFiles, found: NamedColumns, class_names: Sequence[str]) -> Tensor | None:
    if files.labels is None:
        return _labels_within(files, found, class_names)
    labels = read_labels(files.labels)
    return (
        _whole(labels, files.labels) if isinstance(labels, Tensor) else _from_texts(labels, class_names, files.labels)
    )


def _labels_within(files: ImportFiles, found: NamedColumns, class_names: Sequence[str]) -> Tensor | None:
    """Returns the labels that the file with the numbers has itself."""
    if isinstance(found.labels, Tensor):
        where = f"labels in {files.logits or files.features}"
        labels = _whole(found.labels, where)
        if found.classes is None or found.classes == tuple(class_names):
            return labels
        wrong = ((labels < 0) | (labels >= len(found.classes))).nonzero().flatten().tolist()
        if wrong:
            raise DataError(f"{where}, row {wrong[0]}: {labels[wrong[0]]} is none of its {len(found.classes)} classes")
        return _from_texts([found.classes[label] for label in labels.tolist()], class_names, where)
    if found.labels is None or not any(found.labels):
        return None
    return _from_texts(found.labels, class_names, "column 'label'")


def _partitions(found: NamedColumns, class_names: Sequence[str]) -> dict[str, list[int]]:
    """Returns the named sets of classes that the file has itself."""
    classes, index = found.classes or (), {name: number for number, name in enumerate(class_names)}
    moved = {name: [index.get(classes[k], classes[k]) for k in some] for name, some in found.partitions.items()}
    return partition_indices(moved, class_names)


def _whole(labels: Tensor, where: str) -> Tensor:
    """Returns numbers as class indices; spreadsheets make floats of them."""
    wrong = (labels != labels.trunc()).flatten().nonzero().flatten().tolist()
    if wrong:
        raise DataError(f"{where}, row {wrong[0]}: {labels.flatten()[wrong[0]].item()} is no class index")
    return labels.long()


def _from_texts(labels: Sequence[str], class_names: Sequence[str], where: str) -> Tensor:
    """Returns class indices of texts, which are all class names or all numbers; tables make floats of numbers."""
    index = {name: number for number, name in enumerate(class_names)}
    if all(label in index for label in labels):
        return torch.tensor([index[label] for label in labels])
    numbers = [_WHOLE.fullmatch(label) for label in labels]
    if all(numbers):
        return torch.tensor([int(number[1]) for number in numbers if number])
    if "" in labels:
        raise DataError(f"{where}, row {labels.index('')} has no label; leave the image out")
    row, label = next((row, label) for row, label in enumerate(labels) if label not in index)
    close = nearest(label, class_names, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise DataError(f"{where}, row {row}: {label!r} is no class name{hint}")
