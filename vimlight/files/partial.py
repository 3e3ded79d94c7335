"""A file that comes from elsewhere piece by piece: whoever is killed meanwhile leaves what has come to the next one."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows has none.
    fcntl = None  # type: ignore[assignment]

__all__ = ["PIECE", "Partial", "partial", "sweep_partials"]

# Bytes that are moved at once.
PIECE = 1 << 20
_HIDDEN = re.compile(r"\.(?P<stem>.+)\.[0-9a-f]{16}\.partial(?P<suffix>\.\w+)?")


class Partial:
    """What has come of a file so far.

    Args:
        path: Its hidden name.
        file: It, opened to read and to append.

    Attributes:
        path: Its hidden name.
        size: Bytes that are there.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.size = path, 0
        self._file, self._digest = file, hashlib.sha256()
        file.seek(0)
        while piece := file.read(PIECE):
            self._count(piece)

    def append(self, piece: bytes) -> None:
        """Adds what comes next."""
        self._file.write(piece)
        self._count(piece)

    def finish(self) -> str:
        """Brings it down to the disk and returns the SHA-256 of its content."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Removes it: what has come is of no use."""
        self.path.unlink(missing_ok=True)

    def _count(self, piece: bytes) -> None:
        self._digest.update(piece)
        self.size += len(piece)


@contextmanager
def partial(final: Path, sha256: str) -> Iterator[Partial]:
    """Opens the hidden file beside the final one that its content is collected in, alone among processes.

    Its name says which content is expected; what was collected of another one is removed.

    Args:
        final: The name that the file shall get, which whoever completes it gives it.
        sha256: The SHA-256 of its whole content.
    """
    path = final.with_name(f".{final.stem}.{sha256[:16]}.partial{final.suffix}")
    earlier = re.compile(rf"{re.escape(f'.{final.stem}.')}[0-9a-f]{{16}}{re.escape(f'.partial{final.suffix}')}")
    for other in final.parent.glob(".*.partial*"):
        if earlier.fullmatch(other.name) and other != path:
            other.unlink(missing_ok=True)
    with _alone(path) as file:
        yield Partial(path, file)


def sweep_partials(directory: Path) -> None:
    """Removes the hidden names of files that have their final names too: whoever gave them those was killed there.

    Args:
        directory: Where the files are.
    """
    for path in directory.glob(".*.partial*"):
        found = _HIDDEN.fullmatch(path.name)
        final = path.with_name(f"{found['stem']}{found['suffix']}") if found else path
        with suppress(FileNotFoundError):
            if final != path and path.samefile(final):
                path.unlink()


@contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    while True:
        with path.open("a+b") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever had it before may have given it its final name meanwhile.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                yield file
                return
