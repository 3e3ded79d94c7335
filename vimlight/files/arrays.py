"""What numpy raises where a file of arrays is damaged."""

from __future__ import annotations

import tokenize
import zipfile
import zlib

__all__ = ["ARRAY_FAULTS"]

# A header is parsed as Python, members of a zip file are decompressed, and sizes are believed.
ARRAY_FAULTS = (
    OSError, ValueError, EOFError, LookupError, TypeError, OverflowError, MemoryError, SyntaxError, NotImplementedError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
