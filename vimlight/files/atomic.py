"""Files and directories that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vimlight.errors import ConfigError
from vimlight.files.leftovers import hidden, recover, set_aside, sweep

try:
    import fcntl
except ImportError:  # Windows has none, and hard links.
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "check_writable",
    "locked",
    "publish",
    "publish_directory",
    "refuse_existing",
    "temporary",
    "temporary_directory",
    "write_whole",
]

# Less room than this holds no result.
_LEAST = 1 << 16


@contextmanager
def temporary(final: Path, content: bytes, *, sync: bool = True) -> Iterator[Path]:
    """Writes a hidden file beside the final one, down to the disk, and removes it afterwards if it is still there.

    Args:
        final: The name that the file shall get.
        content: What it holds.
        sync: Whether to wait until it has reached the disk; not for what could be made again.
    """
    path = hidden(final)
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
        # The file system has no links. A lock ends with its owner, however that ends.
        with locked(final.parent):
            if final.exists():
                raise FileExistsError(str(final)) from None
            copy.replace(final)


def refuse_existing(path: Path, overwrite: bool, way: str = "overwrite=True") -> None:
    """Refuses a path where something is, or where nothing can be written.

    Args:
        path: Where a file shall be written.
        overwrite: Whether a file may be replaced.
        way: How the caller says that one may be; nothing where it cannot be said.

    Raises:
        ConfigError: If a file is there and `overwrite` is false, or a directory is, or nothing can be written.
    """
    check_writable(path.parent)
    if path.is_dir():
        raise ConfigError(f"{str(path)!r} is a directory; give the path of a file")
    if path.exists() and not overwrite:
        raise ConfigError(f"{str(path)!r} exists; choose another path{f' or pass {way}' if way else ''}")


def write_whole(path: str | Path, content: str | bytes, *, overwrite: bool = False) -> Path:
    """Writes a file under a temporary name and renames it, creating its directory.

    Args:
        path: Where to write.
        content: Text, written as UTF-8, or bytes.
        overwrite: Whether an existing file is replaced.

    Returns:
        The path.

    Raises:
        ConfigError: If the file exists and `overwrite` is false, or it cannot be written.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        with temporary(path, content.encode() if isinstance(content, str) else content) as copy:
            publish(copy, path, overwrite)
    except FileExistsError:
        raise ConfigError(f"{str(path)!r} was written by another process meanwhile") from None
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be written: {error.strerror}") from error
    return path


def check_writable(directory: Path) -> None:
    """Checks before the work that its results can be written; nothing is written for that.

    Args:
        directory: Where they shall go; it need not exist yet.

    Raises:
        ConfigError: If a file is in the way, the place is read-only or its disk is full.
    """
    place = directory.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise ConfigError(f"nothing can be written to {str(directory)!r}: {str(place)!r} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"nothing can be written to {str(directory)!r}: {str(place)!r} is read-only")
    if shutil.disk_usage(place).free < _LEAST:
        raise ConfigError(f"nothing can be written to {str(directory)!r}: its disk is full")


@contextmanager
def temporary_directory(final: Path) -> Iterator[Path]:
    """Makes a hidden directory beside the final one, and removes it afterwards if it is still there.

    Args:
        final: The name that the directory shall get; its parents are created.
    """
    recover(final)
    path = hidden(final)
    path.mkdir(parents=True)
    sweep(path.parent)
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
    while not _named(copy, final, overwrite):
        # Another process was faster: what is there is whole.
        if not overwrite:
            raise FileExistsError(str(final))
    _sync(final.parent)


def _named(copy: Path, final: Path, overwrite: bool) -> bool:
    """Gives a directory its name, which what has it loses; tells whether no other process took it meanwhile."""
    old = None
    if overwrite:
        # A directory with content cannot be replaced in one step; nobody finds half of one in between, and who is
        # killed there leaves what `recover` takes back.
        with suppress(FileNotFoundError):
            old = set_aside(final)
    try:
        copy.rename(final)
    except OSError:
        if final.exists():
            return False
        if old is not None:
            old.rename(final)
        raise
    finally:
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps other processes out of a directory, where the system can."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
