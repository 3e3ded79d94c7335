"""Gathers all results that there are into records and tables."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from vimlight.comparison.standings import Record, Standings, standings_of
from vimlight.comparison.study import Study
from vimlight.comparison.tables import csv_text, markdown, marked
from vimlight.comparison.transfers.summary import LEGEND as PROMISE
from vimlight.comparison.transfers.summary import Summary, summaries
from vimlight.comparison.work import AnyStudy
from vimlight.files.atomic import write_whole
from vimlight.report.files import stamped
from vimlight.transmiter.judging.methods import METHODS

__all__ = ["Compared", "gather", "write_results"]


@dataclasses.dataclass(frozen=True)
class Compared:
    """What came out of a plan so far.

    Attributes:
        study: The study.
        records: Its records.
    """

    study: AnyStudy
    records: Sequence[Record]

    @property
    def reference(self) -> str:
        """The method that others are compared with, as the records call it."""
        reference = self.study.plan.reference
        return reference if isinstance(self.study, Study) else METHODS[reference].title

    @cached_property
    def tables(self) -> list[Standings]:
        """The standings."""
        return standings_of(self.records, self.reference)

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
    """Writes `results.json`, `table.md` and `table.csv` anew.

    Args:
        compared: What came out.
    """
    study, records, tables = compared.study, compared.records, compared.tables
    content = {
        "title": study.plan.title,
        "reference": compared.reference,
        "whole": not compared.missing,
        "records": [{key: value for key, value in record.items() if key != "gates"} for record in records],
        "summaries": [dataclasses.asdict(summary) for summary in compared.summaries],
        "gates": _gates(records),
    }
    texts = {
        "results.json": json.dumps(stamped(content), indent=1, ensure_ascii=False) + "\n",
        "table.md": _markdown(compared),
        "table.csv": csv_text(tables),
    }
    for name, text in texts.items():
        write_whole(study.folder / name, text, overwrite=True)


def _markdown(compared: Compared) -> str:
    first = [marked(summary.title, summary.header, summary.rows) for summary in compared.summaries]
    return "\n".join([*first, *([PROMISE + "\n"] if first else []), markdown(compared.tables)])


def _gates(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Returns the gates of each method and task, with most labels and the last seed."""
    last = {(r["backbone"], r["method"], r["task"]): r["gates"] for r in records if r["gates"]}
    keys = ("backbone", "method", "task")
    return [{**dict(zip(keys, key, strict=True)), **gates} for key, gates in last.items()]
