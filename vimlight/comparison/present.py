"""Which tasks of a plan have their data on disk, where some of a collection may be missing."""

from __future__ import annotations

import dataclasses
import warnings

from vimlight.comparison.entries import Plan
from vimlight.data.members import missing_on_disk
from vimlight.errors import DataError

__all__ = ["present"]


def present(plan: Plan) -> Plan:
    """Returns a plan without the downstream tasks that are missing in their collections; a warning names each.

    Raises:
        DataError: If nothing is left.
    """
    missing = {task.name: missing_on_disk(task.dataset, task.dataset_args) for task in plan.downstream}
    lacking = {name: path for name, path in missing.items() if path}
    if len(lacking) == len(plan.downstream):
        name, path = next(iter(lacking.items()))
        raise DataError(f"none of the {len(lacking)} downstream tasks is on disk; {name!r} lacks {path}")
    for name, path in lacking.items():
        warnings.warn(f"downstream task {name!r} is left out: {path} does not exist", stacklevel=2)
    return dataclasses.replace(plan, downstream=tuple(task for task in plan.downstream if task.name not in lacking))
