"""What changed for each class from one run to another, and from zero-shot to transferred."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.evaluation import Evaluation
from vimlight.pages.sources.fit import Confusion, Fit
from vimlight.report.figures import Change, changes
from vimlight.report.html import Markup
from vimlight.report.parts import Cell, figure, folded, table

# More classes than these are drawn at both ends alone.
_DRAWN = 30


@section("Change of each class", 100)
def class_changes(found: Found) -> Iterator[Markup]:
    """Yields each run against the first one with the same classes, and TransMiter against its target."""
    for split in ("test", "val"):
        fits = [fit for fit in found.of(Fit) if split in fit.confusion]
        for number, fit in enumerate(fits):
            first = next(e for e in fits if e.confusion[split].classes == fit.confusion[split].classes)
            if first is not fits[number]:
                before, after = (_recall(each.confusion[split]) for each in (first, fit))
                yield from _change(before, after, f"Recall of each class, {split} images: {first.name} → {fit.name}")
    for evaluation in found.of(Evaluation):
        yield from _transferred(evaluation)


def _transferred(evaluation: Evaluation) -> Iterator[Markup]:
    before, after = (evaluation.methods.get(name) for name in ("target_zero_shot", "transmiter"))
    if before is None or after is None:
        return
    for group in (group for group in before.per_class if group in after.per_class):
        text = f"Accuracy of each class, {group}: {before.title} → {after.title}"
        yield from _change(before.per_class[group], after.per_class[group], text)


def _recall(matrix: Confusion) -> dict[str, float]:
    return {
        name: row[number] / sum(row)
        for number, (name, row) in enumerate(zip(matrix.classes, matrix.counts, strict=True))
        if sum(row)
    }


def _change(before: Mapping[str, float], after: Mapping[str, float], text: str) -> Iterator[Markup]:
    rows = sorted(
        (Change(name, 100 * before[name], 100 * after[name]) for name in before if name in after),
        key=lambda row: row.before - row.after,
    )
    if not rows:
        return
    gained, lost = (sum(sign * (row.after - row.before) > 0 for row in rows) for sign in (1, -1))
    caption = f"{text}; {gained} gain, {lost} lose, {len(rows) - gained - lost} stay."
    shown = rows if len(rows) <= _DRAWN else [*rows[: _DRAWN // 2], *rows[-_DRAWN // 2 :]]
    part = "" if shown is rows else f" The {len(shown)} that change most."
    yield figure(changes(shown, caption, "%"), caption + part)
    if shown is not rows:
        cells = [[Cell(row.name), *(Cell(f"{value:.1f}") for value in row[1:]), Cell(f"{row.after - row.before:+.1f}")]
                 for row in rows]  # fmt: skip
        yield folded("All classes", table(["class", "before", "after", "change"], cells, caption))
