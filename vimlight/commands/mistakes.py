"""Turns the long errors of a config parser into one or two lines."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning.pytorch import callbacks, loggers
from lightning.pytorch.trainer.connectors import checkpoint_connector
from torch import optim
from torch.optim import lr_scheduler

from vimlight.errors import VimlightError, nearest

__all__ = ["cause", "explain", "while_restoring"]

_TOP = ("model", "data", "trainer", "predictions", "report", "ckpt_path", "seed_everything", "config")
_IN_EVERY_CLASS = ("class_path", "init_args")
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


def while_restoring(error: BaseException) -> bool:
    """Tells whether an error was raised while Lightning took up a checkpoint.

    Args:
        error: What was caught.
    """
    codes = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
    names = (code.co_name for code in codes if code.co_filename == checkpoint_connector.__file__)
    return any(name.strip("_").startswith(("restore", "resume")) for name in names)


def explain(message: str, classes: Iterable[type], top: Sequence[str] = _TOP) -> str:
    """Shortens a parser's message to the key, the value, what was expected and the nearest valid name.

    Args:
        message: The parser's message, of many lines.
        classes: The classes whose names and arguments may have been misspelt.
        top: The outermost keys.
    """
    known = list(classes)
    return (
        _unknown_key(message, known, top)
        or _missing_file(message)
        or _unknown_class(message, known)
        or _wrong_type(message)
        or _missing_key(message)
        or _no_config(message)
        or _first_line(message)
    )


def _unknown_key(message: str, classes: Sequence[type], outermost: Sequence[str]) -> str | None:
    key = _first_match(_UNKNOWN_KEY, message)
    if key is None:
        stray = re.search(r"unrecognized arguments: (\S+)", message)
        return f"unexpected argument {stray[1]!r}" if stray else None
    top, _, _ = key.partition(".")
    if top not in outermost and re.search("Subcommand|unrecognized", message):
        return f"unknown key {top!r}{_hint(top, outermost)}"
    name = key.rpartition(".")[2]
    return f"unknown key {key!r}{_hint(name, _arguments(classes)) or _hint(name, _arguments(_optimisation()))}"


def _missing_file(message: str) -> str | None:
    found = re.search(r"File does not exist: '?([^'\n]+)", message)
    if not found:
        return None
    path = Path(found[1])
    siblings = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
    return f"{_where(message)}file {path.name!r} does not exist{_hint(path.name, siblings)}"


def _unknown_class(message: str, classes: Sequence[type]) -> str | None:
    # A number may also be given as a tensor, by the path of a function that makes it; nobody means that.
    path = None if "torch.Tensor" in message else _first_match(_UNKNOWN_CLASS, message)
    if path is None:
        return None
    names = [kind.__name__ for kind in [*classes, *_optimisation()]] + [*callbacks.__all__, *loggers.__all__]
    given = _given(message) or path
    if given.startswith("{"):
        given = path
    return f"{_where(message)}unknown class {given!r}{_hint(given.rpartition('.')[2], names)}"


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
    return value[1].strip() if value else None


def _hint(name: str, valid: Iterable[str]) -> str:
    close = nearest(name, sorted(set(valid)), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _arguments(classes: Iterable[type]) -> list[str]:
    """Lists the arguments of the classes, those that they pass on to their bases included."""
    bases = {base for known in classes for base in known.__mro__ if "__init__" in vars(base) and base is not object}
    return [*_IN_EVERY_CLASS, *_TOP, *(name for base in bases for name in inspect.signature(base).parameters)]


def _optimisation() -> list[type]:
    """Lists torch's optimisers and schedules."""
    found = [*vars(optim).values(), *vars(lr_scheduler).values()]
    bases = (optim.Optimizer, lr_scheduler.LRScheduler)
    return [kind for kind in found if inspect.isclass(kind) and issubclass(kind, bases)]
