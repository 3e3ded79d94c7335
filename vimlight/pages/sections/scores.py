"""Scores of a comparison, task by task, with every seed; and of an evaluation, column by column."""

from __future__ import annotations

from collections.abc import Iterator

from vimlight.comparison.standings import Standings
from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.comparison import Comparison
from vimlight.report.figures import Interval, intervals
from vimlight.report.html import Markup
from vimlight.report.parts import figure, grid


@section("Scores by task", 30)
def scores(found: Found) -> Iterator[Markup]:
    """Yields a figure for each task whose scores are shares."""
    for comparison in found.of(Comparison):
        for standing in comparison.tables:
            drawn = [_task(standing, task) for task in standing.averaged]
            if drawn:
                yield grid(*drawn)


def _task(standing: Standings, task: str) -> Markup:
    cells = {method: standing.cells.get((method, task)) for method in standing.methods}
    rows = [
        Interval(method, [100 * value for value in cell.seeds.values()] if cell else [], method == standing.reference)
        for method, cell in cells.items()
    ]
    metric, _ = standing.metrics[task]
    caption = f"{task} on {standing.backbone}, {standing.shots_text}: mean, standard deviation and each seed."
    return figure(intervals(rows, task, f"{metric}, %"), caption)
