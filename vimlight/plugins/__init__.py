"""Plug-in modules: light additions to a frozen backbone, one set of parameters per site.

A plug-in *type* is one file in this folder (or anywhere else) with a `Unit` subclass under `@PLUGINS.register(name)`:
its parameters for one site, its forward, and how several of them widen into one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimlight.lazy import lazily

if TYPE_CHECKING:
    from vimlight.plugins.attachment import Attachment, Slot, attach
    from vimlight.plugins.base import Plugin, Tap, Unit, WideUnit, create_plugin, list_plugins, widen
    from vimlight.plugins.registry import PLUGINS

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

_PLACES = {
    "PLUGINS": "registry",
    "Attachment": "attachment",
    "Plugin": "base",
    "Slot": "attachment",
    "Tap": "base",
    "Unit": "base",
    "WideUnit": "base",
    "attach": "attachment",
    "create_plugin": "base",
    "list_plugins": "base",
    "widen": "base",
}

__getattr__ = lazily(__name__, _PLACES)
