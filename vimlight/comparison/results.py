"""Gathers all results that there are into records, tables and a page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import cached_property

from vimlight.comparison.standings import Record, Standings, standings_of
from vimlight.comparison.study import Study
from vimlight.comparison.tables import LEGEND, csv_text, header, markdown, marked, rows
from vimlight.comparison.transfers.summary import LEGEND as PROMISE
from vimlight.comparison.transfers.summary import Summary, summaries
from vimlight.comparison.work import AnyStudy
from vimlight.files.atomic import write_whole
from vimlight.report import Page
from vimlight.report.files import stamped
from vimlight.transmiter.judging.methods import METHODS

__all__ = ["Compared", "describe", "gather", "write_results"]


@dataclasses.dataclass(frozen=True)
class Compared:
    """What came out of a plan so far.

    Attributes:
        study: The study.
        records: Its records.
    """

    study: AnyStudy
    records: Sequence[Record]

    @cached_property
    def tables(self) -> list[Standings]:
        """The standings."""
        reference = self.study.plan.reference
        return standings_of(self.records, reference if isinstance(self.study, Study) else METHODS[reference].title)

    @cached_property
    def summaries(self) -> list[Summary]:
        """What holds for several standings together, of transfers."""
        return [] if isinstance(self.study, Study) else summaries(self.study)

    @cached_property
    def missing(self) -> int:
        """How many results are still to come."""
        return sum(not fit.key or fit.key not in self.study.results for fit in self.study.jobs())


def gather(study: AnyStudy) -> Compared:
    """Returns a record for every result that there is, of all shards, in the order of the plan."""
    return Compared(study, [record for fit in study.jobs() for record in study.records(fit)])


def write_results(compared: Compared) -> None:
    """Writes `results.json`, `table.md`, `table.csv` and `report.html` anew.

    Args:
        compared: What came out.
    """
    study, records, tables = compared.study, compared.records, compared.tables
    page = Page(study.plan.title)
    describe(page, compared)
    content = {
        "title": study.plan.title,
        "reference": study.plan.reference,
        "whole": not compared.missing,
        "records": [{key: value for key, value in record.items() if key != "gates"} for record in records],
    }
    texts = {
        "results.json": json.dumps(stamped(content), indent=1, ensure_ascii=False) + "\n",
        "table.md": _markdown(compared),
        "table.csv": csv_text(tables),
        "report.html": page.render(),
    }
    for name, text in texts.items():
        write_whole(study.folder / name, text, overwrite=True)


def _markdown(compared: Compared) -> str:
    first = [marked(summary.title, summary.header, summary.rows) for summary in compared.summaries]
    return "\n".join([*first, *([PROMISE + "\n"] if first else []), markdown(compared.tables)])


def describe(page: Page, compared: Compared) -> None:
    """Adds what came out to a page: tables, figures and gates.

    Args:
        page: The page.
        compared: What came out.
    """
    for summary in compared.summaries:
        page.heading(summary.title)
        page.marked(list(summary.header), [list(row) for row in summary.rows])
    if compared.summaries:
        page.paragraph(PROMISE)
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
