"""What was run exactly: configs as they were written down, and versions of the libraries."""

from __future__ import annotations

from collections.abc import Iterator

from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.evaluation import Evaluation
from vimlight.report.html import Markup, element
from vimlight.report.parts import Cell, folded, heading, table
from vimlight.report.tables import MISSING


@section("Settings and versions", 140)
def settings(found: Found) -> Iterator[Markup]:
    """Yields where each run lies, with versions, and its config folded away."""
    libraries = list(dict.fromkeys(name for run in found.runs for name, version in run.versions.items() if version))
    rows = [
        [Cell(run.name), Cell(run.kind), Cell(str(run.path)),
         *(Cell(run.versions.get(name) or MISSING) for name in libraries)]
        for run in found.runs
    ]  # fmt: skip
    yield table(["run", "kind", "directory", *libraries], rows, "What the page was made of, and what made it.")
    for evaluation in found.of(Evaluation):
        if evaluation.sources:
            rows = [list(map(Cell, source)) for source in evaluation.sources]
            yield table(
                ["role", "path", "model", "hash"], rows, f"{evaluation.name}: caches and adapters of its first run."
            )
    written = [run for run in found.runs if run.settings]
    if written:
        yield heading("Configs")
        yield from (
            folded(run.title if len(written) == 1 else run.name, element("pre", run.settings)) for run in written
        )
