"""`python -m benchmarks.pictures`: draws the pictures anew, of what the pages of results say now."""

from __future__ import annotations

from pathlib import Path

from benchmarks.pictures.architecture import architecture
from benchmarks.pictures.results import results
from vimlight.files.atomic import write_whole

__all__ = ["FOLDER", "drawn"]

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"


def drawn() -> dict[str, str]:
    """Returns the pictures as SVG by the names of their files."""
    return {"architecture.svg": architecture(), "results.svg": results()}


if __name__ == "__main__":
    for name, text in drawn().items():
        print(write_whole(FOLDER / name, text.encode(), overwrite=True))
