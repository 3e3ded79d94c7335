"""Names for things: a read-only mapping that finds its entries in the files of one package.

A registry belongs to a room (`vimlight.plugins`, `vimlight.aggregation`, ...). Whoever adds an entry writes one file in
that room, or anywhere else, with the registry's decorator on a class or function; no list has to be kept in step.

Names are read off the text of those files, and off the entry points of installed packages, so that to list them, or to
refuse one that is misspelt, imports nothing.
"""

from __future__ import annotations

import importlib.util
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

from vimlight.errors import ConfigError, unknown_name
from vimlight.extensions import Announced, announced

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """A mapping from names to classes or functions, filled by a decorator.

    Args:
        kind: What an entry is, as error messages say it, such as `"plug-in"`.
        package: Dotted name of the package whose modules hold the built-in entries, each of which is imported when it
            is first looked up; or of the single module that holds all of them, the registry's own.
        variable: What the registry is called in those modules, at the beginning of a line: `@PLUGINS.register("lora")`.
            Where names are not written down so, nothing: then all modules are imported to know them.
        group: The group of entry points by which installed packages announce entries of theirs, if they can.
    """

    def __init__(self, kind: str, package: str, variable: str = "", *, group: str = "") -> None:
        self.kind = kind
        self.group = group
        self._package = package
        self._line = re.compile(rf'^@?{variable}\.register\("(.+?)"\)', re.MULTILINE) if variable else None
        self._entries: dict[str, T] = {}

    def register(self, name: str, *, replace: bool = False) -> Callable[[T], T]:
        """Returns a decorator that enters its argument under `name`.

        Args:
            name: The entry's name.
            replace: Whether an entry of that name may be replaced.

        Raises:
            ConfigError: If the name is taken by something else and `replace` is false.
        """

        def enter(entry: T) -> T:
            taken = self._entries.get(name) or self._built_in(name)
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
            ConfigError: If an installed package announces it that cannot be imported, is not trusted or does not
                register it, or if several announce it.
        """
        # A file may hold anything where a name belongs.
        if not isinstance(name, str) or name not in self:
            raise unknown_name(self.kind, str(name), self)
        if name not in self._entries:
            self._import(name)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names in alphabetical order."""
        return iter(sorted(self._names()))

    def __len__(self) -> int:
        """Returns the number of entries."""
        return len(self._names())

    def __contains__(self, name: object) -> bool:
        """Tells whether `name` is registered."""
        return name in self._entries or name in self._places or name in self._announced

    def source(self, name: str) -> str | None:
        """Returns the text of the file that registers an entry.

        Args:
            name: The entry's name.

        Returns:
            The text; nothing where the entry was registered from outside of the registry's package.
        """
        place = self._places.get(name)
        replaced = name in self._entries and getattr(self._entries[name], "__module__", place) != place
        return None if place is None or replaced else _text(place)

    def _names(self) -> set[str]:
        # They first: to find them may import what registers itself.
        places = self._places
        return {*self._entries, *places, *self._announced}

    @property
    def _announced(self) -> Announced:
        """The entry points of installed packages, by name."""
        return announced(self.group) if self.group else {}

    def _import(self, name: str) -> None:
        """Imports the module that registers an entry."""
        points = self._announced.get(name, ())
        owners = [*(["vimlight"] if name in self._places else []), *(point.package for point in points)]
        if len(owners) > 1:
            raise ConfigError(f"{self.kind} {name!r} comes from {' and from '.join(owners)}; uninstall all but one")
        if not points:
            importlib.import_module(self._places[name])
            return
        points[0].load(f"{self.kind} {name!r}")
        if name not in self._entries:
            raise ConfigError(
                f"{self.kind} {name!r}: {points[0].package} announces it, but {points[0].module} does not register it"
            )

    @cached_property
    def _places(self) -> dict[str, str]:
        """The module that registers each built-in entry."""
        package = importlib.import_module(self._package)
        found: dict[str, str] = {}
        for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
            place = f"{self._package}.{module.name}"
            if self._line is None:
                importlib.import_module(place)
            else:
                found |= dict.fromkeys(self._line.findall(_text(place)), place)
        return found

    def _built_in(self, name: str) -> T | None:
        """Returns the built-in entry of a name, unless its module is what is being imported."""
        place = None if self._line is None else self._places.get(name)
        if place is None or place in sys.modules:
            return None
        importlib.import_module(place)
        return self._entries.get(name)


def _text(module: str) -> str:
    """Returns the text of a module, whose package is imported already."""
    spec = importlib.util.find_spec(module)
    loader: Any = None if spec is None else spec.loader
    return loader.get_source(module) or ""


def _same_definition(first: object, second: object) -> bool:
    """Tells whether two objects come from one definition, as after a module was imported a second time."""
    return _definition(first) == _definition(second)


def _definition(thing: object) -> tuple[str | None, str | None]:
    module = getattr(thing, "__module__", None)
    if module == "__main__":
        # What `python -m` runs has another name than where it is imported.
        spec = getattr(sys.modules[module], "__spec__", None)
        module = module if spec is None else spec.name
    return module, getattr(thing, "__qualname__", None)
