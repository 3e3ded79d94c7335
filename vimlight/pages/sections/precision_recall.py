"""Precision over recall, class by class."""

from __future__ import annotations

from collections.abc import Iterator

from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.fit import Fit, titled
from vimlight.report.figures import lines
from vimlight.report.html import Markup
from vimlight.report.parts import figure, grid


@section("Precision and recall", 95)
def precision_recall(found: Found) -> Iterator[Markup]:
    """Yields a figure for each run and split, with a line for each class that the run kept."""
    parts = [
        figure(lines(curves, "recall", "precision"), f"{title}, {'validation' if split == 'val' else split} images.")
        for title, fit in titled(found.of(Fit))
        for split, curves in fit.precision_recall.items()
    ]
    if parts:
        yield grid(*parts)
