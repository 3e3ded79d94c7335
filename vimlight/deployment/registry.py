"""Formats that a deployed model is written in by name; to list the names imports none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimlight.registry import Registry

if TYPE_CHECKING:
    from vimlight.deployment.formats import Format

__all__ = ["FORMATS"]

FORMATS: Registry[Format] = Registry("export format", "vimlight.deployment", "FORMATS")
