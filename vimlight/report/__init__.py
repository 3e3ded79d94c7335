"""Reports: tables, figures, what pages are made of, and what a run shows on its loggers."""

from __future__ import annotations

from vimlight.report.page import Page
from vimlight.report.tables import Statistic

__all__ = ["Page", "Statistic"]
