"""Reading files that another process may replace, whole, at any moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from vimlight.errors import VimlightError

__all__ = ["unreplaced"]

T = TypeVar("T")


def unreplaced(path: Path, read: Callable[[Path], T]) -> T:
    """Reads a file again for as long as it is replaced meanwhile.

    safetensors (0.8) takes the header from one opening of the file and the tensors from a second one, by name, so that
    those of two files may meet. What is refused is believed only of a file that stood still.

    Args:
        path: The file.
        read: What reads it.
    """
    while True:
        before = _identity(path)
        try:
            found = read(path)
        except (OSError, VimlightError):
            if _identity(path) == before:
                raise
        else:
            if _identity(path) == before:
                return found


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Returns what changes when another file takes a path; nothing where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
