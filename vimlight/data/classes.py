"""The classes of a data set: the order of their names, and the choice of some of them."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vimlight.data.source import Source
from vimlight.data.tables import Table
from vimlight.errors import ConfigError, DataError, listed, shown, unknown_name

__all__ = ["Classes", "choose", "choose_classes", "natural_order", "vocabulary"]

Classes = list[str | int]
"""Class names as a config gives them, where a name such as `3` is a number."""

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """Returns each name once: by value where all of them are numbers (`2` before `10`), else alphabetically."""
    found = sorted(set(names))
    return tuple(sorted(found, key=float) if all(map(_NUMBER.fullmatch, found)) else found)


def vocabulary(found: Collection[str], classes: Classes | None, what: str) -> tuple[str, ...]:
    """Returns the classes of a data set whose labels are texts.

    Args:
        found: The labels that occur.
        classes: The names asked for. If they cover all that occur, they are the classes, whether each occurs or not.
        what: What a message calls the data set.

    Returns:
        The names, those that occur in natural order. Where nobody named them, some that differ in nothing but case,
        spaces, hyphens or the way that a number is written are classes of their own, with a warning.
    """
    names = None if classes is None else tuple(map(str, classes))
    if names is not None and set(found) <= set(names):
        return names
    if names is None:
        _warn_of_alike(found, what)
    return natural_order(found)


def choose(known: Sequence[str], classes: Classes | None, what: str) -> tuple[str, ...]:
    """Returns the classes asked for, in the order asked for; all of them if nothing was asked.

    Those that are left out are named in a warning.

    Args:
        known: The names that there are.
        classes: The names asked for.
        what: What messages call the data set.

    Raises:
        ConfigError: If none is asked for, or one twice, or several are called so.
        UnknownNameError: If there is no such class.
    """
    if classes is None:
        return tuple(known)
    names = tuple(map(str, classes))
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"classes of {what} must name at least one class, and each once; got {shown(list(names))}")
    for name in names:
        if name not in known:
            raise unknown_name(f"class of {what}", name, known)
        if known.count(name) > 1:
            raise ConfigError(
                f"{known.count(name)} classes of {what} are called {shown(name)}: no name to choose them by"
            )
    rest = [name for name in known if name not in set(names)]
    if rest:
        some = ", ".join(map(shown, rest[:5])) + (", ..." if len(rest) > 5 else "")
        warnings.warn(f"{what}: left out what is of the {len(rest)} classes not chosen: {some}", stacklevel=3)
    return names


def choose_classes(source: Source, classes: Classes | None) -> Source:
    """Returns a data set with some of its classes, in the order asked for.

    Images of one class each are left out with their class. Those with several labels, masks or boxes stay; pixels of
    other classes are unknown, and objects of other classes are background.

    Args:
        source: The data set.
        classes: The names; the data set stays as it is if there are none.

    Raises:
        ConfigError: If a class is named twice, or the targets are no classes.
        DataError: If a part has no image of these classes.
        UnknownNameError: If there is no such class.
    """
    names = choose(source.class_names, classes, f"data set {source.name!r}")
    if names == source.class_names:
        return source
    places = {name: number for number, name in enumerate(source.class_names)}
    order = torch.tensor([places[name] for name in names])

    chosen: dict[str, Any] = {split: _of_classes(table, source, order) for split, table in source.tables.items()}
    for split, table in chosen.items():
        if not len(table):
            raise DataError(f"data set {source.name!r} has no image of {listed(names, 5)} in its {split} part")
    return replace(source, class_names=names, **chosen)


def _of_classes(table: Table, source: Source, order: Tensor) -> Table:
    from vimlight.tasks import TASKS

    targets, kept = TASKS[source.kind].layout.choose(table.targets, order, len(source.class_names))
    chosen = table.with_targets(targets)
    return chosen if kept is None else chosen.subset(kept)


def _warn_of_alike(names: Iterable[str], what: str) -> None:
    seen: dict[str, str] = {}
    for name in sorted(names):
        first = seen.setdefault(_folded(name), name)
        if first != name:
            alike = f"{shown(first)} and {shown(name)} are two classes that differ in spelling alone"
            warnings.warn(f"{what}: {alike}; mend the labels, or name both in classes", stacklevel=3)


def _folded(name: str) -> str:
    if _NUMBER.fullmatch(name):
        return str(float(name))
    return " ".join(re.split(r"[\s_-]+", unicodedata.normalize("NFKC", name).casefold()))
