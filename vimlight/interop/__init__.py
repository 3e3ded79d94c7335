"""Other people's formats: one folder or file a format, which reads it into a zoo and writes a zoo in it.

A format is a `Format` subclass under `@FORMATS.register(name)`; `vimlight zoo import` and `vimlight zoo export` find
it by that name. What the file does not say, such as a backbone, is an option of `import_zoo`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimlight.lazy import lazily

if TYPE_CHECKING:
    from vimlight.interop.base import Fact, Format
    from vimlight.interop.registry import FORMATS

__all__ = ["FORMATS", "Fact", "Format"]

_PLACES = {
    "FORMATS": "registry",
    "Fact": "base",
    "Format": "base",
}

__getattr__ = lazily(__name__, _PLACES)
