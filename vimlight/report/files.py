"""Result files: whole or absent, and never replaced unless asked."""

from __future__ import annotations

from pathlib import Path

from vimlight.atomic import publish, temporary
from vimlight.errors import ConfigError

__all__ = ["refuse_existing", "write_whole"]


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuses a path where something is, or whose parent is a file.

    Args:
        path: Where a file shall be written.
        overwrite: Whether a file may be replaced.

    Raises:
        ConfigError: If a file is there and `overwrite` is false, or a directory is.
    """
    if path.is_dir():
        raise ConfigError(f"{str(path)!r} is a directory; give the path of a file")
    if path.exists() and not overwrite:
        raise ConfigError(f"{str(path)!r} exists; choose another path or set overwrite=True")


def write_whole(path: str | Path, content: str | bytes, *, overwrite: bool = False) -> Path:
    """Writes a file under a temporary name and renames it, creating its directory.

    Args:
        path: Where to write.
        content: Text, written as UTF-8, or bytes.
        overwrite: Whether an existing file is replaced.

    Returns:
        The path.

    Raises:
        ConfigError: If the file exists and `overwrite` is false.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary(path, content.encode() if isinstance(content, str) else content) as copy:
        try:
            publish(copy, path, overwrite)
        except FileExistsError:
            raise ConfigError(f"{str(path)!r} was written by another process meanwhile") from None
    return path
