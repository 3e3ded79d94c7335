"""Plug-in modules: light additions to a frozen backbone, one set of parameters per site.

A plug-in *type* is one file in this folder (or anywhere else) with a `Unit` subclass under `@PLUGINS.register(name)`:
its parameters for one site, its forward, and how several of them widen into one.
"""

from __future__ import annotations

from vimlight.plugins.attachment import Attachment, Slot, attach
from vimlight.plugins.base import PLUGINS, Plugin, Tap, Unit, WideUnit, create_plugin, list_plugins, widen

__all__ = [
    "PLUGINS",
    "Attachment",
    "Plugin",
    "Slot",
    "Tap",
    "Unit",
    "WideUnit",
    "attach",
    "create_plugin",
    "list_plugins",
    "widen",
]
