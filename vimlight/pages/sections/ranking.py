"""What each module is worth for a task, by leaving one training image out."""

from __future__ import annotations

from collections.abc import Iterator

from vimlight.aggregation.ranking import BARE
from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.fit import Fit, titled
from vimlight.report.html import Markup
from vimlight.report.parts import Cell, grid, table


@section("Ranking of modules", 80)
def ranking(found: Found) -> Iterator[Markup]:
    """Yields a table for each run that ranked its modules."""
    tables = [_table(title, fit) for title, fit in titled(found.of(Fit)) if fit.ranking]
    if tables:
        yield grid(*tables)


def _table(title: str, fit: Fit) -> Markup:
    errors = dict(fit.ranking)
    bare, least = errors.get(BARE), min(errors.values())
    rows = [
        [Cell(name), Cell(f"{error:.5f}", error == least), Cell(f"{100 * (1 - error / bare):+.1f}" if bare else "")]
        for name, error in fit.ranking
    ]
    caption = f"{title}: leave-one-out error on the training images; less is better."
    return table(["features", "error", "% less than bare"], rows, caption)
