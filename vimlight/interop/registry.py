"""Formats of other tools by name; to list the names imports none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimlight.registry import Registry

if TYPE_CHECKING:
    from vimlight.interop.base import Format

__all__ = ["FORMATS"]

FORMATS: Registry[type[Format]] = Registry("format", "vimlight.interop", "FORMATS")
