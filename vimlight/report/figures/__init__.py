"""Figures as inline SVG: vectors whose colours are the page's, so that they follow dark mode and print.

Colours stand in the page's style sheet: a class names what a shape is (`s0` to `s7` for series, `pos` and `neg` for
the two directions of a heat map), and opacity says how much. Series differ in their dashes and markers as well.
"""

from __future__ import annotations

from vimlight.report.figures.changes import Change, changes
from vimlight.report.figures.dots import Interval, intervals
from vimlight.report.figures.heat import Group, heat_map
from vimlight.report.figures.lines import lines
from vimlight.report.figures.reliability import Bin, reliability
from vimlight.report.figures.scatter import Spot, scatter

__all__ = [
    "Bin", "Change", "Group", "Interval", "Spot", "changes", "heat_map", "intervals", "lines", "reliability", "scatter",
]  # fmt: skip
