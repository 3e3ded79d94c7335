"""Types of plug-ins by name; to list the names imports none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimlight.registry import Registry

if TYPE_CHECKING:
    from vimlight.plugins.base import Unit

__all__ = ["PLUGINS"]

PLUGINS: Registry[type[Unit]] = Registry("plug-in", "vimlight.plugins", "PLUGINS", group="vimlight.plugins")
