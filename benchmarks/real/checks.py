"""What is proved of the tables: nothing that is asked was taught, and what was made is what others made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.real.rows import Row, read_rows

__all__ = ["digests", "leaks", "tables_of"]


def leaks(plan: Mapping[str, Any], tables: Mapping[str, Sequence[Row]], folder: Path) -> list[str]:
    """Returns a line for each concept or image of a downstream task that its zoo was taught with.

    Args:
        plan: A plan with `midstream` and `downstream`, as `vimlight compare` reads it.
        tables: The rows of every task, by name.
        folder: Where the paths of rows start from.
    """
    taught = {task["name"]: _shown(tables[task["name"]], folder) for task in plan["midstream"]}
    found = []
    for task in plan["downstream"]:
        asked = _shown(tables[task["name"]], folder)
        for name in taught.keys() - set(task.get("without", ())):
            for what, both in (("concept", asked[0] & taught[name][0]), ("image", asked[1] & taught[name][1])):
                found += [f"{task['name']}: {what} {one!r} is taught by {name}" for one in sorted(both)]
    return found


def tables_of(root: Path, names: Iterable[str]) -> dict[str, list[Row]]:
    """Reads the tables of tasks.

    Args:
        root: The suite's folder.
        names: Names of tasks.
    """
    return {name: read_rows(root / "tasks" / f"{name}.csv") for name in names}


def _shown(rows: Sequence[Row], folder: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the concepts of rows and the digests of their files."""
    concepts = frozenset(concept for row in rows for concept in row.concept.split("|"))
    files = {folder / row.path for row in rows}
    return concepts, frozenset(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


def digests(rows: Sequence[Row], folder: Path) -> dict[str, str]:
    """Returns what tells whether another machine made the same: `rows` of the table, and `pixels` of the images.

    Pixels depend on the versions of Pillow and FreeType, rows do not.

    Args:
        rows: The rows of a task.
        folder: Where their paths start from.
    """
    table, pixels = hashlib.sha256(), hashlib.sha256()
    for row in rows:
        table.update("\0".join([row.path, row.label, row.split, row.concept, ""]).encode())
        with Image.open(folder / row.path) as picture:
            pixels.update(np.ascontiguousarray(picture.convert("RGBA")).tobytes())
    return {"rows": table.hexdigest(), "pixels": pixels.hexdigest()}
