"""Modules of a user's own that register plug-ins, aggregators and data sets; worker processes import them too."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from vimlight.errors import ConfigError

__all__ = ["import_extension", "imported"]

_NAMES: dict[str, None] = {}


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
