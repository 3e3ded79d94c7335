"""JSON that others wrote, read with suspicion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vimlight.errors import VimlightError, shown

__all__ = ["check_version", "json_object", "json_of"]

# How letters begin that may be one half of a pair.
_HALVES = (b"\\ud", b"\\uD", b"\xed")


def json_of(text: str | bytes, what: str, error: type[VimlightError]) -> Any:
    """Returns what a JSON text says.

    Args:
        text: The text, or its bytes in UTF-8.
        what: What it is, as messages say it, such as `"the card"`.
        error: What to raise.

    Raises:
        VimlightError: `error`, if it is no JSON, no UTF-8, or nested deeper than anything that is meant to be read.
    """
    try:
        found = json.loads(text)
        if any(mark in (text if isinstance(text, bytes) else text.encode()) for mark in _HALVES):
            # Halves of letters would be refused by the files that they are written to.
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except RecursionError as deep:
        raise error(f"{what} is damaged: its JSON is nested too deeply") from deep
    except ValueError as reason:
        raise error(f"{what} is no JSON: {reason}") from reason


def json_object(text: str | bytes, what: str, error: type[VimlightError]) -> dict[str, Any]:
    """Returns the keys and values of a JSON object; see `json_of`.

    Raises:
        VimlightError: `error`, as there, or if it is something else than an object.
    """
    content = json_of(text, what, error)
    if not isinstance(content, dict):
        raise error(f"{what} must be a JSON object, not {type(content).__name__}")
    return content


def check_version(
    content: Mapping[str, Any],
    known: int,
    error: type[VimlightError],
    *,
    what: str = "",
    key: str = "format_version",
    unstated: int | None = None,
) -> int:
    """Returns the version of a file's format.

    Args:
        content: What the file says of itself.
        known: The newest version that is read.
        error: What to raise.
        what: What it is, as messages say it in front.
        key: Where it says its version.
        unstated: The version of files that do not say it; without one, they must.

    Raises:
        VimlightError: `error`, if it does not say its version, or that is no whole number from 1 on, or newer.
    """
    front = f"{what}: " if what else ""
    if key not in content and unstated is None:
        raise error(f"{front}it does not say its {key!r}; write it again with vimlight")
    version = content.get(key, unstated)
    if type(version) is not int or version < 1:
        raise error(f"{front}{key} must be a whole number from 1 on, not {shown(version)}")
    if version > known:
        raise error(
            f"{front}written by a newer vimlight (format {version}, this one reads up to {known}): upgrade vimlight"
        )
    return version
