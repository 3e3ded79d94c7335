"""What runs leave on disk, found and read. A new kind is one new file here under `@READERS.register(name)`."""

from __future__ import annotations

from vimlight.pages.sources.base import READERS, Found, Reader, Run, find

__all__ = ["READERS", "Found", "Reader", "Run", "find"]
