"""Every single result of a comparison, to sort and search."""

from __future__ import annotations

from collections.abc import Iterator

from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.comparison import Comparison
from vimlight.report.html import Markup
from vimlight.report.parts import Cell, folded, table
from vimlight.report.tables import MISSING, count_text, multiple_text

_HEADER = ["backbone", "task", "method", "shots", "seed", "metric", "value", "trainable", "cost", "seconds"]


@section("Every result", 130)
def records(found: Found) -> Iterator[Markup]:
    """Yields a table of all records of each comparison."""
    for comparison in found.of(Comparison):
        rows = [
            [Cell(record["backbone"]), Cell(record["task"]), Cell(record["method"]), Cell(str(record["shots"])),
             Cell(str(record["seed"])), Cell(record["metric"]), Cell(f"{record['value']:.4f}"),
             Cell(count_text(round(record["parameters"])), key=record["parameters"]),
             Cell(MISSING if record["flops"] is None else multiple_text(record["flops"])),
             Cell(f"{record['seconds']:.2f}")]
            for record in comparison.records
        ]  # fmt: skip
        text = f"{comparison.title}: {len(rows):,} results"
        yield folded(text, table(_HEADER, rows, f"{text}, each as it was measured."))
