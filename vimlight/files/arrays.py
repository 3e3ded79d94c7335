"""Files of numpy's arrays, read without unpickling, and what numpy raises where one is damaged."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

__all__ = ["ARRAY_FAULTS", "load_array", "load_member"]

# A header is parsed as Python, members of a zip file are decompressed, and sizes are believed.
ARRAY_FAULTS = (
    OSError, ValueError, EOFError, LookupError, TypeError, OverflowError, MemoryError, SyntaxError, NotImplementedError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def load_array(file: Any, mmap_mode: Literal["r", "c"] | None = None) -> Any:
    """Returns the array of an `.npy` file.

    Args:
        file: Its path, or an open file.
        mmap_mode: As in `numpy.load`.

    Raises:
        ValueError: If it is a zip file, which numpy opens whatever its name is; for other damage see `ARRAY_FAULTS`.
    """
    found = np.load(file, mmap_mode=mmap_mode, allow_pickle=False)
    if not isinstance(found, np.ndarray):
        found.close()
        raise ValueError("it is a zip file, not one array")
    return found


def load_member(file: Path, key: str, most: int) -> Any:
    """Returns one array of an `.npz` file.

    Args:
        file: The file.
        key: Name of the array.
        most: How many bytes it may take: a small file may unpack to any size.

    Raises:
        KeyError: If there is no such array; the error's argument lists those that there are.
        ValueError: If it takes more, or the file is no zip file; for other damage see `ARRAY_FAULTS`.
    """
    found = np.load(file, allow_pickle=False)
    if isinstance(found, np.ndarray):
        raise ValueError("it is one array, not a zip file of several")
    with found as arrays:
        if key not in arrays:
            raise KeyError(list(arrays))
        size = sum(member.file_size for member in arrays.zip.infolist() if member.filename in (key, f"{key}.npy"))
        if size > most:
            raise ValueError(f"array {key!r} unpacks to {size} bytes, more than {most}")
        return arrays[key]
