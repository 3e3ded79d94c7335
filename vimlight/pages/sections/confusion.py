"""Which classes are taken for which, and how well each is found."""

from __future__ import annotations

from collections.abc import Iterator

from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.fit import Confusion, Fit, titled
from vimlight.pages.sources.mistakes import Mistake, mistakes
from vimlight.report.class_scores import class_scores
from vimlight.report.figures import Group, heat_map
from vimlight.report.html import Markup, element
from vimlight.report.parts import Cell, beside, figure, folded, picture, table
from vimlight.report.tables import MISSING

# Of more classes than these a matrix cannot be read; the confusions that occur most are listed.
_DRAWN, _LISTED = 60, 200
# So many images that were taken for another class are shown.
_EXAMPLES = 24


@section("Confusion", 90)
def confusion(found: Found) -> Iterator[Markup]:
    """Yields the matrix of each run and split, with precision, recall and F1 of each class, and wrong images."""
    for title, fit in titled(found.of(Fit)):
        for split, matrix in fit.confusion.items():
            images = f"{title}, {'validation' if split == 'val' else split} images"
            yield beside(_matrix(matrix, images), _per_class(matrix, f"{images}: each class, in points of a hundred."))
            if examples := mistakes(fit, split, _EXAMPLES):
                summary = f"{len(examples)} of the images that were taken for another class, the surest first"
                shown = [picture(each.picture, _caption(each), small=True) for each in examples]
                yield folded(summary, element("div", shown, class_="thumbs"), is_open=True)


def _caption(mistake: Mistake) -> str:
    sure = "" if mistake.probability is None else f" ({mistake.probability:.0%})".replace("%", " %")
    return f"{mistake.true}, taken for {mistake.predicted}{sure}"


def _matrix(matrix: Confusion, title: str) -> Markup:
    totals = [sum(row) for row in matrix.counts]
    right = sum(row[number] for number, row in enumerate(matrix.counts))
    share = f"{right / sum(totals):.1%} of {sum(totals):,.0f} right" if sum(totals) else "no images"
    if len(matrix.classes) <= _DRAWN:
        shares = [[value / total if total else 0.0 for value in row]
                  for row, total in zip(matrix.counts, totals, strict=True)]  # fmt: skip
        texts = [[f"{count:.0f}" if count else "" for count in row] for row in matrix.counts]
        caption = f"{title}: {share}. Rows are true classes, columns predicted ones; colours are shares of a row."
        drawn = heat_map(matrix.classes, [Group("predicted", matrix.classes, shares, texts)], caption, top=1.0)
        return figure(drawn, caption)
    pairs = sorted(
        ((count, true, predicted)
         for true, row in zip(matrix.classes, matrix.counts, strict=True)
         for predicted, count in zip(matrix.classes, row, strict=True)
         if count and true != predicted),
        reverse=True,
    )  # fmt: skip
    rows = [[true, predicted, f"{count:.0f}"] for count, true, predicted in pairs[:_LISTED]]
    return table(["true", "taken for", "images"], rows, f"{title}: {share}. The confusions that occur most.")


def _per_class(matrix: Confusion, caption: str) -> Markup:
    rows = []
    for name, images, *shares in class_scores(matrix.counts, matrix.classes):
        texts = [MISSING if share is None else f"{100 * share:.1f}" for share in shares]
        rows.append([Cell(name), Cell(f"{images:,}"), *map(Cell, texts)])
    return table(["class", "images", "precision", "recall", "F1"], rows, caption)
