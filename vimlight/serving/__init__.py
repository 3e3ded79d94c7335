"""Serving: several downstream tasks over one backbone behind one page and one address, each image in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimlight.lazy import lazily

if TYPE_CHECKING:
    from vimlight.serving.app import Limits, create_app
    from vimlight.serving.server import serve
    from vimlight.serving.tasks import ServedTasks

__all__ = ["Limits", "ServedTasks", "create_app", "serve"]

_PLACES = {"Limits": "app", "ServedTasks": "tasks", "create_app": "app", "serve": "server"}

__getattr__ = lazily(__name__, _PLACES)
