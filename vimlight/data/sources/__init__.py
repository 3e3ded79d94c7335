"""Data sources by name: each file of this package registers one function that returns a `Source`.

A source's arguments are plain values (text, numbers, lists), so that YAML can give them. A new one is one new file
here, or a function registered from anywhere:

```python
@SOURCES.register("my_images")
def my_images(root: str) -> Source: ...
```
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from vimlight.errors import ConfigError, unknown_name
from vimlight.registry import Registry

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from vimlight.data.source import Source

__all__ = ["SOURCES", "check_source", "list_sources", "load_source"]

_CLASSES = "classes"

SOURCES: Registry[Callable[..., Source]] = Registry(
    "data set", "vimlight.data.sources", "SOURCES", group="vimlight.sources"
)


def list_sources() -> list[str]:
    """Returns the names of all data sources."""
    return list(SOURCES)


def load_source(name: str, arguments: Mapping[str, Any] | None = None) -> Source:
    """Opens a data source.

    Every source takes `classes`: some of its classes by name, in the order that they are to have. A source that names
    it among its own arguments sees to it itself; for all others `choose_classes` does.

    Args:
        name: A registered name, such as `"digits"`.
        arguments: The source's own arguments, and `classes`.

    Raises:
        UnknownNameError: If there is no such source, or it has no such argument or class.
        ConfigError: If an argument is missing or of the wrong type.
        DataError: If the data are missing or malformed.
    """
    from vimlight.data.classes import choose_classes

    function = SOURCES[name]
    given = check_source(name, arguments)
    if _CLASSES in inspect.signature(function).parameters:
        return function(**given)
    classes = given.pop(_CLASSES, None)
    return choose_classes(function(**given), classes)


def check_source(name: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Checks a source's arguments without opening it.

    Args:
        name: A registered name.
        arguments: The source's own arguments, and `classes`.

    Returns:
        All arguments, with the defaults of those that were left out.

    Raises:
        UnknownNameError: If there is no such source, or it has no such argument.
        ConfigError: If an argument is missing or of the wrong type.
    """
    function = SOURCES[name]
    return _checked(name, function, dict(arguments or {}))


def _checked(name: str, function: Callable[..., Source], arguments: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    for key in arguments:
        if key not in parameters and key != _CLASSES:
            raise unknown_name(f"argument of data set {name!r}:", key, [*parameters, _CLASSES])
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise ConfigError(f"data set {name!r} needs the argument {key!r}, as in dataset_args: {{{key}: ...}}")
    return _typed(name, function, arguments)


def _typed(name: str, function: Callable[..., Source], arguments: dict[str, Any]) -> dict[str, Any]:
    from jsonargparse import ArgumentError

    try:
        return dict(vars(_parser_of(function).parse_object(arguments)))
    except ArgumentError as error:
        raise ConfigError(f"data set {name!r}: {' '.join(str(error).split())}") from error


@lru_cache
def _parser_of(function: Callable[..., Source]) -> ArgumentParser:
    from jsonargparse import ArgumentParser

    from vimlight.data.classes import Classes

    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(function)
    if _CLASSES not in inspect.signature(function).parameters:
        parser.add_argument(f"--{_CLASSES}", type=Classes | None)
    return parser
