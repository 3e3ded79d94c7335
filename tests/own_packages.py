"""Packages of a user's own, as pip leaves them: a folder on the path, and what it announces."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from vimlight import extensions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def announce(site: Path, package: str, points: dict[str, dict[str, str]]):
    """Writes the metadata of an installed package that has these entry points, by group."""
    folder = site / f"{package}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [
        line for group, names in points.items() for line in (f"[{group}]", *(f"{k} = {v}" for k, v in names.items()))
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
    extensions.announced.cache_clear()


def announced_by(project: Path) -> dict[str, dict[str, str]]:
    """Returns the entry points of a pyproject.toml, by group."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    found.update(tomllib.loads(project.read_text())["project"]["entry-points"])
    return found
