"""Data sets of the Hugging Face hub, or saved on disk by its `datasets` library (extra `hf`)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from vimlight.data.classes import Classes, choose_classes, vocabulary
from vimlight.data.labels import label_flags, label_numbers, read_labels
from vimlight.data.pictures import open_picture
from vimlight.data.source import Source
from vimlight.data.sources import SOURCES
from vimlight.data.tables import ItemTable
from vimlight.errors import ConfigError, DataError, unknown_name

__all__ = ["hf"]

SPLITS = {"train": ("train",), "val": ("validation", "valid", "val"), "test": ("test",)}
# What stands for no label in the library's own data sets.
_NONE = -1
_LISTS = ("LargeList", "List", "Sequence")


@SOURCES.register("hf")
def hf(
    path: str,
    name: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    classes: Classes | None = None,
) -> Source:
    """Opens a data set with an image and a label column.

    Labels are class numbers, texts, whole numbers or truth values, one an image or a list of them. The number -1 says
    that there is no label, as in the library's own data sets, unless `classes` names it. Images without a label are
    left out with a warning, and so is a validation or test part without any: its images then come from the training
    part.

    Args:
        path: Name on the hub, such as `"ufldl-stanford/svhn"`; or a folder: of images and metadata as
            `datasets.load_dataset` reads it, or written by `save_to_disk`.
        name: Configuration of the data set.
        image_column: Column of the images; by default the only one of that type.
        label_column: Column of the labels; by default the only one of type ClassLabel or a list of it.
        classes: Some or all of the class names, in the order that they are to have; by default those of the column's
            type, or those found: by value where all are numbers, else in alphabetical order.

    Raises:
        ConfigError: If the extra is not installed.
        DataError: If the data set cannot be loaded, its columns cannot be told or hold no labels, or no image of the
            training part has one.
        UnknownNameError: If it has no such column or class.
    """
    parts = _load(path, name)
    if "train" not in parts:
        raise DataError(f"data set {path!r} has no split 'train'; found: {', '.join(parts)}")
    features = parts["train"].features
    image = _column(path, features, image_column, "Image")
    label = _column(path, features, label_column, "ClassLabel")
    several = _inner(features[label]) is not features[label]
    given = {split: next((key for key in keys if key in parts), None) for split, keys in SPLITS.items()}
    cells = {split: _cells(path, parts[key], key, label, classes) for split, key in given.items() if key is not None}
    found = {name for rows in cells.values() for name in chain.from_iterable(row or () for row in rows)}
    names = _declared(features[label]) or vocabulary(found, classes, f"data set {path!r}")
    tables = {}
    for split, rows in cells.items():
        part, where = parts[given[split]], f"data set {path!r}, {given[split]}"
        kept = _labelled(where, split, rows)
        if kept:
            encode = label_flags if several else label_numbers
            targets = encode([row for row in rows if row is not None], names, where)
            spread = targets.new_zeros(len(rows), *targets.shape[1:])
            spread[kept] = targets
            items = ItemTable(_undecoded(part, image), partial(_picture, image), spread, f"{path}/{split}")
            tables[split] = items.subset(kept)
    return choose_classes(Source(path, "multilabel" if several else "classification", names, **tables), classes)


def _load(path: str, name: str | None) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError("dataset: hf needs an extra: pip install 'vimlight[hf]'") from error
    try:
        if (Path(path) / "dataset_dict.json").exists():
            return datasets.load_from_disk(path)
        return datasets.load_dataset(path, name)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot load data set {path!r}: {' '.join(str(error).split())[:300]}") from error


def _undecoded(part: Any, column: str) -> Any:
    """Returns the part with images as they are stored, to be opened as those of other sources are."""
    import datasets

    if not isinstance(part.features[column], datasets.Image):
        return part
    return part.cast_column(column, datasets.Image(decode=False))


def _picture(column: str, item: Mapping[str, Any]) -> Any:
    stored = item[column]
    if not isinstance(stored, dict):
        return stored
    return open_picture(stored["path"] if stored["bytes"] is None else io.BytesIO(stored["bytes"]))


def _column(path: str, features: Any, asked: str | None, kind: str) -> str:
    """Finds the column asked for, or the only one whose type, or whose list's type, is `kind`."""
    if asked is not None:
        if asked not in features:
            raise unknown_name(f"column of {path!r}", asked, features)
        return asked
    found = [str(key) for key, feature in features.items() if type(_inner(feature)).__name__ == kind]
    if len(found) == 1:
        return found[0]
    option = "image_column" if kind == "Image" else "label_column"
    among = ", ".join(found or map(str, features))
    raise DataError(f"data set {path!r} has {len(found)} columns of type {kind}; name one with {option}: {among}")


def _inner(feature: Any) -> Any:
    """Returns the type of a list's entries, or of a column that holds no lists that type itself."""
    if isinstance(feature, list):
        return feature[0]
    return feature.feature if type(feature).__name__ in _LISTS else feature


def _declared(feature: Any) -> tuple[str, ...]:
    """Returns the class names that a column's type says."""
    inner = _inner(feature)
    return tuple(inner.names) if type(inner).__name__ == "ClassLabel" else ()


def _cells(path: str, part: Any, split: str, column: str, classes: Classes | None) -> list[list[str] | None]:
    """Returns the labels of each image, or nothing where they are not known."""
    where, feature = f"data set {path!r}, {split}", part.features[column]
    names, named = _declared(feature), tuple(map(str, classes or ()))
    several = _inner(feature) is not feature
    if not names and type(_inner(feature)).__name__ != "Value":
        raise DataError(f"{where}: column {column!r} is of type {feature}; expected labels, or lists of them")

    def entries(row: int, cell: Any) -> list[Any]:
        known = [entry for entry in (cell if several else [cell]) if entry is not None]
        if str(_NONE) not in named:
            known = [entry for entry in known if entry != _NONE]
        for entry in known if names else ():
            if not 0 <= entry < len(names):
                raise DataError(f"{where}, row {row}: label {entry} is not among the {len(names)} classes")
        return [names[entry] for entry in known] if names else known

    values = list(part[column])
    found = [[] if cell is None else entries(row, cell) for row, cell in enumerate(values, start=1)]
    texts = found if names else read_labels(found, where, named=named)
    return [row if row or (several and cell is not None) else None for row, cell in zip(texts, values, strict=True)]


def _labelled(where: str, split: str, rows: Sequence[list[str] | None]) -> list[int]:
    """Returns the rows that have labels, or none where no row of the part has any.

    Raises:
        DataError: If that is the training part.
    """
    if not any(rows):
        if split == "train":
            raise DataError(f"{where}: no image has a label")
        warnings.warn(f"{where}: no image has a label; images of the training part serve instead", stacklevel=3)
        return []
    kept = [number for number, row in enumerate(rows) if row is not None]
    if len(kept) < len(rows):
        warnings.warn(f"{where}: left out {len(rows) - len(kept)} of {len(rows)} images without a label", stacklevel=3)
    return kept
