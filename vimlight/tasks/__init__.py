"""Tasks: what a head predicts, what it is trained with and how it is measured, one object per kind of task.

A kind of task is one file in this folder with a `Task` subclass under `@TASKS.register(kind)`; a closed-form head is
one file with a function under `@SOLVERS.register(name)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimlight.lazy import lazily

if TYPE_CHECKING:
    from vimlight.tasks.base import Task, create_task, list_tasks
    from vimlight.tasks.closed_form import SOLVERS, Examples, Solution
    from vimlight.tasks.heads import AffineHead, EnsembleHead
    from vimlight.tasks.registry import TASKS
    from vimlight.tasks.targets import Frame, TargetLayout

__all__ = [
    "SOLVERS",
    "TASKS",
    "AffineHead",
    "EnsembleHead",
    "Examples",
    "Frame",
    "Solution",
    "TargetLayout",
    "Task",
    "create_task",
    "list_tasks",
]

_PLACES = {
    "SOLVERS": "closed_form",
    "TASKS": "registry",
    "AffineHead": "heads",
    "EnsembleHead": "heads",
    "Examples": "closed_form",
    "Frame": "targets",
    "Solution": "closed_form",
    "TargetLayout": "targets",
    "Task": "base",
    "create_task": "base",
    "list_tasks": "base",
}

__getattr__ = lazily(__name__, _PLACES)
