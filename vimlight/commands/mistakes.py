"""Turns the long errors of a config parser into one or two lines."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable

from vimlight.errors import VimlightError, nearest

__all__ = ["cause", "explain"]

_NOISE = re.compile(
    r"Parser key|Does not validate against|Subtypes:|Errors:|Given value"
    r"|Expected a <class 'NoneType'>|either not accessible"
)


def cause(error: BaseException) -> VimlightError | None:
    """Finds the package's own error behind one that a parser raised while it created an object.

    Args:
        error: What was caught.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, VimlightError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def explain(message: str, classes: Iterable[type]) -> str:
    """Shortens a parser's message to the key, the value, what was expected and the nearest valid name.

    Args:
        message: The parser's message, of many lines.
        classes: The classes whose names and arguments may have been misspelt.
    """
    keys = [key for key in re.findall(r"[Kk]ey \"?'?([\w.]+)", message) if key]
    value = re.search(r"(?:Given value|Got value): (.*)", message)
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -") and not _NOISE.search(line)]
    reason = lines[0] if lines else message.splitlines()[0]
    known = list(classes)
    option = re.search(
        r"Option '([\w.]+)' is not accepted|Key '([\w.]+)' is not expected|arguments?: --([\w.]+)", message
    )
    if option:
        name = next(group for group in option.groups() if group)
        return _unknown(".".join([*keys[:1], name]) if keys and "." not in name else name, _arguments(known))
    path = re.search(r"(?:import path(?: string)?|Unable to import|class path):? '?([\w.]+)", message)
    if path:
        return f"{keys[0] if keys else 'class'}: unknown class {path[1]!r}{_hint(path[1], (c.__name__ for c in known))}"
    reason = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", reason)
    given = f", got {value[1].strip()!r}" if value and value[1].strip() not in reason else ""
    nested = [key for key in keys[1:] if not keys[0].endswith(key)]
    where = ".".join([*keys[:1], *nested[-1:]])
    return f"{where}: {reason}{given}" if where else f"{reason}{given}"


def _unknown(key: str, valid: Iterable[str]) -> str:
    return f"unknown key {key!r}{_hint(key.rpartition('.')[2], valid)}"


def _hint(name: str, valid: Iterable[str]) -> str:
    close = nearest(name, sorted(set(valid)))
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def _arguments(classes: Iterable[type]) -> list[str]:
    """Lists the arguments of the classes, those that they pass on to their bases included."""
    bases = {base for known in classes for base in known.__mro__ if "__init__" in vars(base) and base is not object}
    return [name for base in bases for name in inspect.signature(base).parameters]
