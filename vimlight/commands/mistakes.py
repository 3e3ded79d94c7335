"""Turns the long errors of a config parser into one or two lines."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch.trainer.connectors import checkpoint_connector

from vimlight.commands.keys import Keys, Typed
from vimlight.errors import ConfigError, VimlightError, nearest
from vimlight.masking import MASK, is_secret_name
from vimlight.trust import refusal

__all__ = ["Mistake", "Raising", "cause", "explain", "while_restoring"]

_UNKNOWN_KEY = (
    r"Option '([\w.]+)' is not accepted",
    r"Key '([\w.]+)' is not expected",
    r"does not accept option '([\w.]+)'",
    r"unrecognized arguments: --([\w.]+)",
    r"NestedArg\(key='([\w.]+)'",
)
_UNKNOWN_CLASS = (
    r"Expected a dot import path string: ([\w.]+)",
    r"expects a function or a callable class: (?:module '[\w.]+' has no attribute|No module named) '([\w.]+)'",
    r"[Ii]mport path[^:]*: '?([\w.]+)",
    r"given class_path '([\w.]+)':\s+(?:module '[\w.]+' has no attribute|No module named)",
)
_KEY = re.compile(r"[Kk]ey \"?'?([\w.]+)")
_VALUE = re.compile(r"(?:Given value|Got value): (.*)")
_EXPECTED = re.compile(r"Expected an? (?:<class '(?:[\w]+\.)*(\w+)'>|typing\.Literal\[(.+)\])")
_NOISE = re.compile(r"Parser key|Does not validate|Subtypes:|Errors:|Given value|<class 'NoneType'>|not accessible")
_PLAIN = {"Sequence": "list", "Iterable": "list", "Mapping": "dict"}


class Mistake(ConfigError):
    """What a config parser complains of, at its own length; see `explain`."""


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


class Raising:
    """What makes the errors of a config parser exceptions; it goes before the parser's class."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Raises the mistake.

        Args:
            message: What the parser complains of.
            ex: What it caught.

        Raises:
            Mistake: Always, unless an error of the package is behind it.
        """
        own = cause(ex) if ex is not None else None
        raise own or Mistake(message) from ex


def while_restoring(error: BaseException) -> bool:
    """Tells whether an error was raised while Lightning took up a checkpoint.

    Args:
        error: What was caught.
    """
    codes = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
    names = (code.co_name for code in codes if code.co_filename == checkpoint_connector.__file__)
    return any(name.strip("_").startswith(("restore", "resume")) for name in names)


def explain(message: str, keys: Keys, typed: Typed = ()) -> str:
    """Shortens a parser's message to the key, the value, what was expected and the nearest valid name.

    Args:
        message: The parser's message, of many lines.
        keys: The keys that there are.
        typed: Those that were typed.
    """
    return (
        _not_trusted(message)
        or _unknown_key(message, keys, typed)
        or _bad_path(message)
        or _unknown_class(message, keys)
        or _own_words(message)
        or _wrong_type(message)
        or _missing_key(message)
        or _no_config(message)
        or _first_line(message)
    )


def _not_trusted(message: str) -> str | None:
    found = re.search(r"Importing '([\w.]+)' is not allowed, denied by the '([\w.*]+)' entry", message)
    return refusal(found[1], _where(message), found[2]) if found else None


def _unknown_key(message: str, keys: Keys, typed: Typed) -> str | None:
    key = _first_match(_UNKNOWN_KEY, message)
    if key is not None:
        return keys.explain(key, typed)
    stray = re.search(r"unrecognized arguments: (\S+)", message)
    return f"unexpected argument {stray[1]!r}" if stray else None


def _bad_path(message: str) -> str | None:
    no_file = re.search(r"Path is not a file: '?([^'\n]+)", message)
    if no_file:
        return f"{_where(message)}{_near_here(no_file[1])!r} is a directory, not a file"
    found = re.search(r"File does not exist: '?([^'\n]+)", message)
    if not found:
        return None
    path = Path(found[1])
    siblings = [file.name for file in path.parent.glob("*") if file.is_file()] if path.parent.is_dir() else []
    return f"{_where(message)}file {_near_here(path)!r} does not exist{_hint(path.name, siblings)}"


def _near_here(path: str | Path) -> str:
    """Returns a path from the current directory on, where it lies within."""
    return str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else str(path)


def _unknown_class(message: str, keys: Keys) -> str | None:
    # A number may also be given as a tensor, by the path of a function that makes it; nobody means that.
    path = None if "torch.Tensor" in message else _first_match(_UNKNOWN_CLASS, message)
    if path is None:
        return None
    where = _where(message)
    given = _given(message) or path
    if given.startswith("{"):
        given = path
    return f"{where}unknown class {given!r}{_hint(given.rpartition('.')[2], keys.classes(where.removesuffix(': ')))}"


def _own_words(message: str) -> str | None:
    """Returns what a class itself says of its arguments, which a parser lists among the types that do not fit."""
    if "Given value: Namespace(" not in message:
        return None
    errors = message.partition("Errors:")[2].partition("Given value")[0]
    said = [" ".join(part.split()) for part in re.split(r"\n\s*- ", errors)]
    said = [text for text in said if text and not re.match("Expected an?|Does not validate", text)]
    return f"{_where(message)}{said[0]}" if said else None


def _wrong_type(message: str) -> str | None:
    kinds = [_PLAIN.get(kind, kind) or choices for kind, choices in _EXPECTED.findall(message)]
    kinds = [kind for kind in dict.fromkeys(kinds) if kind != "NoneType"]
    if not kinds:
        return None
    return f"{_where(message)}expected {' or '.join(kinds)}, got {_given(message)!r}"


def _missing_key(message: str) -> str | None:
    found = re.search(r"arguments are required: (.*)", message) or re.search(r"Key '([\w.]+)' is required", message)
    if not found:
        return None
    names = [re.sub(r"^(fit|validate|test|predict)\.", "", name) for name in found[1].split(", ")]
    return f"{_where(message)}missing {', '.join(map(repr, names))}; set it in a config file (--config FILE)"


def _no_config(message: str) -> str | None:
    if message.startswith("Unexpected config"):
        return "a config file must hold keys with values, such as 'model:' and 'data:'"
    if "Problems parsing config" not in message:
        return None
    line = re.search(r"line (\d+)", message)
    return "the config file is no valid YAML" + (f" (line {line[1]})" if line else "")


def _first_line(message: str) -> str:
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    return next((line for line in lines if not _NOISE.search(line)), lines[0] if lines else "the config is wrong")


def _first_match(patterns: Iterable[str], message: str) -> str | None:
    found = (re.search(pattern, message) for pattern in patterns)
    return next((match[1] for match in found if match), None)


def _where(message: str) -> str:
    """Returns the outermost key and the innermost one, with a colon behind."""
    keys = _KEY.findall(message)
    nested = [key for key in keys[1:] if not keys[0].endswith(key)]
    where = ".".join([*keys[:1], *nested[-1:]])
    return f"{where}: " if where else ""


def _given(message: str) -> str | None:
    value = _VALUE.search(message)
    if value and any(is_secret_name(key) for key in _KEY.findall(message)):
        return MASK
    return value[1].strip() if value else None


def _hint(name: str, valid: Iterable[str]) -> str:
    close = nearest(name, sorted(set(valid)), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
