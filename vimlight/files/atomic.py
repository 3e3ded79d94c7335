"""Files and directories that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vimlight.errors import ConfigError

__all__ = [
    "publish",
    "publish_directory",
    "refuse_existing",
    "temporary",
    "temporary_directory",
    "write_whole",
]


@contextmanager
def temporary(final: Path, content: bytes, *, sync: bool = True) -> Iterator[Path]:
    """Writes a hidden file beside the final one, down to the disk, and removes it afterwards if it is still there.

    Args:
        final: The name that the file shall get.
        content: What it holds.
        sync: Whether to wait until it has reached the disk; not for what could be made again.
    """
    path = _hidden(final)
    try:
        with path.open("xb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def publish(copy: Path, final: Path, overwrite: bool) -> None:
    """Gives a finished file its final name; of several writers of a new name exactly one succeeds.

    Args:
        copy: The finished file.
        final: Its final name, in the same directory.
        overwrite: Whether a file of that name is replaced.

    Raises:
        FileExistsError: If the name is taken and `overwrite` is false.
    """
    if overwrite:
        copy.replace(final)
        return
    try:
        # Unlike a rename, a link is refused where the name exists.
        os.link(copy, final)
    except FileExistsError:
        raise
    except OSError:
        # The file system has no links: claim the name with an empty file, then replace that.
        final.touch(exist_ok=False)
        copy.replace(final)


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


@contextmanager
def temporary_directory(final: Path) -> Iterator[Path]:
    """Makes a hidden directory beside the final one, and removes it afterwards if it is still there.

    Args:
        final: The name that the directory shall get; its parents are created.
    """
    path = _hidden(final)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def publish_directory(copy: Path, final: Path, overwrite: bool) -> None:
    """Brings the files of a finished directory down to the disk and gives it its final name.

    Args:
        copy: The finished directory.
        final: Its final name, in the same parent.
        overwrite: Whether a directory of that name is replaced.

    Raises:
        FileExistsError: If the name is taken and `overwrite` is false.
    """
    for path in [*sorted(copy.rglob("*")), copy]:
        _sync(path)
    if final.exists() and not overwrite:
        raise FileExistsError(str(final))
    if not final.exists():
        _rename_new(copy, final)
    else:
        # A directory with content cannot be replaced in one step; nobody finds half of one in between.
        old = _hidden(final)
        final.rename(old)
        copy.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    _sync(final.parent)


def _rename_new(copy: Path, final: Path) -> None:
    try:
        copy.rename(final)
    except OSError as error:
        # Another process was faster: what is there is whole.
        if final.exists():
            raise FileExistsError(str(final)) from error
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hidden(final: Path) -> Path:
    return final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")
