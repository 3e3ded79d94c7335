"""Data sets of the Hugging Face hub, or saved on disk by its `datasets` library (extra `hf`)."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vimlight.data.sources import SOURCES
from vimlight.data.tables import ItemTable, Source
from vimlight.errors import ConfigError, DataError, unknown_name

__all__ = ["hf"]

SPLITS = {"train": ("train",), "val": ("validation", "valid", "val"), "test": ("test",)}


@SOURCES.register("hf")
def hf(path: str, name: str | None = None, image_column: str | None = None, label_column: str | None = None) -> Source:
    """Opens a data set with an image and a label column.

    Args:
        path: Name on the hub, such as `"ufldl-stanford/svhn"`; or a folder: of images and metadata as
            `datasets.load_dataset` reads it, or written by `save_to_disk`.
        name: Configuration of the data set.
        image_column: Column of the images; by default the only one of that type.
        label_column: Column of the labels, of type ClassLabel or a list of it; by default the only one.

    Raises:
        ConfigError: If the extra is not installed.
        DataError: If the data set cannot be loaded, or its columns cannot be told.
        UnknownNameError: If it has no such column.
    """
    parts = _load(path, name)
    if "train" not in parts:
        raise DataError(f"data set {path!r} has no split 'train'; found: {', '.join(parts)}")
    features = parts["train"].features
    image = _column(path, features, image_column, "Image")
    label = _column(path, features, label_column, "ClassLabel")
    inner = getattr(features[label], "feature", None)
    classes = tuple((inner or features[label]).names)
    tables = {}
    for split, names in SPLITS.items():
        part = next((parts[name] for name in names if name in parts), None)
        if part is not None:
            targets = _targets(part[label], len(classes) if inner else None)
            tables[split] = ItemTable(part, itemgetter(image), targets, f"{path}/{split}")
    return Source(path, "multilabel" if inner else "classification", classes, **tables)


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


def _column(path: str, features: Any, asked: str | None, kind: str) -> str:
    """Finds the column asked for, or the only one whose type, or whose list's type, is `kind`."""
    if asked is not None:
        if asked not in features:
            raise unknown_name(f"column of {path!r}", asked, features)
        return asked
    types = {str(key): type(getattr(value, "feature", value)).__name__ for key, value in features.items()}
    found = [key for key, name in types.items() if name == kind]
    if len(found) == 1:
        return found[0]
    option = "image_column" if kind == "Image" else "label_column"
    raise DataError(f"data set {path!r} has {len(found)} columns of type {kind}; name one with {option}")


def _targets(labels: Any, classes: int | None) -> Tensor:
    if classes is None:
        return torch.tensor(list(labels), dtype=torch.long)
    targets = torch.zeros(len(labels), classes, dtype=torch.long)
    for row, indices in enumerate(labels):
        targets[row, list(indices)] = 1
    return targets
