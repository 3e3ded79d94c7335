"""Methods on cached logits, and what became of source and target: before and after."""

from __future__ import annotations

import math
from collections.abc import Iterator

from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.evaluation import Evaluation, Method
from vimlight.report.figures import Change, changes
from vimlight.report.html import Markup
from vimlight.report.parts import Cell, figure, heading, paragraph, table
from vimlight.report.tables import MISSING, Statistic

_STEPS = (
    ("source_zero_shot", "source_tuned"), ("target_zero_shot", "transmiter"), ("target_zero_shot", "transmiter_plus"),
    ("target_zero_shot", "safe"), ("target_zero_shot", "target_tuned"),
)  # fmt: skip
_SHORT = {"target": "t", "source": "s", "source_tuned": "s*", "target_tuned": "t*"}
_ENCODERS = "Encoders that run for an image: t target, s source, * fine-tuned; added MFLOP: beside them."


@section("Transfer", 25)
def transfer(found: Found) -> Iterator[Markup]:
    """Yields the table of each evaluation, and what each step changed."""
    for evaluation in found.of(Evaluation):
        if len(found.runs) > 1:
            yield heading(evaluation.name)
        yield _table(evaluation)
        yield from (paragraph(f"Left out: {name}: {text}", "note") for name, text in evaluation.left_out.items())
        yield from _steps(evaluation)


def _table(evaluation: Evaluation) -> Markup:
    columns = evaluation.columns
    best = {
        column: max(m.accuracies[column].mean for m in evaluation.methods.values() if column in m.accuracies)
        for column in columns
    }
    rows = [
        [Cell(method.title), *(_accuracy(method.accuracies.get(column), best[column]) for column in columns),
         *_costs(method)]
        for method in evaluation.methods.values()
    ]  # fmt: skip
    header = ["method", *columns, "calibration error", "encoders", "added MFLOP", "µs/image"]
    return table(
        header, rows, f"Accuracy in %, protocol {evaluation.protocol}: mean ± deviation over seeds. {_ENCODERS}"
    )


def _costs(method: Method) -> list[Cell]:
    errors = [error for error in method.calibration.values() if math.isfinite(error)]
    error = f"{100 * sum(errors) / len(errors):.1f}" if errors else MISSING
    encoders = " + ".join(_SHORT.get(role, role) for role in method.encoders)
    return [Cell(error), Cell(encoders), Cell(f"{method.flops / 1e6:.3f}"), Cell(f"{method.microseconds:.1f}")]


def _accuracy(cell: Statistic | None, best: float) -> Cell:
    if cell is None:
        return Cell(MISSING)
    spread = "" if math.isnan(cell.std) else f" ± {100 * cell.std:.1f}"
    return Cell(f"{100 * cell.mean:.1f}{spread}", cell.mean == best, cell.mean)


def _steps(evaluation: Evaluation) -> Iterator[Markup]:
    rows = []
    for column in evaluation.columns:
        for first, second in _STEPS:
            before, after = evaluation.methods.get(first), evaluation.methods.get(second)
            if before and after and column in before.accuracies and column in after.accuracies:
                values = [100 * each.accuracies[column].mean for each in (before, after)]
                rows.append(Change(f"{column}: {after.title}", *values))
    if rows:
        caption = (
            "Before and after: what fine-tuning changed in the source, and what the target became of its zero-shot "
            "accuracy."
        )
        yield figure(changes(rows, caption, "accuracy, %"), caption)
