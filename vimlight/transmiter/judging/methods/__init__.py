"""Methods of the comparison by name: each file of this package registers one, or a few that differ in a word.

A new one is one new file here, or a class registered from anywhere:

```python
@METHODS.register("sharper")
class Sharper(Method):
    title = "target, twice as sure"

    def __call__(self, images):
        return 2 * images["target"]
```
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from vimlight.errors import ConfigError, unknown_name
from vimlight.registry import Registry
from vimlight.transmiter.judging.methods.base import Candidates, Fit, Images, Labelled, Method, Unsuitable, prepare

__all__ = [
    "METHODS",
    "Candidates",
    "Fit",
    "Images",
    "Labelled",
    "Method",
    "Unsuitable",
    "create_method",
    "list_methods",
    "prepare",
]

METHODS: Registry[type[Method]] = Registry("method", "vimlight.transmiter.judging.methods", "METHODS")


def list_methods() -> list[str]:
    """Returns the names of all methods, in the order of the table."""
    return sorted(METHODS, key=lambda name: (METHODS[name].place, name))


def create_method(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """Creates a method.

    Args:
        name: Name in `METHODS`.
        settings: Its own arguments; text is read as the type that the argument has.

    Raises:
        UnknownNameError: If there is no such method, or it has no such argument.
        ConfigError: If an argument is of the wrong type or out of range.
    """
    kind, given = METHODS[name], dict(settings or {})
    known = [key for key in inspect.signature(kind).parameters if key not in ("args", "kwargs")]
    for key in given:
        if key not in known:
            raise unknown_name(f"setting of method {name!r}", key, known)
    if not given:
        return kind()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    try:
        return kind(**vars(parser.parse_object(given)))
    except ArgumentError as error:
        raise ConfigError(f"method {name!r}: {' '.join(str(error).split())}") from error
