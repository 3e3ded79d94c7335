"""What changed, row by row: from a value before to one after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vimlight.report.figures.canvas import Scale, drawing, rules, shape, ticks, width_of, words
from vimlight.report.html import Markup

__all__ = ["Change", "changes"]

_ROW, _PLOT, _LONGEST = 22.0, 380.0, 34


class Change(NamedTuple):
    """One row.

    Attributes:
        name: What it is of.
        before: The value before.
        after: The value after.
    """

    name: str
    before: float
    after: float


def changes(rows: Sequence[Change], label: str, unit: str) -> Markup:
    """Draws an arrow from before to after for each row.

    Args:
        rows: The rows, from the top.
        label: What it shows.
        unit: What is measured.
    """
    left = width_of([row.name for row in rows], _LONGEST) + 14
    bottom = 8 + _ROW * len(rows)
    x = Scale.over([value for row in rows for value in row[1:]], left, left + _PLOT, pad=0.05)
    drawn = rules(x, ticks(x), 4, bottom)
    for number, row in enumerate(rows):
        drawn += _row(row, left, 8 + _ROW * (number + 0.5), x)
    drawn.append(words(left + _PLOT, bottom + 32, unit, "label", "end"))
    return drawing(left + _PLOT + 70, bottom + 38, label, drawn)


def _row(row: Change, left: float, y: float, x: Scale) -> list[Markup]:
    difference = row.after - row.before
    kind = "same" if abs(difference) < 1e-9 else "up" if difference > 0 else "down"
    start, end = x(row.before), x(row.after)
    size = 5 if end >= start else -5
    hint = f"{row.name}: from {row.before:.1f} to {row.after:.1f}"
    drawn = [words(left - 10, y + 4, row.name, anchor="end", longest=_LONGEST)]
    if kind == "same":
        drawn.append(shape("circle", "dot plain", hint, cx=end, cy=y, r=3.5))
    else:
        head = f"M{end:.1f} {y:.1f}l{-size} -4v8z"
        drawn += [
            shape("line", f"change {kind}", hint, x1=start, x2=end - size, y1=y, y2=y),
            shape("path", f"head {kind}", hint, d=head),
            shape("circle", "origin", hint, cx=start, cy=y, r=3),
        ]
    text = f"{difference:+.1f}" if kind != "same" else "0.0"
    return [*drawn, words(max(start, end) + 9, y + 4, text, kind)]
