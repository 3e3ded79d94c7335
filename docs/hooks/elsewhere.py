"""Pages that lie beside `docs`, most of them written by a command of the repository."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["linked_within", "pages_from_elsewhere"]

_ROOT = Path(__file__).parents[2]
_PAGES = {
    "results/suite.md": "benchmarks/real/README.md",
    "results/cells.md": "benchmarks/real/RESULTS.md",
    "results/architectures.md": "benchmarks/ARCHITECTURES.md",
    "results/notes.md": "benchmarks/NOTES.md",
    "changelog.md": "CHANGELOG.md",
}


def pages_from_elsewhere() -> dict[str, str]:
    """Returns the texts by the paths that they have in the site, with links into `docs` as they are from there."""
    pages = {}
    for path, file in _PAGES.items():
        there, here = (os.path.relpath("docs", Path(place).parent) for place in (file, Path("docs", path)))
        pages[path] = (_ROOT / file).read_text().replace(f"]({there}/", f"]({here}/")
    return pages


def linked_within(page: str, text: str) -> str:
    """Returns the text of a page with links to files beside `docs` leading to their pages of the site.

    In the repository the links lead to the files, so that they work there too.

    Args:
        page: Path of the page below `docs`.
        text: Its text.
    """
    folder = Path("docs", page).parent
    for path, file in _PAGES.items():
        there, here = (os.path.relpath(target, folder) for target in (file, Path("docs", path)))
        text = text.replace(f"]({there}", f"]({here}")
    return text
