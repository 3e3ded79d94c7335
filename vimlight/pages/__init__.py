"""Pages of what runs left on disk: readers of result files, a section for each thing that they show, and galleries.

A new figure is one new file in `vimlight.pages.sections`; results of a new kind are one in `vimlight.pages.sources`.
"""

from __future__ import annotations

from vimlight.pages.report import build_report

__all__ = ["build_report"]
