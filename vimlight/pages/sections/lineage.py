"""Which files runs make, and which of them others are built on."""

from __future__ import annotations

from collections.abc import Iterator

from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.fit import Fit
from vimlight.report.html import Markup
from vimlight.report.parts import Cell, table
from vimlight.report.tables import MISSING


@section("Artifacts", 135)
def lineage(found: Found) -> Iterator[Markup]:
    """Yields a table of what each run made and used; one content has one hash, by which runs lead on to others."""
    fits = [fit for fit in found.of(Fit) if fit.links]
    makers = {link.content: fit.name for fit in fits for link in fit.links if link.content and not link.used}
    rows = [
        [Cell(fit.name), Cell("uses" if link.used else "makes"), Cell(link.kind), Cell(link.name),
         Cell(link.content[:12] or MISSING), Cell(makers.get(link.content, MISSING) if link.used else MISSING)]
        for fit in fits
        for link in fit.links
    ]  # fmt: skip
    if rows:
        yield table(["run", "what it does", "kind", "artifact", "content", "made by"], rows, "What runs make and use.")
