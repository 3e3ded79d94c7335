"""The exceptions of the package: one or two lines that say what is wrong, what was expected and what to do.

Every error that a user can cause derives from `VimlightError`; the command line prints its text without a traceback
and leaves with its `exit_code`. A message names the thing, then the expectation, then the nearest valid choice.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

__all__ = [
    "AdapterError",
    "BackboneError",
    "CacheError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "ExportError",
    "FingerprintError",
    "JobError",
    "PluginError",
    "RankError",
    "TrainingError",
    "UnknownNameError",
    "VimlightError",
    "ZooError",
    "nearest",
    "printable",
    "shown",
    "unknown_name",
]

# What a message has room for; a value that is nested without end has no whole text.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel = 3


class VimlightError(Exception):
    """Base of every error that a user can cause; `exit_code` is what the command line leaves with."""

    exit_code = 2


class UnknownNameError(VimlightError, KeyError):
    """A name that is in no registry; the text lists the nearest valid names."""

    def __str__(self) -> str:
        # KeyError would print the repr of its argument, quotes and all.
        return str(self.args[0]) if self.args else ""


class ConfigError(VimlightError):
    """A setting that is misspelt, of the wrong type or at odds with another."""


class BackboneError(VimlightError):
    """A backbone that cannot be created, loaded or given plug-ins."""


class FingerprintError(BackboneError):
    """A module meets a backbone other than the one it was trained on."""


class PluginError(VimlightError):
    """A plug-in that cannot be built, attached, widened or merged as asked."""


class ZooError(VimlightError):
    """A zoo file that is missing, truncated, altered or of another format."""


class DataError(VimlightError):
    """Data that is missing, unreadable or too small for what was asked."""


class CacheError(VimlightError):
    """A logit cache that is missing, incomplete, altered, of another format, or no match for another one."""


class AdapterError(VimlightError):
    """An adapter file that is missing, altered or of another format, or an adapter that meets other classes."""


class CheckpointError(VimlightError):
    """A checkpoint that does not fit the model it is loaded into."""


class TrainingError(VimlightError):
    """A training whose loss, gradients or weights are no longer finite."""


class RankError(VimlightError):
    """A training by several processes, another one of which has ended."""

    exit_code = 1


class ExportError(VimlightError):
    """A model that cannot be written in another format as asked."""


class JobError(VimlightError):
    """A job of a comparison whose worker ended before it had a result."""


def nearest(name: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """Returns up to `count` of the choices that are spelt most like `name`, best first.

    Args:
        name: What was typed.
        choices: The valid names.
        count: How many to return at most.
    """
    by_folded = {choice.casefold(): choice for choice in choices}
    return [by_folded[match] for match in difflib.get_close_matches(name.casefold(), by_folded, count, cutoff=0.5)]


def shown(value: object) -> str:
    """Returns a value of a file as messages show it, cut where it is long or deeply nested."""
    return _SHORT.repr(value)


def printable(text: str) -> str:
    """Returns a text as a terminal may show it: nothing in it steers the terminal, lines stay lines."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> UnknownNameError:
    """Builds the error for a name that does not exist.

    Args:
        kind: What the name stands for, such as `"plug-in"`.
        name: What was typed.
        choices: The valid names.
    """
    known = sorted(choices)
    close = nearest(name, known)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"valid: {_shortened(known)}"
    return UnknownNameError(f"unknown {kind} {name!r}; {hint}")


def _shortened(names: list[str], limit: int = 20) -> str:
    shown = ", ".join(names[:limit]) or "none"
    return shown + (f", ... ({len(names)} in all)" if len(names) > limit else "")
