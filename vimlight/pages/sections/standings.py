"""Where methods stand: the tables of a comparison."""

from __future__ import annotations

from collections.abc import Iterator

from vimlight.comparison.tables import LEGEND, header, rows
from vimlight.comparison.transfers.summary import LEGEND as PROMISE
from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.comparison import Comparison
from vimlight.report.html import Markup
from vimlight.report.parts import heading, paragraph, table


@section("Standings", 20)
def standings(found: Found) -> Iterator[Markup]:
    """Yields a table for each backbone and number of shots, behind what holds for several together."""
    comparisons = found.of(Comparison)
    for comparison in comparisons:
        if len(found.runs) > 1:
            yield heading(comparison.title)
        if not comparison.whole:
            yield paragraph("Some results are still to come.", "note")
        if comparison.unmeasured:
            yield paragraph(f"Results whose score is no number, which are left out: {comparison.unmeasured}.", "note")
        for title, columns, cells in comparison.summaries:
            yield table(columns, cells, f"{title}.")
        if comparison.summaries:
            yield paragraph(PROMISE, "note")
        for standing in comparison.tables:
            yield table(header(standing), list(rows(standing)), f"{standing.backbone}, {standing.shots_text}.")
    if comparisons:
        yield paragraph(LEGEND, "note")
