"""Kinds of tasks by name; to list the names imports none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimlight.registry import Registry

if TYPE_CHECKING:
    from vimlight.tasks.base import Task

__all__ = ["TASKS"]

TASKS: Registry[type[Task]] = Registry("task", "vimlight.tasks", "TASKS", group="vimlight.tasks")
