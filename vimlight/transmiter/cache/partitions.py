"""Named sets of classes, such as base and novel, from how people write them down."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vimlight.errors import ConfigError, nearest, shown

__all__ = ["class_indices", "partition_indices"]

_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")


def partition_indices(
    partitions: Mapping[str, str | Sequence[int | str]], class_names: Sequence[str]
) -> dict[str, list[int]]:
    """Returns the class indices of every partition.

    Args:
        partitions: Names with what `class_indices` takes.
        class_names: The C task classes.

    Raises:
        ConfigError: If a class does not exist.
    """
    return {name: class_indices(classes, class_names, f"partition {name!r}") for name, classes in partitions.items()}


def class_indices(classes: str | Sequence[int | str], class_names: Sequence[str], what: str) -> list[int]:
    """Returns class indices.

    Args:
        classes: Indices, names, and ranges like `"0-49"` (both ends included), in a list or one text with commas.
        class_names: The C task classes.
        what: What they are for, as messages say it.

    Raises:
        ConfigError: If a class does not exist.
    """
    entries = [part.strip() for part in classes.split(",")] if isinstance(classes, str) else classes
    return [index for entry in entries for index in _one(entry, class_names, what)]


def _one(entry: int | str, class_names: Sequence[str], what: str) -> Sequence[int]:
    found = _RANGE.fullmatch(entry) if isinstance(entry, str) else None
    if isinstance(entry, str) and entry in class_names and not entry.isdigit():
        return [class_names.index(entry)]
    if found:
        indices: Sequence[int] = range(int(found[1]), int(found[2]) + 1)
    elif isinstance(entry, int) or entry.isdigit():
        indices = [int(entry)]
    else:
        close = nearest(entry, class_names, 1)
        there = f"there are {len(class_names)}, such as {shown(class_names[0])}"
        hint = f"did you mean {shown(close[0])}?" if close else there
        raise ConfigError(f"{what}: unknown class {shown(entry)}; {hint}")
    if not indices or max(indices) >= len(class_names) or min(indices) < 0:
        raise ConfigError(f"{what}: {shown(entry)} is not among the classes 0 to {len(class_names) - 1}")
    return indices
