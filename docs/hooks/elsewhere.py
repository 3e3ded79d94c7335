"""Pages that lie beside `docs`, most of them written by a command of the repository."""

from __future__ import annotations

from pathlib import Path

__all__ = ["pages_from_elsewhere"]

_ROOT = Path(__file__).parents[2]
_PAGES = {
    "results/suite.md": "benchmarks/real/README.md",
    "results/cells.md": "benchmarks/real/RESULTS.md",
    "results/architectures.md": "benchmarks/ARCHITECTURES.md",
    "results/notes.md": "benchmarks/NOTES.md",
    "changelog.md": "CHANGELOG.md",
}


def pages_from_elsewhere() -> dict[str, str]:
    """Returns the texts by the paths that they have in the site."""
    # Links lead from the top of the repository there.
    return {path: (_ROOT / file).read_text().replace("](docs/", "](") for path, file in _PAGES.items()}
