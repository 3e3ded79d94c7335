"""The report: everything that was found, section by section."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from vimlight.pages.sections import SECTIONS
from vimlight.pages.sources import Found, find
from vimlight.report.page import Page

__all__ = ["build_report"]


def build_report(paths: Iterable[str | Path], title: str = "", intro: Sequence[str] = ()) -> Page:
    """Builds a page of runs.

    Args:
        paths: Result files, and directories of runs; also directories in which these lie.
        title: The page's title; what was found says it if left out.
        intro: Paragraphs below it.

    Raises:
        ConfigError: If one holds nothing that can be shown, or a file is damaged.
    """
    found = find(paths)
    page = Page(title or _title(found), intro)
    for section in sorted(SECTIONS.values(), key=lambda section: section.place):
        parts = list(section.build(found))
        if parts:
            page.section(section.title, parts)
    return page


def _title(found: Found) -> str:
    if len(found.runs) == 1:
        return found.runs[0].title
    return f"Report of {len(found.runs)} runs"
