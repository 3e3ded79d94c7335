"""Files of numpy's arrays, read without unpickling, and what numpy raises where one is damaged."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from typing import Any, Literal

import numpy as np

__all__ = ["ARRAY_FAULTS", "load_array"]

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
