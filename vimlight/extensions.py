"""Modules of a user's own that register plug-ins, aggregators, tasks and data sets.

An installed package announces them by entry points, which every process finds; others are named on the command line,
and worker processes import them too.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from vimlight.errors import ConfigError, cut
from vimlight.trust import check_trusted

__all__ = ["Announced", "Point", "announced", "import_extension", "imported"]

_NAMES: dict[str, None] = {}


@dataclass(frozen=True)
class Point:
    """An entry point: a module that registers something under a name.

    Attributes:
        module: Dotted name of the module.
        package: Name of the installed package that it comes with.
    """

    module: str
    package: str

    def load(self, what: str) -> None:
        """Imports the module.

        Args:
            what: What it registers, as messages say it.

        Raises:
            ConfigError: If it is not trusted, or cannot be imported.
        """
        check_trusted(self.module, what)
        try:
            importlib.import_module(self.module)
        # Whatever a stranger's module does, the message must say whose it is.
        except Exception as error:
            said = cut(f"{type(error).__name__}: {error}".partition("\n")[0], 200)
            raise ConfigError(f"{what}: {self.module} of {self.package} cannot be imported ({said})") from error


Announced = Mapping[str, Sequence[Point]]
"""Entry points by the name of what they register; several packages may announce one name."""


@cache
def announced(group: str) -> Announced:
    """Returns what installed packages announce in a group of entry points.

    Args:
        group: The group, such as `"vimlight.plugins"`.
    """
    found: dict[str, dict[Point, None]] = {}
    for each in entry_points(group=group):
        package = each.dist.name if each.dist is not None else each.module.partition(".")[0]
        # An editable installation may be found twice.
        found.setdefault(each.name, {})[Point(each.module, package)] = None
    return {name: tuple(points) for name, points in found.items()}


def import_extension(name: str) -> None:
    """Imports a user's module, from the working directory too, so that what it registers is known.

    Args:
        name: Dotted name of the module.

    Raises:
        ConfigError: If there is no such module.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ConfigError(f"--import {name}: there is no such module here or installed") from error
    _NAMES[name] = None


def imported() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the names of what was imported, and the directory that it may lie in."""
    return tuple(_NAMES), (str(Path.cwd()),) if _NAMES else ()
