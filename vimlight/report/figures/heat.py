"""Heat maps: a value for each row and column, the columns in groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from vimlight.report.figures.canvas import drawing, number_text, shape, width_of, words
from vimlight.report.html import Markup, element

__all__ = ["Group", "heat_map"]

_LONGEST = 26
_HEIGHT = 24.0
_GAP = 14.0
# Cells are at least so wide that a number fits in, up to so many of them.
_WIDE, _NARROW, _WRITTEN = 46.0, 22.0, 1200
_SLOPE = 0.7


class Group(NamedTuple):
    """Columns that stand together.

    Attributes:
        title: What they have in common.
        columns: Their names.
        values: A row of values for each row of the map; NaN where there is none.
        texts: What stands in the cells; the values if left out.
    """

    title: str
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    texts: Sequence[Sequence[str]] | None = None


def heat_map(rows: Sequence[str], groups: Sequence[Group], label: str, *, top: float | None = None) -> Markup:
    """Draws values as depths of colour: of one colour up from 0, of another one below.

    Args:
        rows: Names of the rows.
        groups: The columns.
        label: What it shows.
        top: The value of the deepest colour; the greatest distance from 0 if left out.
    """
    values = [value for group in groups for row in group.values for value in row if math.isfinite(value)]
    top = top or max(map(abs, values), default=1.0) or 1.0
    cells = sum(len(row) for group in groups for row in group.values)
    longest_text = max((len(text) for group in groups for row in _texts(group) for text in row), default=4)
    cell = max(_WIDE, 6.6 * longest_text + 8) if cells <= _WRITTEN else _NARROW
    left = width_of(rows, _LONGEST) + 12
    names = [name for group in groups for name in group.columns]
    upright = width_of(names, _LONGEST) + 8 > cell
    titles = 20.0 if any(group.title for group in groups) else 0.0
    head = titles + (_SLOPE * width_of(names, _LONGEST) + 14 if upright else 20.0)
    drawn: list[Markup] = [
        words(left - 8, head + _HEIGHT * (n + 0.5) + 4, name, anchor="end", longest=_LONGEST)
        for n, name in enumerate(rows)
    ]
    x = left
    for group in groups:
        drawn += _columns(group, x, head, titles, cell, upright)
        drawn += _cells(group, rows, x, head, cell, top, written=cells <= _WRITTEN)
        x += cell * len(group.columns) + _GAP
    overhang = _SLOPE * width_of(names[-1:], _LONGEST) if upright else 0
    return drawing(x - _GAP + max(overhang, 2), head + _HEIGHT * len(rows) + 2, label, drawn)


def _columns(group: Group, x: float, head: float, titles: float, cell: float, upright: bool) -> list[Markup]:
    drawn = [words(x, 12, group.title, "label")] if titles else []
    for number, name in enumerate(group.columns):
        middle = x + cell * (number + 0.5)
        text = words(middle, head - 8, name, anchor="start" if upright else "middle", longest=_LONGEST)
        turned = element("g", text, transform=f"rotate(-45 {middle:.1f} {head - 8:.1f})")
        drawn.append(turned if upright else text)
    return drawn


def _cells(
    group: Group, rows: Sequence[str], x: float, head: float, cell: float, top: float, *, written: bool
) -> list[Markup]:
    drawn = []
    texts = _texts(group)
    for r, row in enumerate(group.values):
        for c, value in enumerate(row):
            if not math.isfinite(value):
                continue
            depth = min(abs(value) / top, 1.0)
            kind = "pos" if value >= 0 else "neg"
            where = {"x": x + cell * c + 1, "y": head + _HEIGHT * r + 1}
            hint = " ".join(filter(None, [rows[r] + ",", group.title, group.columns[c] + ":", texts[r][c]]))
            drawn.append(
                shape("rect", f"cell {kind}", hint, **where, width=cell - 2, height=_HEIGHT - 2, rx=2,
                      fill_opacity=0.06 + 0.94 * depth)
            )  # fmt: skip
            if written and texts[r][c]:
                deep = "value deep" if depth > 0.55 else "value"
                drawn.append(words(x + cell * (c + 0.5), head + _HEIGHT * (r + 0.5) + 4, texts[r][c], deep, "middle"))
    return drawn


def _texts(group: Group) -> Sequence[Sequence[str]]:
    return group.texts or [[number_text(round(value, 3)) for value in row] for row in group.values]
