"""The files of a cache as they are read: there, whole, and what the manifest says."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vimlight.errors import CacheError
from vimlight.files.absent import absence
from vimlight.files.arrays import ARRAY_FAULTS, load_array
from vimlight.files.leftovers import recover
from vimlight.transmiter.cache.manifest import MANIFEST

__all__ = ["check_directory", "check_size", "file_sha256", "forget", "mapped", "present"]


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_directory(directory: Path) -> None:
    """Checks that a directory is a cache's, after giving it its name back where whoever replaced it was killed.

    Raises:
        CacheError: If it is not.
    """
    recover(directory)
    if directory.is_dir():
        if not (directory / MANIFEST).is_file():
            raise CacheError(f"{str(directory)!r} is no logit cache: it has no {MANIFEST}")
        return
    raise CacheError(f"logit cache {str(directory)!r} {absence(directory, folder=True)}")


def check_size(path: Path, size: int) -> None:
    """Checks that a file of a cache is there, whole.

    Raises:
        CacheError: If it is not.
    """
    if not path.is_file():
        raise CacheError(f"logit cache {str(path.parent)!r} is not whole: {path.name} is missing")
    if path.stat().st_size != size:
        raise CacheError(
            f"logit cache {str(path.parent)!r} is not whole: {path.name} has {path.stat().st_size} bytes instead of "
            f"{size}"
        )


@contextmanager
def present() -> Iterator[None]:
    """Says in a line that a file is missing.

    Raises:
        CacheError: Where one is, within this context.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise CacheError(f"{error.filename} is missing, or its cache is being replaced; open it again") from error


def mapped(path: Path, shape: tuple[int, ...], dtype: str) -> np.memmap[Any, Any]:
    """Maps an array of a cache.

    Args:
        path: Its file.
        shape: The shape that the manifest says.
        dtype: The type that it says.

    Raises:
        CacheError: If the file is missing, damaged, or holds another array.
    """
    try:
        with present():
            array: np.memmap[Any, Any] = load_array(path, "r")
    except ARRAY_FAULTS as error:
        raise CacheError(f"{path} is damaged or cannot be read: {' '.join(str(error).split())}") from error
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise CacheError(f"{path} holds {array.dtype} {array.shape}, the manifest says {dtype} {shape}")
    return array


def forget(array: np.memmap[Any, Any]) -> None:
    """Gives back the memory of what was touched of a mapped file, which would count until it is closed.

    Args:
        array: The mapped array; whoever reads it again finds what is there.
    """
    mapping, advice = array.base, getattr(mmap, "MADV_DONTNEED", None)
    if isinstance(mapping, mmap.mmap) and advice is not None:
        mapping.madvise(advice)
