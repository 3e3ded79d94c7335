"""What each module, or method, gains on each task."""

from __future__ import annotations

import math
from collections.abc import Iterator

from vimlight.aggregation.ranking import BARE
from vimlight.comparison.standings import Standings
from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.comparison import Comparison
from vimlight.pages.sources.fit import Fit, labels
from vimlight.report.figures import Group, heat_map
from vimlight.report.html import Markup
from vimlight.report.parts import figure
from vimlight.report.tables import Statistic


@section("Gains", 40)
def gains(found: Found) -> Iterator[Markup]:
    """Yields gains over the reference of each comparison, and of each module by the rankings of runs."""
    for comparison in found.of(Comparison):
        yield from (_over_reference(each) for each in comparison.tables if len(each.methods) > 1)
    ranked = [fit for fit in found.of(Fit) if any(name == BARE for name, _ in fit.ranking)]
    if ranked:
        yield _of_modules(ranked)


def _over_reference(standing: Standings) -> Markup:
    methods = [method for method in standing.methods if method != standing.reference]
    cells = [[standing.against_reference(method, task) for task in standing.tasks] for method in methods]
    largest = [_largest([row[n] for row in cells]) for n in range(len(standing.tasks))]
    # Metrics differ, so each column has its own scale; noise stays pale.
    shares = [[_mean(cell) / top for cell, top in zip(row, largest, strict=True)] for row in cells]
    texts = [
        [_text(cell, standing.metrics[task][1]) for cell, task in zip(row, standing.tasks, strict=True)]
        for row in cells
    ]  # fmt: skip
    caption = (
        f"Gain over {standing.reference} on {standing.backbone}, {standing.shots_text}: mean ± standard deviation of "
        "the differences seed by seed, in points where more of the score is better. The deepest colour of a column is "
        "its largest gain, but at least two standard deviations."
    )
    return figure(heat_map(methods, [Group("", standing.tasks, shares, texts)], caption, top=1.0), caption)


def _of_modules(fits: list[Fit]) -> Markup:
    errors = [dict(fit.ranking) for fit in fits]
    names = [name for name in dict.fromkeys(name for each in errors for name in each) if name != BARE]
    values = [[_less(each, name) for each in errors] for name in names]
    texts = [["" if math.isnan(value) else f"{value:+.1f} %" for value in row] for row in values]
    caption = (
        "Leave-one-out error of a closed-form head on the training images with each module alone, and with all of them "
        "aggregated: by how many percent it is less than that of the bare backbone."
    )
    columns = labels(fits)
    if len(fits) == 1:
        columns, caption = ["less"], f"{fits[0].title}. {caption}"
    return figure(heat_map(names, [Group("", columns, values, texts)], caption), caption)


def _less(errors: dict[str, float], name: str) -> float:
    return 100 * (1 - errors[name] / errors[BARE]) if name in errors and errors[BARE] > 0 else math.nan


def _largest(cells: list[Statistic | None]) -> float:
    known = [cell for cell in cells if cell is not None]
    sizes = [max(abs(cell.mean), 0.0 if math.isnan(cell.std) else 2 * cell.std) for cell in known]
    return max(sizes, default=1.0) or 1.0


def _mean(cell: Statistic | None) -> float:
    return math.nan if cell is None else cell.mean


def _text(cell: Statistic | None, mode: str) -> str:
    if cell is None:
        return ""
    scale, digits = (100, 1) if mode == "max" else (1, 3)
    spread = "" if math.isnan(cell.std) else f" ± {scale * cell.std:.{digits}f}"
    return f"{scale * cell.mean:+.{digits}f}{spread}"
