"""The exceptions of the package: one or two lines that say what is wrong, what was expected and what to do.

Every error that a user can cause derives from `VimlightError`; the command line prints its text without a traceback
and leaves with its `exit_code`. A message names the thing, then the expectation, then the nearest valid choice.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Sequence

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
    "cut",
    "listed",
    "nearest",
    "printable",
    "shown",
    "unknown_name",
]

# What a message has room for; a value that is nested without end has no whole text.
_LONGEST = 80
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = _LONGEST
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
    # Of few letters one that is wrong makes up much.
    cutoff = 0.5 if len(name) < 4 else 0.6
    return [by_folded[match] for match in difflib.get_close_matches(name.casefold(), by_folded, count, cutoff=cutoff)]


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
    hint = f"did you mean {' or '.join(map(shown, close))}?" if close else f"valid: {listed(known)}"
    return UnknownNameError(f"unknown {kind} {shown(name)}; {hint}")


def cut(text: object, longest: int = _LONGEST) -> str:
    """Returns a text as messages show it: the beginning of one that is longer than this."""
    whole = str(text)
    return whole if len(whole) <= longest else f"{whole[:longest]}..."


def listed(names: Sequence[str], limit: int = 20) -> str:
    """Returns names as messages list them: some of them, each cut where it is long.

    Args:
        names: The names.
        limit: How many to list at most.
    """
    some = ", ".join(cut(name) for name in names[:limit]) or "none"
    return some + (f", ... ({len(names)} in all)" if len(names) > limit else "")
