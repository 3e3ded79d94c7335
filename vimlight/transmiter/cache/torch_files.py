"""Numbers from what `torch.save` wrote: a tensor, or a dictionary such as the released TransMiter keeps of a split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vimlight.errors import ConfigError, DataError
from vimlight.files.weight_file import read_plain
from vimlight.transmiter.cache.spreadsheets import NamedColumns

__all__ = ["from_torch"]

# What the released tool keeps beside the arrays of its models, a dictionary for every split.
_LABELS, _NAMES, _PARTITIONS = "labels", "label_names", ("base", "novel")


def from_torch(file: Path, key: str | None) -> NamedColumns:
    """Reads a tensor, and what the dictionary that it lies in says of its images.

    That may be `labels` of the N images, `label_names` (a dictionary from class indices, or a list), and the indices of
    `base` and `novel` classes, as the released TransMiter writes them beside `<model>_features` and
    `<model>_ft_logits`.

    Args:
        file: The file; nothing in it is run.
        key: Which tensor; those of a dictionary within another are called `outer/inner`.

    Raises:
        DataError: If the file is damaged or holds more than plain tensors and values, or class names have gaps.
        ConfigError: If the key is missing or unknown.
    """
    content = read_plain(file, "file", DataError)
    if isinstance(content, Tensor) and key is None:
        return NamedColumns(content)
    found = _tensors(content)
    arrays = [name for name, (tensor, _) in found.items() if tensor.ndim > 1]
    chosen = key if key is not None or len(arrays) != 1 else arrays[0]
    if chosen not in found:
        held = f"has no array {key!r}" if key is not None else f"holds {len(arrays)} arrays"
        names = ", ".join(sorted(found if key is not None else arrays)[:10]) or "none"
        raise ConfigError(f"{file.name} {held}; choose with {file.name}:KEY, one of: {names}")
    tensor, beside = found[chosen]
    return _described(file, tensor, beside)


def _tensors(content: Any, prefix: str = "") -> dict[str, tuple[Tensor, Mapping[Any, Any]]]:
    """Returns every tensor by its key, with the dictionary that it lies in."""
    found: dict[str, tuple[Tensor, Mapping[Any, Any]]] = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, Tensor):
            found[f"{prefix}{name}"] = (value, content)
        elif isinstance(value, Mapping):
            found |= _tensors(value, f"{prefix}{name}/")
    return found


def _described(file: Path, tensor: Tensor, beside: Mapping[Any, Any]) -> NamedColumns:
    if tensor.ndim < 2:
        return NamedColumns(tensor)
    classes = _classes(file, beside[_NAMES]) if _NAMES in beside else None
    names = classes if classes is not None and tensor.shape[-1] == len(classes) else None
    labels = torch.as_tensor(beside[_LABELS]) if _LABELS in beside else None
    partitions = {name: torch.as_tensor(beside[name]).tolist() for name in _PARTITIONS if name in beside}
    return NamedColumns(tensor, names, labels=labels, classes=classes, partitions=partitions if classes else {})


def _classes(file: Path, names: Any) -> tuple[str, ...]:
    pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
    by_index = {int(index): str(name) for index, name in pairs}
    if sorted(by_index) != list(range(len(by_index))):
        missing = next(index for index in range(len(by_index)) if index not in by_index)
        raise DataError(f"{file.name}: {_NAMES} has no name for class {missing}, of {len(by_index)}")
    return tuple(by_index[index] for index in range(len(by_index)))
