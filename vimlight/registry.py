"""Names for things: a read-only mapping that finds its entries in the files of one package.

A registry belongs to a room (`vimlight.plugins`, `vimlight.aggregation`, ...). Whoever adds an entry writes one file in
that room, or anywhere else, with the registry's decorator on a class or function; no list has to be kept in step.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from vimlight.errors import ConfigError, unknown_name

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """A mapping from names to classes or functions, filled by a decorator.

    Args:
        kind: What an entry is, as error messages say it, such as `"plug-in"`.
        package: Dotted name of the package whose modules hold the built-in entries; they are imported at the first
            look-up, so that importing the registry alone stays cheap. A single module that holds all of them will do.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str, *, replace: bool = False) -> Callable[[T], T]:
        """Returns a decorator that enters its argument under `name`.

        Args:
            name: The entry's name.
            replace: Whether an entry of that name may be replaced.

        Raises:
            ConfigError: If the name is taken by something else and `replace` is false.
        """

        def enter(entry: T) -> T:
            taken = self._entries.get(name)
            if taken is not None and not replace and not _same_definition(taken, entry):
                raise ConfigError(
                    f"{self.kind} {name!r} is registered already; choose another name or pass replace=True"
                )
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        """Returns the entry called `name`.

        Raises:
            UnknownNameError: If there is none; the text gives the nearest names.
        """
        self._load()
        # A file may hold anything where a name belongs.
        if not isinstance(name, str) or name not in self._entries:
            raise unknown_name(self.kind, str(name), self._entries)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names in alphabetical order."""
        self._load()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        """Returns the number of entries."""
        self._load()
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        """Tells whether `name` is registered."""
        self._load()
        return name in self._entries

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
            importlib.import_module(f"{self._package}.{module.name}")


def _same_definition(first: object, second: object) -> bool:
    """Tells whether two objects come from one definition, as after a module was imported a second time."""
    keys = ("__module__", "__qualname__")
    return all(getattr(first, key, None) == getattr(second, key, None) for key in keys)
