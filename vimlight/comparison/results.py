"""Gathers all results that there are into records, tables and a page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from vimlight import __version__
from vimlight.comparison.standings import Record, Standings, standings_of
from vimlight.comparison.study import Fit, Study
from vimlight.comparison.tables import LEGEND, csv_text, header, markdown, rows
from vimlight.files.atomic import write_whole
from vimlight.report import Page

__all__ = ["Compared", "describe", "gather", "record_of", "write_results"]

_COSTS = ("parameters", "flops", "seconds")


def record_of(study: Study, fit: Fit) -> dict[str, Any] | None:
    """Returns the result of a fit under the names that the plan has now, or nothing if there is none.

    Args:
        study: The study.
        fit: The fit.
    """
    found = study.results.read(fit.key) if fit.key else None
    if found is None:
        return None
    group = fit.group
    return {
        "backbone": group.backbone,
        "task": group.task.name,
        "group": group.task.group,
        "method": fit.method.label,
        "shots": group.shots,
        "seed": group.seed,
        **{name: found[name] for name in ("kind", "metric", "mode", "value", *_COSTS, "modules", "scores", "gates")},
    }


@dataclasses.dataclass(frozen=True)
class Compared:
    """What came out of a plan so far.

    Attributes:
        study: The study.
        records: Its records.
    """

    study: Study
    records: Sequence[Record]

    @cached_property
    def tables(self) -> list[Standings]:
        """The standings."""
        return standings_of(self.records, self.study.plan.reference)


def gather(study: Study) -> Compared:
    """Returns a record for every result that there is, of all shards, in the order of the plan."""
    found = (record_of(study, fit) for fit in study.fits(study.groups()))
    return Compared(study, [record for record in found if record is not None])


def write_results(compared: Compared) -> None:
    """Writes `results.json`, `table.md`, `table.csv` and `report.html` anew.

    Args:
        compared: What came out.
    """
    study, records, tables = compared.study, compared.records, compared.tables
    page = Page(study.plan.title)
    describe(page, compared)
    content = {
        "vimlight": __version__,
        "title": study.plan.title,
        "reference": study.plan.reference,
        "whole": len(records) == len(study.groups()) * len(study.plan.methods),
        "records": [{key: value for key, value in record.items() if key != "gates"} for record in records],
    }
    texts = {
        "results.json": json.dumps(content, indent=1, ensure_ascii=False) + "\n",
        "table.md": markdown(tables),
        "table.csv": csv_text(tables),
        "report.html": page.render(),
    }
    for name, text in texts.items():
        write_whole(study.folder / name, text, overwrite=True)


def describe(page: Page, compared: Compared) -> None:
    """Adds what came out to a page: tables, figures and gates.

    Args:
        page: The page.
        compared: What came out.
    """
    page.paragraph(LEGEND)
    for table in compared.tables:
        page.heading(f"{table.backbone}, {table.shots_text}")
        page.marked(header(table), [list(row) for row in rows(table)])
        _add_figures(page, table)
    _add_gates(page, compared.records)


def _add_figures(page: Page, table: Standings) -> None:
    from vimlight.report.plots import bars_with_spread, gain_matrix

    shares = {
        task: [None if cell is None else (100 * cell.mean, 100 * cell.std) for cell in cells]
        for task in table.averaged
        if (cells := [table.cells.get((method, task)) for method in table.methods])
    }
    if shares:
        figure = bars_with_spread(list(table.methods), shares, highlight=table.reference, unit="%")
        page.figure(figure, f"Test scores by task, {table.shots_text}.")
    others = [method for method in table.methods if method != table.reference]
    ahead = [[table.against_reference(method, task) for task in table.tasks] for method in others]
    found = [[cell for cell in row if cell is not None] for row in ahead]
    if others and all(len(row) == len(table.tasks) for row in found):
        means, spreads = [[c.mean for c in row] for row in found], [[c.std for c in row] for row in found]
        title = f"Gain over {table.reference}, {table.shots_text}, in units of each score"
        page.figure(gain_matrix(means, spreads, others, list(table.tasks), title), title)


def _add_gates(page: Page, records: Sequence[Record]) -> None:
    """Adds the gates of each method and task, with most labels and the last seed."""
    import numpy as np

    from vimlight.report.plots import gate_heatmap

    last = {(r["backbone"], r["method"], r["task"]): r for r in records if r["gates"]}
    if last:
        page.heading("Gates")
    for (backbone, method, task), record in last.items():
        gates = record["gates"]
        text = f"{method} for {task} on {backbone}, with most labels and the last seed"
        values = np.array(gates["values"], dtype=np.float32)
        page.figure(gate_heatmap(values, gates["places"], gates["names"], f"Gates: {method} for {task}"), text)
