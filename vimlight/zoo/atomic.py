"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["publish", "temporary"]


@contextmanager
def temporary(final: Path, content: bytes) -> Iterator[Path]:
    """Writes a hidden file beside the final one, down to the disk, and removes it afterwards if it is still there.

    Args:
        final: The name that the file shall get.
        content: What it holds.
    """
    path = final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")
    try:
        with path.open("xb") as file:
            file.write(content)
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
