"""A data source: what it is called, its classes, and its tables of labelled images."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from vimlight.data.tables import FileTable, Table
from vimlight.errors import DataError

__all__ = ["Source"]


@dataclass(frozen=True)
class Source:
    """A data set: its classes and up to three tables.

    Attributes:
        name: The data set's name.
        kind: Kind of task that the targets are made for, such as `"classification"`; see `vimlight.tasks.list_tasks`.
        class_names: C names, in the order of the class indices; the names of the numbers, where targets are numbers.
        train: Images to learn from.
        val: Images for validation, if the data set sets some apart.
        test: Images for the test, if the data set sets some apart.
        final: Those of train and val together, if the data set wants the fit after all was chosen to see them.
    """

    name: str
    kind: str
    class_names: tuple[str, ...]
    train: Table
    test: Table | None = None
    val: Table | None = None
    final: Table | None = None

    @property
    def tables(self) -> dict[str, Table]:
        """The tables that there are, by name."""
        named = ((name, getattr(self, name)) for name in ("train", "val", "test", "final"))
        return {name: table for name, table in named if table is not None}

    def __post_init__(self) -> None:
        """Checks the targets.

        Raises:
            DataError: If a table is empty, its targets are not those of the kind, or an image file is in two tables.
            UnknownNameError: If there is no such kind.
        """
        from vimlight.tasks import TASKS

        layout = TASKS[self.kind].layout
        for split, table in self.tables.items():
            if not len(table):
                raise DataError(f"data set {self.name!r} has no image in its {split} part")
            try:
                layout.check(table.targets, len(self.class_names))
            except DataError as error:
                raise DataError(f"data set {self.name!r}, {split}: {error}") from error
        _check_disjoint(self)

    def readable(self) -> Source:
        """Returns the source without the images that cannot be read; see `Table.readable`."""
        from vimlight.tasks import TASKS

        return self._each(lambda table: table.readable(TASKS[self.kind].layout))

    def over(self, background: str) -> Source:
        """Returns the source with transparent pixels over a colour, as CSS names it."""
        return self._each(lambda table: table.over(background))

    def _each(self, change: Callable[[Table], Table]) -> Source:
        changed: dict[str, Any] = {name: change(table) for name, table in self.tables.items()}
        return replace(self, **changed)


def _check_disjoint(source: Source) -> None:
    seen: dict[str, str] = {}
    for split, table in source.tables.items():
        for file in table._paths if isinstance(table, FileTable) and split != "final" else ():
            first = seen.setdefault(os.path.normpath(file.absolute()), split)
            if first != split:
                where = f"{file} is in its {first} part and in its {split} part"
                raise DataError(f"data set {source.name!r}: {where}; leave one out")
