"""Reports: tables, plots, one self-contained page, and what a run shows on its loggers."""

from __future__ import annotations

from vimlight.report.page import Page
from vimlight.report.tables import MethodFacts, ResultsTable, Statistic, summarise

__all__ = ["MethodFacts", "Page", "ResultsTable", "Statistic", "summarise"]
