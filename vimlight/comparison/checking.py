"""What readers of plans share: mistakes are named by their place in the file."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar, get_args, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from vimlight.errors import ConfigError, VimlightError, shown, unknown_name

__all__ = ["at", "entry", "listed", "nothing_twice"]

T = TypeVar("T")


def entry(kind: type[T], content: Any, where: str) -> T:
    """Builds a dataclass from a mapping, with checked keys and types.

    Args:
        kind: The dataclass.
        content: What the file holds.
        where: Its place in the file; empty for the file itself.

    Raises:
        ConfigError: If it is no mapping, lacks a key, or a value is of the wrong type.
        UnknownNameError: If it has a key that there is none of.
    """
    prefix = f"{where}: " if where else ""
    if not isinstance(content, Mapping):
        raise ConfigError(f"{prefix}expected keys with values, got {type(content).__name__}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # a dataclass
    for key in content:
        if key not in fields:
            raise unknown_name("key", f"{where}.{key}" if where else str(key), _paths(where, fields))
    for name, field in fields.items():
        if field.default is field.default_factory is dataclasses.MISSING and name not in content:
            raise ConfigError(f"{prefix}the key {name!r} is missing")
    return _typed(kind, dict(content), where)


def _paths(where: str, fields: Iterable[str]) -> list[str]:
    return [f"{where}.{name}" if where else name for name in fields]


def _typed(kind: type[T], content: dict[str, Any], where: str) -> T:
    for name, value in content.items():
        required = {
            field.name: content[field.name]
            for field in dataclasses.fields(kind)  # type: ignore[arg-type]  # a dataclass
            if field.default is field.default_factory is dataclasses.MISSING
        }
        try:
            # Nothing at all passes for every type.
            if value is None and not _is_optional(kind, name):  # type: ignore[arg-type]  # classes are hashable
                raise ArgumentError(None, "nothing is given")
            _parser_of(kind).parse_object({**required, name: value})  # type: ignore[arg-type]  # as above
        except ArgumentError as error:
            place = f"{where}.{name}" if where else name
            wanted = kind.__dataclass_fields__[name].type  # type: ignore[attr-defined]
            raise ConfigError(f"{place}: expected {wanted}, got {shown(value)}") from error
    return kind(**content)


@lru_cache
def _is_optional(kind: type, name: str) -> bool:
    hint = get_type_hints(kind)[name]
    return hint is Any or type(None) in get_args(hint)


@lru_cache
def _parser_of(kind: type) -> ArgumentParser:
    # Plans have many entries, and a parser takes as long as all that it is asked about one of them.
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, fail_untyped=False)
    return parser


def listed(value: Any) -> list[Any]:
    """Returns a list as it is, a value alone as one, and nothing as an empty one.

    Args:
        value: What the file holds.
    """
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def nothing_twice(where: str, names: Sequence[Any]) -> None:
    """Checks that names are different.

    Args:
        where: Their place in the file.
        names: The names.

    Raises:
        ConfigError: If two are the same.
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise ConfigError(f"{where}: {name!r} stands there {count} times; each needs a name of its own")


def at(where: str, function: Callable[..., T], *arguments: Any) -> T:
    """Calls a check; a mistake that it finds is told with its place.

    Args:
        where: The place in the file.
        function: The check.
        *arguments: What it is called with.
    """
    try:
        return function(*arguments)
    except VimlightError as error:
        error.args = (f"{where}: {error}",)
        raise
