"""Runs of `vimlight fit` and their scores, one by one, and over the seeds of the same run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.fit import Fit
from vimlight.report.html import Markup
from vimlight.report.parts import Cell, table
from vimlight.report.scores import best_of, score_text
from vimlight.report.tables import MISSING, Statistic

_ABOUT = ("run", "method", "module", "backbone", "data", "shots", "seed")


@section("Runs", 10)
def runs(found: Found) -> Iterator[Markup]:
    """Yields a table of runs, and one of those that differ in their seed alone."""
    fits = found.of(Fit)
    if not fits:
        return
    scores = [fit.scores() for fit in fits]
    names = list(dict.fromkeys(name for each in scores for name in each))
    # Scores of different data have no best.
    comparable = len({fit.facts.dataset for fit in fits}) == 1 and len(fits) > 1
    best = {name: best_of(name, [each[name][1] for each in scores if name in each]) for name in names}
    about = [_about(fit) for fit in fits]
    # Runs without a config say little of themselves.
    said = [number for number in range(len(_ABOUT)) if any(row[number] != MISSING for row in about)]
    rows = [
        [*(Cell(row[number]) for number in said),
         *(_score(name, each[name][1], comparable and each[name][1] == best[name]) if name in each else Cell(MISSING)
           for name in names)]
        for row, each in zip(about, scores, strict=True)
    ]  # fmt: skip
    header = [*(_ABOUT[number] for number in said), *names]
    yield table(header, rows, "Scores at the end of each run; shares stand as points of a hundred.")
    yield from _over_seeds(fits, names)


def _over_seeds(fits: Sequence[Fit], names: Sequence[str]) -> Iterator[Markup]:
    groups: dict[str, dict[int, Fit]] = {}
    for fit in fits:
        if fit.facts.seed is not None:
            groups.setdefault(fit.facts.group, {})[fit.facts.seed] = fit
    several = {group: by_seed for group, by_seed in groups.items() if len(by_seed) > 1}
    if not several:
        return
    cells = {
        (group, name): Statistic(values)
        for group, by_seed in several.items()
        for name in names
        if (values := {s: fit.scores()[name][1] for s, fit in by_seed.items() if name in fit.scores()})
    }
    data = {next(iter(by_seed.values())).facts.dataset for by_seed in several.values()}
    comparable = len(data) == 1 and len(several) > 1
    rows = []
    for group, by_seed in several.items():
        row = [Cell(group), Cell(str(len(by_seed)))]
        for name in names:
            cell = cells.get((group, name))
            means = [other.mean for (_, score), other in cells.items() if score == name]
            row.append(_spread(name, cell, comparable and cell is not None and cell.mean == best_of(name, means)))
        rows.append(row)
    yield table(["run", "seeds", *names], rows, "The same over seeds: mean ± standard deviation.")


def _about(fit: Fit) -> list[str]:
    facts = fit.facts
    method = facts.method or facts.stage
    numbers = [MISSING if number is None else str(number) for number in (facts.shots, facts.seed)]
    return [fit.name, *(text or MISSING for text in (method, facts.module, facts.backbone, facts.dataset)), *numbers]


def _score(name: str, value: float, best: bool) -> Cell:
    return Cell(score_text(name, value), best, value)


def _spread(name: str, cell: Statistic | None, best: bool) -> Cell:
    if cell is None:
        return Cell(MISSING)
    spread = "" if math.isnan(cell.std) else f" ± {score_text(name, cell.std)}"
    return Cell(score_text(name, cell.mean) + spread, best, cell.mean)
