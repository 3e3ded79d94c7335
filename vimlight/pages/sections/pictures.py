"""Some predictions with their images, as the run drew them."""

from __future__ import annotations

from collections.abc import Iterator

from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.fit import Fit, titled
from vimlight.report.html import Markup
from vimlight.report.parts import picture


@section("Predictions", 120)
def pictures(found: Found) -> Iterator[Markup]:
    """Yields the picture of each run and split."""
    for run, fit in titled(found.of(Fit)):
        yield from (picture(content, f"{title}: {run}.") for title, content in fit.pictures.items())
