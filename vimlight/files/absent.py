"""What is said of a path that is not there, or is not what was asked for."""

from __future__ import annotations

from pathlib import Path

from vimlight.errors import nearest
from vimlight.files.text import is_file

__all__ = ["absence"]


def absence(path: Path, *, folder: bool = False, pattern: str = "*") -> str:
    """Says what is wrong with a path, as the end of a sentence that begins with it.

    Args:
        path: A path that is no file, or no directory.
        folder: Whether it should be a directory.
        pattern: What names of files that may be meant look like.

    Returns:
        That something else is there, or that nothing is, with the nearest of its kind beside it: a file by its name, a
        directory by its path.
    """
    if folder and is_file(path):
        return "is a file, not a directory"
    if not folder and _is_directory(path):
        return "is a directory, not a file"
    beside = path.parent.glob(pattern) if _is_directory(path.parent) else ()
    names = [each.name for each in beside if (each.is_dir() if folder else is_file(each)) and each.name[0] != "."]
    close = nearest(path.name, names, 1)
    if not close:
        return "does not exist"
    meant = str(path.parent / close[0]) if folder else close[0]
    return f"does not exist; did you mean {meant!r}?"


def _is_directory(path: Path) -> bool:
    """Tells whether a directory is there; one whose name none can have is not."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
